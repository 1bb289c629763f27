/// Lines of `NAME=value`, as shells and many programs read them.
///
/// A value is bare to the end of its line or to ` #`; or stands in single quotes as it is; or in double quotes, with `\n`, `\r`,
/// `\t`, and any other character behind a backslash for itself. In quotes it may have several lines.
struct DotEnv {
    private let bytes: UnsafeRawBufferPointer
    private let source: String
    private var place = 0
    private var line = 1

    private init(_ bytes: UnsafeRawBufferPointer, _ source: String) {
        self.bytes = bytes
        self.source = source
    }

    static func read(_ bytes: UnsafeRawBufferPointer, _ source: String) throws(Failure) -> [ExchangeEntry] {
        var reader = DotEnv(bytes, source)
        var entries: [ExchangeEntry] = []
        while let entry = try reader.next() { entries.append(entry) }
        return entries
    }

    private var byte: UInt8? { place < bytes.count ? bytes[place] : nil }

    private mutating func advance() {
        if byte == UInt8(ascii: "\n") { line += 1 }
        place += 1
    }

    private mutating func skip(_ set: String) { while let byte, set.utf8.contains(byte) { advance() } }

    private func malformed(_ what: String) -> Failure { Failure("\(source), line \(line): \(what)") }

    private mutating func next() throws(Failure) -> ExchangeEntry? {
        skip(" \t\r\n")
        while byte == UInt8(ascii: "#") {
            while let byte, byte != UInt8(ascii: "\n") { advance() }
            skip(" \t\r\n")
        }
        guard byte != nil else { return nil }
        var name = try self.name()
        if name == "export", byte == UInt8(ascii: " ") || byte == UInt8(ascii: "\t") {
            skip(" \t")
            name = try self.name()
        }
        skip(" \t")
        guard byte == UInt8(ascii: "=") else { throw malformed("a name without a value") }
        advance()
        skip(" \t")
        return ExchangeEntry(path: [name], value: try value())
    }

    private mutating func name() throws(Failure) -> String {
        let start = place
        while let byte, Self.isOfName(byte, isFirst: place == start) { advance() }
        guard place > start else { throw malformed("a line begins with a name, of letters, digits and _") }
        return String(decoding: bytes[start..<place], as: UTF8.self)
    }

    private static func isOfName(_ byte: UInt8, isFirst: Bool) -> Bool {
        switch byte {
        case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"): true
        case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "-"): !isFirst
        default: false
        }
    }

    private mutating func value() throws(Failure) -> SecretValue {
        let value = SecretValue()
        switch byte {
        case UInt8(ascii: "'"):
            try quoted(UInt8(ascii: "'"), into: value)
            try expectEnd()
        case UInt8(ascii: "\""):
            try quoted(UInt8(ascii: "\""), into: value)
            try expectEnd()
        default:
            var blanks = 0
            while let byte, byte != UInt8(ascii: "\n") {
                if byte == UInt8(ascii: "#"), blanks > 0 { break }
                blanks = " \t\r".utf8.contains(byte) ? blanks + 1 : 0
                value.append(byte)
                advance()
            }
            value.removeLast(blanks)
            while let byte, byte != UInt8(ascii: "\n") { advance() }
        }
        return value
    }

    private mutating func quoted(_ quote: UInt8, into value: SecretValue) throws(Failure) {
        let first = line
        advance()
        while let byte, byte != quote {
            advance()
            guard byte == UInt8(ascii: "\\"), quote == UInt8(ascii: "\"") else {
                value.append(byte)
                continue
            }
            guard let escaped = self.byte else { break }
            advance()
            switch escaped {
            case UInt8(ascii: "n"): value.append(UInt8(ascii: "\n"))
            case UInt8(ascii: "r"): value.append(UInt8(ascii: "\r"))
            case UInt8(ascii: "t"): value.append(UInt8(ascii: "\t"))
            default: value.append(escaped)
            }
        }
        guard byte == quote else {
            line = first
            throw malformed("a quote is not closed")
        }
        advance()
    }

    private mutating func expectEnd() throws(Failure) {
        skip(" \t\r")
        guard let byte, byte != UInt8(ascii: "\n") else { return }
        guard byte == UInt8(ascii: "#") else { throw malformed("something stands behind a value") }
        while let byte = self.byte, byte != UInt8(ascii: "\n") { advance() }
    }

    // MARK: Writing

    /// - Throws: for a value that no such line can hold.
    static func write(_ name: String, _ value: UnsafeRawBufferPointer, from origin: String, into text: SecretValue)
        throws(Failure)
    {
        guard !value.contains(0) else { throw Failure("\(origin) has a zero byte, which no variable can have") }
        text.append("\(name)=\"")
        for byte in value {
            switch byte {
            case UInt8(ascii: "\n"): text.append("\\n")
            case UInt8(ascii: "\r"): text.append("\\r")
            case UInt8(ascii: "\t"): text.append("\\t")
            case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "$"), UInt8(ascii: "`"):
                text.append(UInt8(ascii: "\\"))
                text.append(byte)
            default: text.append(byte)
            }
        }
        text.append("\"\n")
    }
}
