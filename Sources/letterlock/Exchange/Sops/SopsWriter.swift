import Glibc
import KeyServices
import Keyring
import Sodium

/// Writes files that sops opens with the identity of any of some age recipients.
struct SopsWriter {
    enum Form {
        case yaml, json, dotenv
        /// One value, whatever it is.
        case binary

        /// As sops tells them apart.
        init(ofFile name: String) {
            if name.hasSuffix(".yaml") || name.hasSuffix(".yml") {
                self = .yaml
            } else if name.hasSuffix(".json") {
                self = .json
            } else {
                self = name.hasSuffix(".env") ? .dotenv : .binary
            }
        }
    }

    private let recipients: [AgeRecipient]
    private let key: SecretKey
    private let mac = SopsMAC(covers: .everything)
    private let text: SecretValue

    /// - Parameter entries: In the order of their paths; of a binary file one, called `data`.
    static func write(_ entries: [ExchangeEntry], _ form: Form, for recipients: [AgeRecipient], into text: SecretValue)
        throws(Failure)
    {
        for entry in entries { try check(entry, form) }
        let writer = try SopsWriter(recipients, text)
        switch form {
        case .yaml: try writer.yaml(entries)
        case .json, .binary: try writer.json(entries)
        case .dotenv: try writer.dotenv(entries)
        }
    }

    private init(_ recipients: [AgeRecipient], _ text: SecretValue) throws(Failure) {
        self.recipients = recipients
        self.text = text
        do throws(SodiumError) { key = try SecretKey.random() } catch { throw Messages.failure(error) }
    }

    private static func check(_ entry: ExchangeEntry, _ form: Form) throws(Failure) {
        guard form == .binary || entry.value.isUTF8 else {
            throw Failure(
                "\(entry.name) is not UTF-8, which a value of such a file has to be",
                hint: "export that secret alone, to a file with another ending")
        }
        for name in entry.path where name.hasSuffix("_unencrypted") {
            throw Failure("'\(name)' would be no secret to sops", hint: "a name must not end with _unencrypted")
        }
        guard entry.path[0] != "sops", form != .dotenv || !entry.path[0].hasPrefix("sops_") else {
            throw Failure("'\(entry.path[0])' is what sops calls its own")
        }
    }

    // MARK: Parts

    private func append(_ entry: ExchangeEntry) throws(Failure) {
        mac.add(entry.value)
        try SopsValue.seal(entry.value, place: entry.path.map { $0 + ":" }.joined(), key: key, into: text)
    }

    private func appendMAC(_ time: String) throws(Failure) {
        try SopsValue.seal(mac.text(), place: time, key: key, into: text)
    }

    /// The data key as a file of age's with armour.
    private func sealedKey(for recipient: AgeRecipient) throws(Failure) -> String {
        do throws(KeyringError) {
            let file = try key.withKey { (key: borrowing BorrowedKey) throws(KeyringError) -> [UInt8] in
                try AgeFile.seal(key.bytes, for: recipient)
            }
            return String(decoding: AgeArmour.add(to: file), as: UTF8.self)
        } catch { throw Messages.failure(error) }
    }

    private static func now() -> String {
        var seconds = time(nil)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        var text = [CChar](repeating: 0, count: 32)
        let count = strftime(&text, text.count, "%Y-%m-%dT%H:%M:%SZ", &parts)
        return String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    /// Of sops, whose format this is.
    private static let version = "3.9.0"

    /// Each name at that depth, with all that lies below it.
    private func eachName(
        _ entries: ArraySlice<ExchangeEntry>, _ depth: Int,
        _ body: (String, ArraySlice<ExchangeEntry>, Bool) throws(Failure) -> Void
    ) throws(Failure) {
        var rest = entries
        while let first = rest.first {
            let name = first.path[depth]
            let inside = rest.prefix { $0.path[depth] == name }
            try body(name, inside, rest.startIndex == entries.startIndex)
            rest = rest.dropFirst(inside.count)
        }
    }

    /// In double quotes, as JSON and YAML both read them.
    private static func quoted(_ name: String) -> String {
        var text = "\""
        for scalar in name.unicodeScalars {
            switch scalar.value {
            case 0x22, 0x5C: text += "\\" + String(scalar)
            case 0x20..<0x7F, 0xA0..<0x2028, 0x202A..<0xD800, 0xE000..<0xFEFF, 0xFF00..<0xFFFE, 0x10000...:
                text.unicodeScalars.append(scalar)
            default:
                let digits = String(scalar.value, radix: 16)
                text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            }
        }
        return text + "\""
    }

    // MARK: JSON

    private func json(_ entries: [ExchangeEntry]) throws(Failure) {
        text.append("{\n")
        try json(entries[...], depth: 0)
        text.append((entries.isEmpty ? "" : ",\n") + "\t\"sops\": {\n\t\t\"age\": [\n")
        for (index, recipient) in recipients.enumerated() {
            let key = try sealedKey(for: recipient).replacing("\n", with: "\\n")
            text.append((index == 0 ? "" : ",\n") + "\t\t\t{\"recipient\": \"\(recipient.text)\", \"enc\": \"\(key)\"}")
        }
        let time = Self.now()
        text.append("\n\t\t],\n\t\t\"lastmodified\": \"\(time)\",\n\t\t\"mac\": \"")
        try appendMAC(time)
        text.append(
            "\",\n\t\t\"unencrypted_suffix\": \"_unencrypted\",\n\t\t\"version\": \"\(Self.version)\"\n\t}\n}\n")
    }

    private func json(_ entries: ArraySlice<ExchangeEntry>, depth: Int) throws(Failure) {
        let margin = String(repeating: "\t", count: depth + 1)
        try eachName(entries, depth) { (name, inside, isFirst) throws(Failure) in
            text.append((isFirst ? "" : ",\n") + margin + Self.quoted(name) + ": ")
            if let entry = inside.first, entry.path.count == depth + 1 {
                text.append("\"")
                try append(entry)
                text.append("\"")
            } else {
                text.append("{\n")
                try json(inside, depth: depth + 1)
                text.append("\n\(margin)}")
            }
        }
    }

    // MARK: YAML

    private func yaml(_ entries: [ExchangeEntry]) throws(Failure) {
        try yaml(entries[...], depth: 0)
        text.append("sops:\n    age:\n")
        for recipient in recipients {
            text.append("        - recipient: \(recipient.text)\n          enc: |\n")
            for line in try sealedKey(for: recipient).split(separator: "\n") { text.append("            \(line)\n") }
        }
        let time = Self.now()
        text.append("    lastmodified: \"\(time)\"\n    mac: ")
        try appendMAC(time)
        text.append("\n    unencrypted_suffix: _unencrypted\n    version: \(Self.version)\n")
    }

    private func yaml(_ entries: ArraySlice<ExchangeEntry>, depth: Int) throws(Failure) {
        try eachName(entries, depth) { (name, inside, _) throws(Failure) in
            text.append(String(repeating: "    ", count: depth) + Self.quoted(name) + ":")
            if let entry = inside.first, entry.path.count == depth + 1 {
                text.append(entry.value.byteCount == 0 ? " \"\"" : " ")
                try append(entry)
                text.append("\n")
            } else {
                text.append("\n")
                try yaml(inside, depth: depth + 1)
            }
        }
    }

    // MARK: dotenv

    private func dotenv(_ entries: [ExchangeEntry]) throws(Failure) {
        for entry in entries {
            text.append(entry.path[0] + "=")
            try append(entry)
            text.append("\n")
        }
        for (index, recipient) in recipients.enumerated() {
            let key = try sealedKey(for: recipient).replacing("\n", with: "\\n")
            let name = "sops_age__list_\(index)__map_"
            text.append("\(name)enc=\(key)\n\(name)recipient=\(recipient.text)\n")
        }
        let time = Self.now()
        text.append("sops_lastmodified=\(time)\nsops_mac=")
        try appendMAC(time)
        text.append("\nsops_unencrypted_suffix=_unencrypted\nsops_version=\(Self.version)\n")
    }
}
