/// The lines `NAME=value` of a sops file, which know neither quotes nor escapes but `\n`; what sops says of itself stands in names like
/// `sops_age__list_0__map_enc`.
enum SopsDotEnv {
    private static let prefix = "sops_"

    /// As a file in YAML would be.
    static func read(_ bytes: UnsafeRawBufferPointer, _ source: String) throws(Failure) -> SecretNode {
        guard SecretValue.isUTF8(bytes) else { throw Failure("\(source) is not UTF-8") }
        var members: [SecretMember] = []
        var metadata: [SecretMember] = []
        var recipients: [SecretNode] = []
        var names: Set<String> = []
        let lines = bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)
        for (index, text) in lines.enumerated() where !text.isEmpty && text.first != UInt8(ascii: "#") {
            let line = index + 1
            guard let equals = text.firstIndex(of: UInt8(ascii: "=")) else {
                throw Failure("\(source), line \(line): a name without a value")
            }
            let name = String(decoding: text[..<equals], as: UTF8.self)
            guard names.insert(name).inserted else {
                throw Failure("\(source), line \(line): '\(name)' is there twice")
            }
            let node = SecretNode(content: .text(value(text[(equals + 1)...])), line: line)
            guard name.hasPrefix(prefix) else {
                members.append(SecretMember(name: name, node: node))
                continue
            }
            let own = String(name.dropFirst(prefix.count))
            if own.hasPrefix("age__list_"), own.hasSuffix("__map_enc") {
                let key = SecretMember(name: "enc", node: node)
                recipients.append(SecretNode(content: .map([key]), line: line))
            } else {
                metadata.append(SecretMember(name: own.hasPrefix("key_groups") ? "key_groups" : own, node: node))
            }
        }
        metadata.append(SecretMember(name: "age", node: SecretNode(content: .list(recipients), line: 1)))
        members.append(SecretMember(name: "sops", node: SecretNode(content: .map(metadata), line: 1)))
        return SecretNode(content: .map(members), line: 1)
    }

    private static func value(_ text: Slice<UnsafeRawBufferPointer>) -> SecretValue {
        let value = SecretValue()
        var isBehindBackslash = false
        for byte in text {
            if isBehindBackslash, byte == UInt8(ascii: "n") {
                value.removeLast(1)
                value.append(UInt8(ascii: "\n"))
                isBehindBackslash = false
            } else {
                value.append(byte)
                isBehindBackslash = byte == UInt8(ascii: "\\")
            }
        }
        return value
    }
}
