/// A part of a document of maps, lists and values, none of which leaves wiped memory. Names are no secrets.
struct SecretNode {
    var content: Content
    /// Where it begins in its file, from 1.
    var line: Int

    enum Content {
        case map([SecretMember])
        case list([SecretNode])
        case text(SecretValue)
        /// What stands there without quotes, and is no text to some reader or other: a number, a truth value, a time.
        case bare(SecretValue)
        case null
    }

    /// The member of that name; nil if this is no map, or has none.
    func member(_ name: String) -> SecretNode? {
        guard case .map(let members) = content else { return nil }
        return members.first { $0.name == name }?.node
    }

    /// A text that is no secret.
    var plainText: String? {
        guard case .text(let value) = content else { return nil }
        return value.withBytes { String(decoding: $0, as: UTF8.self) }
    }
}

struct SecretMember {
    var name: String
    var node: SecretNode
}

/// What YAML's readers make of text without quotes. Where they are not of one mind it counts as no text.
enum BareText {
    static func isNull(_ text: UnsafeRawBufferPointer) -> Bool {
        text.isEmpty || ["~", "null", "Null", "NULL"].contains { text.elementsEqual($0.utf8) }
    }

    /// Whether it is text to every reader.
    static func isText(_ text: UnsafeRawBufferPointer) -> Bool {
        guard let first = text.first else { return false }
        if words.contains(where: { word in text.count == word.utf8.count && zip(text, word.utf8).allSatisfy(isSame) }) {
            return false
        }
        guard "+-.0123456789".utf8.contains(first) else { return true }
        return !isNumber(text) && !isTime(text)
    }

    private static let words = ["true", "false", "yes", "no", "on", "off", "y", "n", "null", "~", ".nan"]

    private static func isSame(_ byte: UInt8, _ small: UInt8) -> Bool {
        byte == small || (0x41...0x5A).contains(byte) && byte + 0x20 == small
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) || byte == UInt8(ascii: "_") }

    /// Digits in groups that `:` parts are a number to old readers.
    private static func isNumber(_ text: UnsafeRawBufferPointer) -> Bool {
        var rest = text[...]
        if let first = rest.first, "+-".utf8.contains(first) { rest = rest.dropFirst() }
        if rest.count == 4, zip(rest, ".inf".utf8).allSatisfy(isSame) { return true }
        if rest.count > 2, rest.first == UInt8(ascii: "0"), let base = rest.dropFirst().first,
            "xXoObB".utf8.contains(base)
        {
            let isHexadecimal = base == UInt8(ascii: "x") || base == UInt8(ascii: "X")
            return rest.dropFirst(2).allSatisfy { byte in
                isDigit(byte) || isHexadecimal && "abcdefABCDEF".utf8.contains(byte)
            }
        }
        guard rest.contains(where: { (0x30...0x39).contains($0) }) else { return false }
        let exponent = rest.firstIndex { $0 == UInt8(ascii: "e") || $0 == UInt8(ascii: "E") }
        let mantissa = rest[..<(exponent ?? rest.endIndex)]
        guard mantissa.allSatisfy({ isDigit($0) || ".:".utf8.contains($0) }),
            mantissa.lazy.filter({ $0 == UInt8(ascii: ".") }).count <= 1
        else { return false }
        guard let exponent else { return true }
        let power = rest[(exponent + 1)...]
        let digits = power.first.map { "+-".utf8.contains($0) } == true ? power.dropFirst() : power
        return !digits.isEmpty && digits.allSatisfy(isDigit)
    }

    /// `2006-01-02`, and whatever stands behind.
    private static func isTime(_ text: UnsafeRawBufferPointer) -> Bool {
        guard text.count >= 8, text.prefix(4).allSatisfy({ (0x30...0x39).contains($0) }),
            text[4] == UInt8(ascii: "-")
        else { return false }
        let month = text[5...].prefix { (0x30...0x39).contains($0) }
        return (1...2).contains(month.count) && text[(5 + month.count)...].first == UInt8(ascii: "-")
    }
}
