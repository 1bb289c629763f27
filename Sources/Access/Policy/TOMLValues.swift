/// Values.
extension TOMLParser {
    mutating func countValue() throws(TOML.Mistake) {
        valueCount += 1
        guard valueCount <= TOML.valueLimit else { throw cursor.mistake("there are too many values") }
    }

    mutating func value(depth: Int) throws(TOML.Mistake) -> TOML.Value {
        guard depth <= TOML.depthLimit else { throw cursor.mistake("values are nested too deeply") }
        try countValue()
        let line = cursor.line
        guard let byte = cursor.next else { throw cursor.mistake("a value is missing") }
        let kind: TOML.Value.Kind
        switch byte {
        case UInt8(ascii: "\""):
            kind = .string(cursor.looking(at: "\"\"\"") ? try multilineString(isLiteral: false) : try basicString())
        case UInt8(ascii: "'"):
            kind = .string(cursor.looking(at: "'''") ? try multilineString(isLiteral: true) : try literalString())
        case UInt8(ascii: "["): kind = .array(try array(depth: depth))
        case UInt8(ascii: "{"): kind = .table(try inlineTable(depth: depth))
        default: kind = try word()
        }
        return TOML.Value(line: line, kind: kind)
    }

    private mutating func array(depth: Int) throws(TOML.Mistake) -> [TOML.Value] {
        cursor.advance()
        var values: [TOML.Value] = []
        while true {
            try cursor.skipLines()
            if cursor.next == UInt8(ascii: "]") { break }
            values.append(try value(depth: depth + 1))
            try cursor.skipLines()
            guard cursor.next == UInt8(ascii: ",") else { break }
            cursor.advance()
        }
        try cursor.expect(UInt8(ascii: "]"))
        return values
    }

    /// true, false, numbers, and what else has no quotes.
    private mutating func word() throws(TOML.Mistake) -> TOML.Value.Kind {
        let start = cursor
        var bytes: [UInt8] = []
        while let byte = cursor.next, Self.isBare(byte) || [0x2B, 0x2E, 0x3A].contains(byte) {  // + . :
            bytes.append(byte)
            cursor.advance()
        }
        let word = String(decoding: bytes, as: UTF8.self)
        switch word {
        case "true": return .boolean(true)
        case "false": return .boolean(false)
        case "": throw start.mistake("\(start.description) where a value should be")
        default: break
        }
        if let number = Self.integer(word) { return .integer(number) }
        let isDate = bytes.count >= 8 && (bytes[4] == 0x2D || bytes[2] == 0x3A)
        if isDate, bytes[0] >= 0x30, bytes[0] <= 0x39 { return .other("a date or time") }
        if ["inf", "+inf", "-inf", "nan", "+nan", "-nan"].contains(word) { return .other("a float") }
        let isWhole = bytes.allSatisfy { Self.isBare($0) && $0 != 0x65 && $0 != 0x45 || $0 == 0x2B }
        if !isWhole, Double(word.replacing("_", with: "")) != nil { return .other("a float") }
        throw start.mistake("'\(word)' is no value; strings stand in quotes")
    }

    /// Decimal with a sign, or 0x, 0o, 0b; underscores stand between digits.
    static func integer(_ word: String) -> Int64? {
        var radix = 10
        var digits = Substring(word)
        for (prefix, base) in [("0x", 16), ("0o", 8), ("0b", 2)] where word.hasPrefix(prefix) {
            radix = base
            digits = digits.dropFirst(2)
            guard digits.first != "+", digits.first != "-" else { return nil }
        }
        let unsigned = radix == 10 && (digits.first == "+" || digits.first == "-") ? digits.dropFirst() : digits
        guard !unsigned.isEmpty, !unsigned.hasPrefix("_"), !unsigned.hasSuffix("_"), !unsigned.contains("__") else {
            return nil
        }
        if radix == 10, unsigned.hasPrefix("0"), unsigned.count > 1 { return nil }
        return Int64(digits.replacing("_", with: ""), radix: radix)
    }
}
