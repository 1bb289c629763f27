/// Texts: in quotes, without, and in literal blocks.
extension SecretYAML {
    // MARK: Quotes

    /// From a quote to the one that closes it. A text of several lines is folded: the end of a line is a blank, an empty line the end of
    /// a line.
    mutating func quoted() throws(Failure) -> SecretValue {
        let start = line
        let quote = bytes[place]
        place += 1
        let value = SecretValue()
        /// How many bytes at its end are blanks that stand there as they are, and are none at the end of a line.
        var blanks = 0
        while let byte {
            if byte == quote {
                place += 1
                guard quote == UInt8(ascii: "'"), self.byte == quote else { return value }
                value.append(quote)
                place += 1
                blanks = 0
            } else if isLineEnd(place) {
                value.removeLast(blanks)
                blanks = 0
                fold(into: value)
                guard !isMarker() else { break }
            } else if byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\"") {
                place += 1
                blanks = 0
                if isLineEnd(place) {
                    nextLine()
                    skipBlanks()
                } else {
                    try escape(into: value)
                }
            } else {
                blanks = isBlank(place) ? blanks + 1 : 0
                value.append(byte)
                place += 1
            }
        }
        throw malformed("a quote is not closed", line: start)
    }

    /// Over ends of lines, and the blanks that the next line begins with.
    private mutating func fold(into value: SecretValue) {
        var count = 0
        while place < bytes.count, isLineEnd(place) {
            nextLine()
            count += 1
            if isMarker() { return }
            skipBlanks()
        }
        if count == 1 { value.append(UInt8(ascii: " ")) }
        for _ in 1..<max(count, 1) { value.append(UInt8(ascii: "\n")) }
    }

    private mutating func escape(into value: SecretValue) throws(Failure) {
        let byte = bytes[place]
        place += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"), UInt8(ascii: " "), UInt8(ascii: "\t"):
            value.append(byte)
        case UInt8(ascii: "0"): value.append(0)
        case UInt8(ascii: "a"): value.append(7)
        case UInt8(ascii: "b"): value.append(8)
        case UInt8(ascii: "t"): value.append(9)
        case UInt8(ascii: "n"): value.append(10)
        case UInt8(ascii: "v"): value.append(11)
        case UInt8(ascii: "f"): value.append(12)
        case UInt8(ascii: "r"): value.append(13)
        case UInt8(ascii: "e"): value.append(27)
        case UInt8(ascii: "N"): append("\u{85}", to: value)
        case UInt8(ascii: "_"): append("\u{A0}", to: value)
        case UInt8(ascii: "L"): append("\u{2028}", to: value)
        case UInt8(ascii: "P"): append("\u{2029}", to: value)
        case UInt8(ascii: "x"): append(try scalar(digits: 2), to: value)
        case UInt8(ascii: "u"): append(try scalar(digits: 4), to: value)
        case UInt8(ascii: "U"): append(try scalar(digits: 8), to: value)
        default: throw malformed("an escape that is none")
        }
    }

    private func append(_ scalar: Unicode.Scalar, to value: SecretValue) {
        for unit in UTF8.encode(scalar)! { value.append(unit) }
    }

    /// A character; one that JSON writes as two halves, too.
    private mutating func scalar(digits: Int) throws(Failure) -> Unicode.Scalar {
        var code = try hexadecimal(digits)
        if digits == 4, (0xD800..<0xDC00).contains(code) {
            guard byte == UInt8(ascii: "\\"), byte(at: place + 1) == UInt8(ascii: "u") else {
                throw malformed("half a character")
            }
            place += 2
            let low = try hexadecimal(4)
            guard (0xDC00..<0xE000).contains(low) else { throw malformed("half a character") }
            code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
        }
        guard let scalar = Unicode.Scalar(code) else { throw malformed("no such character") }
        return scalar
    }

    private mutating func hexadecimal(_ count: Int) throws(Failure) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<count {
            guard let byte, byte < 0x80, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw malformed("an escape that is none")
            }
            code = code << 4 | UInt32(digit)
            place += 1
        }
        return code
    }

    // MARK: Without quotes

    /// Refuses what a text without quotes cannot begin with.
    func checkBareStart() throws(Failure) {
        switch byte {
        case UInt8(ascii: "&"), UInt8(ascii: "*"): throw malformed("anchors and aliases are not read")
        case UInt8(ascii: "!"): throw malformed("tags are not read")
        case UInt8(ascii: ">"): throw malformed("folded texts ('>') are not read: write it as a literal one ('|')")
        case UInt8(ascii: "-"), UInt8(ascii: "?"), UInt8(ascii: ":"):
            guard !isBlank(place + 1) else { throw malformed("a value is missing") }
        default:
            guard let byte, !",[]{}#|'\"%@`".utf8.contains(byte) else { throw malformed("that begins no value") }
        }
    }

    /// Text to the end of its line or a comment, and of the lines behind that are indented by more than `indentation`.
    mutating func bare(below indentation: Int) throws(Failure) -> SecretNode {
        try checkBareStart()
        let start = line
        let value = SecretValue()
        while true {
            var blanks = 0
            while !isLineEnd(place) {
                if byte == UInt8(ascii: "#"), blanks > 0 { break }
                if byte == UInt8(ascii: ":"), isBlank(place + 1) {
                    throw malformed("a map begins on a line of its own")
                }
                blanks = isBlank(place) ? blanks + 1 : 0
                value.append(bytes[place])
                place += 1
            }
            value.removeLast(blanks)
            guard isLineEnd(place), place < bytes.count else { break }
            var ahead = self
            try ahead.skipEmptyLines()
            let isComment = bytes[place..<ahead.place].contains(UInt8(ascii: "#"))
            guard !ahead.isAtEnd, ahead.column > indentation, !isComment else { break }
            fold(into: value)
        }
        skipComment()
        return Self.bareNode(value, line: start)
    }

    static func bareNode(_ value: SecretValue, line: Int) -> SecretNode {
        value.withBytes { bytes in
            if BareText.isNull(bytes) { return SecretNode(content: .null, line: line) }
            return SecretNode(content: BareText.isText(bytes) ? .text(value) : .bare(value), line: line)
        }
    }

    // MARK: Literal blocks

    /// `|`, with `-` or `+` and a digit, and the lines below.
    mutating func literal(below indentation: Int) throws(Failure) -> SecretValue {
        place += 1
        var ending: UInt8?
        var given: Int?
        while !isBlank(place) {
            switch bytes[place] {
            case UInt8(ascii: "-") where ending == nil, UInt8(ascii: "+") where ending == nil: ending = bytes[place]
            case UInt8(ascii: "1")...UInt8(ascii: "9") where given == nil: given = Int(bytes[place]) - 0x30
            default: throw malformed("what stands behind '|' is not known")
            }
            place += 1
        }
        try expectLineEnd()
        let value = SecretValue()
        guard place < bytes.count else { return value }
        nextLine()
        let own = if let given { max(indentation, 0) + given } else { try ownIndentation(below: indentation) }
        // Ends of lines that are kept only if something follows them.
        var ends = 0
        while place < bytes.count {
            let start = place
            while byte == UInt8(ascii: " "), column < own { place += 1 }
            if isLineEnd(place) {
                guard place < bytes.count else { break }
                ends += 1
                nextLine()
                continue
            }
            guard column >= own, !isMarker() else {
                place = start
                break
            }
            for _ in 0..<ends { value.append(UInt8(ascii: "\n")) }
            ends = 0
            while !isLineEnd(place) {
                value.append(bytes[place])
                place += 1
            }
            guard place < bytes.count else { break }
            ends = 1
            nextLine()
        }
        switch ending {
        case UInt8(ascii: "-"): ends = 0
        case nil: ends = value.byteCount > 0 ? min(ends, 1) : 0
        default: break
        }
        for _ in 0..<ends { value.append(UInt8(ascii: "\n")) }
        return value
    }

    /// How far the first line that is not empty is indented.
    private func ownIndentation(below indentation: Int) throws(Failure) -> Int {
        var ahead = self
        var longest = 0
        while ahead.place < bytes.count {
            while ahead.byte == UInt8(ascii: " ") { ahead.place += 1 }
            guard isLineEnd(ahead.place) else { break }
            longest = max(longest, ahead.column)
            guard ahead.place < bytes.count else { break }
            ahead.nextLine()
        }
        let own = max(ahead.column, indentation + 1)
        guard longest <= own || ahead.place >= bytes.count else {
            throw malformed("an empty line is indented by more than the text", line: ahead.line)
        }
        return own
    }
}
