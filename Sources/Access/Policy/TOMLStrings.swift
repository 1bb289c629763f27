/// Strings.
extension TOMLParser {
    /// `"…"`, on one line, with escapes.
    mutating func basicString() throws(TOML.Mistake) -> String {
        let start = cursor
        cursor.advance()
        var text: [UInt8] = []
        while let byte = cursor.next {
            switch byte {
            case UInt8(ascii: "\""):
                cursor.advance()
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): try escape(into: &text)
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"): throw start.mistake("a string that does not end on its line")
            default: try plain(byte, into: &text)
            }
        }
        throw start.mistake("a string that does not end")
    }

    /// `'…'`, on one line, without escapes.
    mutating func literalString() throws(TOML.Mistake) -> String {
        let start = cursor
        cursor.advance()
        var text: [UInt8] = []
        while let byte = cursor.next {
            switch byte {
            case UInt8(ascii: "'"):
                cursor.advance()
                return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\n"), UInt8(ascii: "\r"): throw start.mistake("a string that does not end on its line")
            default: try plain(byte, into: &text)
            }
        }
        throw start.mistake("a string that does not end")
    }

    private mutating func plain(_ byte: UInt8, into text: inout [UInt8]) throws(TOML.Mistake) {
        guard byte == 0x09 || byte >= 0x20 && byte != 0x7F else { throw cursor.mistake("a control character") }
        text.append(byte)
        cursor.advance()
    }

    /// Three quotes on either side; a line end right behind the first three does not count.
    mutating func multilineString(isLiteral: Bool) throws(TOML.Mistake) -> String {
        let start = cursor
        let quote = isLiteral ? UInt8(ascii: "'") : UInt8(ascii: "\"")
        cursor.advance(3)
        _ = try cursor.skipLineEnd()
        var text: [UInt8] = []
        while let byte = cursor.next {
            if byte == quote, cursor.ahead(1) == quote, cursor.ahead(2) == quote {
                // Up to two quotes may belong to the text.
                while cursor.ahead(3) == quote, text.count <= TOML.byteLimit {
                    text.append(quote)
                    cursor.advance()
                }
                cursor.advance(3)
                return String(decoding: text, as: UTF8.self)
            }
            if byte == UInt8(ascii: "\n") || byte == UInt8(ascii: "\r") {
                guard try cursor.skipLineEnd() else { continue }
                text.append(UInt8(ascii: "\n"))
            } else if byte == UInt8(ascii: "\\"), !isLiteral {
                try continuationOrEscape(into: &text)
            } else {
                try plain(byte, into: &text)
            }
        }
        throw start.mistake("a string that does not end")
    }

    /// A backslash at a line's end takes all white space behind it away.
    private mutating func continuationOrEscape(into text: inout [UInt8]) throws(TOML.Mistake) {
        var ahead = cursor
        ahead.advance()
        ahead.skipBlanks()
        guard try ahead.skipLineEnd() else { return try escape(into: &text) }
        repeat { ahead.skipBlanks() } while try ahead.skipLineEnd()
        cursor = ahead
    }

    private mutating func escape(into text: inout [UInt8]) throws(TOML.Mistake) {
        cursor.advance()
        let simple: [UInt8: UInt8] = [
            UInt8(ascii: "b"): 8, UInt8(ascii: "t"): 9, UInt8(ascii: "n"): 10, UInt8(ascii: "f"): 12,
            UInt8(ascii: "r"): 13, UInt8(ascii: "\""): 0x22, UInt8(ascii: "\\"): 0x5C,
        ]
        guard let letter = cursor.next else { throw cursor.mistake("a string that does not end") }
        if let byte = simple[letter] {
            text.append(byte)
            cursor.advance()
            return
        }
        let count = letter == UInt8(ascii: "u") ? 4 : letter == UInt8(ascii: "U") ? 8 : 0
        guard count > 0 else { throw cursor.mistake("there is no escape with \(cursor.description)") }
        cursor.advance()
        var digits = ""
        for _ in 0..<count {
            if let byte = cursor.next { digits.unicodeScalars.append(Unicode.Scalar(byte)) }
            cursor.advance()
        }
        guard digits.count == count, digits.allSatisfy(\.isHexDigit), let number = UInt32(digits, radix: 16),
            let scalar = Unicode.Scalar(number)
        else { throw cursor.mistake("'\(digits)' is no character's number") }
        text.append(contentsOf: Array(String(Character(scalar)).utf8))
    }
}
