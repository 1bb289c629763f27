/// A JSON object of strings, and of objects of such: a file each, and a directory each. Numbers and truth values are taken as they are
/// written. No value leaves wiped memory.
struct SecretJSON {
    private let bytes: UnsafeRawBufferPointer
    private let source: String
    private var place = 0
    private var entries: [ExchangeEntry] = []
    private static let depthLimit = 32

    private init(_ bytes: UnsafeRawBufferPointer, _ source: String) {
        self.bytes = bytes
        self.source = source
    }

    static func read(_ bytes: UnsafeRawBufferPointer, _ source: String) throws(Failure) -> [ExchangeEntry] {
        var reader = SecretJSON(bytes, source)
        reader.skipSpace()
        try reader.object([])
        reader.skipSpace()
        guard reader.place == bytes.count else { throw reader.malformed("something stands behind its end") }
        return reader.entries
    }

    private var byte: UInt8? { place < bytes.count ? bytes[place] : nil }
    private func malformed(_ what: String) -> Failure { Failure("\(source), byte \(place): \(what)") }

    private mutating func skipSpace() { while let byte, " \t\r\n".utf8.contains(byte) { place += 1 } }

    private mutating func expect(_ scalar: Unicode.Scalar) throws(Failure) {
        guard byte == UInt8(ascii: scalar) else { throw malformed("'\(scalar)' is missing") }
        place += 1
    }

    private mutating func object(_ path: [String]) throws(Failure) {
        guard path.count < Self.depthLimit else { throw malformed("too deep") }
        try expect("{")
        skipSpace()
        if byte == UInt8(ascii: "}") {
            place += 1
            return
        }
        while true {
            skipSpace()
            let name = try string().withBytes { String(decoding: $0, as: UTF8.self) }
            try ExchangeEntry.check(name, in: source)
            skipSpace()
            try expect(":")
            skipSpace()
            try value(path + [name])
            skipSpace()
            guard byte == UInt8(ascii: ",") else { break }
            place += 1
        }
        try expect("}")
    }

    private mutating func value(_ path: [String]) throws(Failure) {
        switch byte {
        case UInt8(ascii: "{"): try object(path)
        case UInt8(ascii: "\""): entries.append(ExchangeEntry(path: path, value: try string()))
        default:
            let start = place
            while let byte, !",}] \t\r\n\"{[".utf8.contains(byte) { place += 1 }
            let word = UnsafeRawBufferPointer(rebasing: bytes[start..<place])
            let isNumber = word.first.map { "-0123456789".utf8.contains($0) } ?? false
            guard isNumber || word.elementsEqual("true".utf8) || word.elementsEqual("false".utf8) else {
                place = start
                throw malformed("'\(path.joined(separator: "/"))' is neither a string nor an object")
            }
            let value = SecretValue()
            value.append(word)
            entries.append(ExchangeEntry(path: path, value: value))
        }
    }

    private mutating func string() throws(Failure) -> SecretValue {
        try expect("\"")
        let value = SecretValue()
        while let byte, byte != UInt8(ascii: "\"") {
            guard byte >= 0x20 else { throw malformed("a control character in a string") }
            place += 1
            if byte == UInt8(ascii: "\\") { try escape(into: value) } else { value.append(byte) }
        }
        try expect("\"")
        guard value.isUTF8 else { throw malformed("a string is not UTF-8") }
        return value
    }

    private mutating func escape(into value: SecretValue) throws(Failure) {
        guard let byte else { throw malformed("a string is not closed") }
        place += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): value.append(byte)
        case UInt8(ascii: "b"): value.append(8)
        case UInt8(ascii: "f"): value.append(12)
        case UInt8(ascii: "n"): value.append(10)
        case UInt8(ascii: "r"): value.append(13)
        case UInt8(ascii: "t"): value.append(9)
        case UInt8(ascii: "u"):
            var code = try hexadecimal()
            if (0xD800..<0xDC00).contains(code) {
                guard place + 1 < bytes.count, bytes[place] == UInt8(ascii: "\\"), bytes[place + 1] == UInt8(ascii: "u")
                else {
                    throw malformed("half a character")
                }
                place += 2
                let low = try hexadecimal()
                guard (0xDC00..<0xE000).contains(low) else { throw malformed("half a character") }
                code = 0x10000 + (code - 0xD800) << 10 + (low - 0xDC00)
            }
            guard let scalar = Unicode.Scalar(code) else { throw malformed("half a character") }
            for unit in UTF8.encode(scalar)! { value.append(unit) }
        default: throw malformed("an escape that is none")
        }
    }

    private mutating func hexadecimal() throws(Failure) -> UInt32 {
        var code: UInt32 = 0
        for _ in 0..<4 {
            guard let byte, let digit = Character(Unicode.Scalar(byte)).hexDigitValue, byte < 0x80 else {
                throw malformed("an escape that is none")
            }
            code = code << 4 | UInt32(digit)
            place += 1
        }
        return code
    }

    // MARK: Writing

    /// - Parameter entries: In the order of their paths.
    static func write(_ entries: [ExchangeEntry], into text: SecretValue) throws(Failure) {
        try write(entries[...], depth: 0, into: text)
        text.append("\n")
    }

    private static func write(_ entries: ArraySlice<ExchangeEntry>, depth: Int, into text: SecretValue) throws(Failure)
    {
        text.append("{")
        var rest = entries
        var isFirst = true
        while let first = rest.first {
            text.append((isFirst ? "\n" : ",\n") + String(repeating: "  ", count: depth + 1))
            isFirst = false
            let name = first.path[depth]
            Array(name.utf8).withUnsafeBytes { quote($0, into: text) }
            text.append(": ")
            guard first.path.count > depth + 1 else {
                guard first.value.isUTF8 else {
                    throw Failure("\(first.name) is not UTF-8, which a JSON string has to be")
                }
                first.value.withBytes { quote($0, into: text) }
                rest = rest.dropFirst()
                continue
            }
            let inside = rest.prefix { $0.path.count > depth + 1 && $0.path[depth] == name }
            try write(inside, depth: depth + 1, into: text)
            rest = rest.dropFirst(inside.count)
        }
        text.append(isFirst ? "}" : "\n" + String(repeating: "  ", count: depth) + "}")
    }

    private static func quote(_ value: UnsafeRawBufferPointer, into text: SecretValue) {
        text.append("\"")
        for byte in value {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"):
                text.append(UInt8(ascii: "\\"))
                text.append(byte)
            case UInt8(ascii: "\n"): text.append("\\n")
            case 0..<0x20: text.append("\\u00" + (byte < 16 ? "0" : "") + String(byte, radix: 16))
            default: text.append(byte)
            }
        }
        text.append("\"")
    }
}
