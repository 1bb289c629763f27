/// A place in a document, and the small steps from it.
struct TOMLCursor {
    let bytes: UnsafeRawBufferPointer
    private(set) var place = 0
    private(set) var line = 1
    private var lineStart = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var isAtEnd: Bool { place >= bytes.count }
    var next: UInt8? { place < bytes.count ? bytes[place] : nil }

    func ahead(_ count: Int) -> UInt8? { place + count < bytes.count ? bytes[place + count] : nil }

    func looking(at text: StaticString) -> Bool {
        guard place + text.utf8CodeUnitCount <= bytes.count else { return false }
        return text.withUTF8Buffer { text in
            text.indices.allSatisfy { bytes[place + $0] == text[$0] }
        }
    }

    mutating func advance(_ count: Int = 1) {
        for _ in 0..<count where place < bytes.count {
            if bytes[place] == UInt8(ascii: "\n") {
                line += 1
                lineStart = place + 1
            }
            place += 1
        }
    }

    func mistake(_ what: String) -> TOML.Mistake {
        TOML.Mistake(line: line, column: place - lineStart + 1, what: what)
    }

    /// What stands here, for messages.
    var description: String {
        guard let next else { return "the end of the document" }
        if next == UInt8(ascii: "\n") || next == UInt8(ascii: "\r") { return "the end of the line" }
        return next > 0x20 && next < 0x7F ? "'\(Character(Unicode.Scalar(next)))'" : "a byte \(next)"
    }

    mutating func skipBlanks() {
        while let byte = next, byte == 0x20 || byte == 0x09 { advance() }
    }

    /// Blanks, comments and line ends.
    mutating func skipLines() throws(TOML.Mistake) {
        while true {
            skipBlanks()
            try skipComment()
            guard try skipLineEnd() else { return }
        }
    }

    /// True if there was one.
    mutating func skipLineEnd() throws(TOML.Mistake) -> Bool {
        if next == UInt8(ascii: "\n") {
            advance()
            return true
        }
        guard next == UInt8(ascii: "\r") else { return false }
        guard ahead(1) == UInt8(ascii: "\n") else { throw mistake("a carriage return without a line end") }
        advance(2)
        return true
    }

    mutating func skipComment() throws(TOML.Mistake) {
        guard next == UInt8(ascii: "#") else { return }
        while let byte = next, byte != UInt8(ascii: "\n") {
            if byte == UInt8(ascii: "\r"), ahead(1) == UInt8(ascii: "\n") { return }
            guard byte == 0x09 || byte >= 0x20 && byte != 0x7F else {
                throw mistake("a control character in a comment")
            }
            advance()
        }
    }

    /// After a key and its value, or a header, the line is at its end.
    mutating func expectLineEnd() throws(TOML.Mistake) {
        skipBlanks()
        try skipComment()
        guard isAtEnd else {
            guard try skipLineEnd() else { throw mistake("\(description) where the line should end") }
            return
        }
    }

    mutating func expect(_ byte: UInt8) throws(TOML.Mistake) {
        guard next == byte else {
            throw mistake("\(description) where '\(Character(Unicode.Scalar(byte)))' should be")
        }
        advance()
    }
}
