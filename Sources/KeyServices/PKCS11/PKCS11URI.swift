internal import Keyring

/// What stands behind `pkcs11:` (RFC 7512): which key of which token, by which module, and where its PIN is.
struct PKCS11URI: Equatable, Sendable {
    private(set) var token: String?
    private(set) var manufacturer: String?
    private(set) var model: String?
    private(set) var serial: String?
    private(set) var slot: Int?
    private(set) var object: String?
    private(set) var id: [UInt8]?
    /// A library's path.
    private(set) var module: String?
    /// A file's path.
    private(set) var pinFile: String?
    /// What names token and key, in one spelling: attributes in the order of their names.
    private(set) var name = ""

    init(_ text: String) throws(KeyringError) {
        let parts = text.split(separator: "?", maxSplits: 1, omittingEmptySubsequences: false)
        var names: [String] = []
        for part in parts[0].split(separator: ";") {
            let (key, value) = try Self.attribute(part, of: text)
            guard !names.contains(where: { $0.hasPrefix(key + "=") }) else {
                throw Self.malformed(text, "'\(key)' twice")
            }
            try take(key, value, text)
            names.append("\(key)=\(Self.encoded(value))")
        }
        name = names.sorted().joined(separator: ";")
        guard object != nil || id != nil else { throw Self.malformed(text, "it names no key by 'object' or 'id'") }
        guard name.utf8.count <= 1024 else { throw Self.malformed(text, "it is too long") }
        for part in parts.count > 1 ? parts[1].split(separator: "&") : [] {
            let (key, value) = try Self.attribute(part, of: text)
            try takeQuery(key, value, text)
        }
    }

    private mutating func take(_ key: String, _ value: [UInt8], _ text: String) throws(KeyringError) {
        guard key != "id" else {
            id = value
            return
        }
        guard let words = String(validating: value, as: UTF8.self), !value.contains(0) else {
            throw Self.malformed(text, "'\(key)' is no text")
        }
        switch key {
        case "token": token = words
        case "manufacturer": manufacturer = words
        case "model": model = words
        case "serial": serial = words
        case "object": object = words
        case "slot-id":
            guard let number = Int(words), number >= 0 else { throw Self.malformed(text, "'slot-id' is no number") }
            slot = number
        case "type":
            guard words == "secret-key" else { throw Self.malformed(text, "it takes a key of type secret-key") }
        default: throw Self.malformed(text, "'\(key)' is not known")
        }
    }

    private mutating func takeQuery(_ key: String, _ value: [UInt8], _ text: String) throws(KeyringError) {
        var path = String(decoding: value, as: UTF8.self)
        if path.hasPrefix("file:") { path.removeFirst("file:".count) }
        switch key {
        case "pin-value":
            throw Self.malformed("…", "a PIN has no place in it: put it into a file, pin-source=file:/PATH")
        case "pin-source", "module-path":
            guard path.hasPrefix("/"), !value.contains(0) else {
                throw Self.malformed(text, "'\(key)' is a path from the root on")
            }
            if key == "pin-source" { pinFile = path } else { module = path }
        default: throw Self.malformed(text, "'\(key)' is not known")
        }
    }

    private static func attribute(_ part: Substring, of text: String) throws(KeyringError) -> (String, [UInt8]) {
        let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard words.count == 2, let value = decoded(words[1]) else {
            throw malformed(text, "'\(words[0])' has no value")
        }
        return (String(words[0]), value)
    }

    /// Nil for what is wrongly encoded.
    private static func decoded(_ text: Substring) -> [UInt8]? {
        var bytes: [UInt8] = []
        var rest = text.utf8[...]
        while let byte = rest.popFirst() {
            guard byte == UInt8(ascii: "%") else {
                bytes.append(byte)
                continue
            }
            guard let high = rest.popFirst().flatMap({ Character(Unicode.Scalar($0)).hexDigitValue }),
                let low = rest.popFirst().flatMap({ Character(Unicode.Scalar($0)).hexDigitValue })
            else { return nil }
            bytes.append(UInt8(high << 4 | low))
        }
        return bytes
    }

    private static func encoded(_ bytes: [UInt8]) -> String {
        bytes.map { byte in
            let character = Character(Unicode.Scalar(byte))
            let isPlain = byte < 0x80 && (character.isLetter || character.isNumber || "-._".contains(character))
            return isPlain ? String(character) : "%" + (byte < 16 ? "0" : "") + String(byte, radix: 16)
        }.joined()
    }

    private static func malformed(_ text: String, _ why: String) -> KeyringError {
        .service(
            KeyServiceFault(
                .malformedAddress, "'pkcs11:\(text)' is no address of a key: \(why)",
                hint: "write pkcs11:token=NAME;object=NAME?module-path=/PATH&pin-source=file:/PATH"))
    }
}
