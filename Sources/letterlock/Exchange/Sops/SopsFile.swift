import Glibc
import KeyServices
import Keyring
import Sodium

/// A sops file that age recipients open: its values are sealed by a data key, which is sealed for each recipient, and a MAC over all of
/// them. Nothing of it is taken before the MAC is found right.
///
/// The MAC says nothing about names, nor about values that are empty, null, or lie in the file unsealed; what is sealed is bound to
/// its place by itself.
struct SopsFile {
    private let source: String
    private let metadata: SopsMetadata
    private let key: SecretKey
    private let mac: SopsMAC

    /// Whether a file seems to be one.
    static func seemsToBe(_ text: UnsafeRawBufferPointer) -> Bool {
        isDotEnv(text)
            || has(text, "ENC[AES256_GCM,")
                && (has(text, "\"sops\"") || text.starts(with: "sops:".utf8) || has(text, "\nsops:"))
    }

    private static func has(_ text: UnsafeRawBufferPointer, _ words: StaticString) -> Bool {
        guard let start = text.baseAddress else { return false }
        return memmem(start, text.count, words.utf8Start, words.utf8CodeUnitCount) != nil
    }

    private static func isDotEnv(_ text: UnsafeRawBufferPointer) -> Bool {
        text.starts(with: "sops_mac=".utf8) || has(text, "\nsops_mac=")
    }

    // MARK: Reading

    /// The values of a file of any kind: YAML, JSON, dotenv, or a single one that may be anything.
    ///
    /// - Parameters:
    ///   - single: The name of a value that is the file's only one, and called `data`; nil if that is its name.
    ///   - leftOut: Told of what is null.
    static func read(
        _ text: UnsafeRawBufferPointer, _ source: String, _ identities: [AgeIdentity], single: String?,
        leftOut: (String) -> Void
    ) throws(Failure) -> [ExchangeEntry] {
        let documents =
            isDotEnv(text) ? [try SopsDotEnv.read(text, source)] : try SecretYAML.read(text, source)
        let opened = try open(documents, source, identities)
        if let single, opened.count == 1, case .map(let members) = opened[0].content, members.count == 1,
            members[0].name == "data", case .text(let value) = members[0].node.content
        {
            try ExchangeEntry.check(single, in: source)
            return [ExchangeEntry(path: [single], value: value)]
        }
        var entries: [ExchangeEntry] = []
        for document in opened { try add(document, [], source, &entries, leftOut) }
        return entries
    }

    private static func add(
        _ node: SecretNode, _ path: [String], _ source: String, _ entries: inout [ExchangeEntry],
        _ leftOut: (String) -> Void
    ) throws(Failure) {
        let name = path.joined(separator: "/")
        switch node.content {
        case .map(let members):
            for member in members {
                try ExchangeEntry.check(member.name, in: source)
                try add(member.node, path + [member.name], source, &entries, leftOut)
            }
        case .text(let value) where !path.isEmpty, .bare(let value) where !path.isEmpty:
            entries.append(ExchangeEntry(path: path, value: value))
        case .null where !path.isEmpty: leftOut("\(source), line \(node.line): '\(name)' is null, and is left out")
        case .list, .text, .bare, .null:
            throw Failure("\(source), line \(node.line): '\(name)' is neither a value nor a map of them")
        }
    }

    /// The documents of a file without what sops says of itself, their values opened.
    static func open(_ documents: [SecretNode], _ source: String, _ identities: [AgeIdentity]) throws(Failure)
        -> [SecretNode]
    {
        guard let first = documents.first else { throw Failure("\(source) is empty") }
        let metadata = try SopsMetadata(of: first, source)
        let file = SopsFile(
            source: source, metadata: metadata, key: try metadata.dataKey(source, identities),
            mac: SopsMAC(covers: metadata.macCovers))
        var opened: [SecretNode] = []
        for document in documents {
            guard case .map(let members) = document.content, document.member("sops") != nil else {
                throw Failure("\(source), line \(document.line): a document that sops has not sealed")
            }
            let values = SecretNode(content: .map(members.filter { $0.name != "sops" }), line: document.line)
            opened.append(try file.open(values, ""))
        }
        try metadata.check(file.mac.text(), source, file.key)
        return opened
    }

    private func open(_ node: SecretNode, _ place: String) throws(Failure) -> SecretNode {
        var node = node
        switch node.content {
        case .null: break
        case .map(let members):
            var opened: [SecretMember] = []
            for member in members {
                let inside = try open(member.node, place + member.name + ":")
                opened.append(SecretMember(name: member.name, node: inside))
            }
            node.content = .map(opened)
        case .list(let items):
            var opened: [SecretNode] = []
            for item in items { opened.append(try open(item, place)) }
            node.content = .list(opened)
        case .text(let text): node.content = try open(text, place, node)
        case .bare(let text):
            try checkMayBeClear(node)
            mac.add(Self.canonical(text))
        }
        return node
    }

    private func open(_ text: SecretValue, _ place: String, _ node: SecretNode) throws(Failure)
        -> SecretNode.Content
    {
        guard text.withBytes({ SopsValue.isSealed($0) }) else {
            if text.byteCount > 0 { try checkMayBeClear(node) }
            mac.add(text)
            return .text(text)
        }
        let found = try text.withBytes { (text) throws(Failure) in try SopsValue.open(text, place: place, key: key) }
        guard let found, found.kind != .comment else {
            throw Failure(
                "\(source), line \(node.line): a value was changed or moved", hint: "nothing of the file is taken",
                code: .integrity)
        }
        mac.add(found.value)
        switch found.kind {
        case .string, .bytes: return .text(found.value)
        case .bool:
            let value = SecretValue()
            found.value.withBytes { value.append($0.first == UInt8(ascii: "T") ? "true" : "false") }
            return .bare(value)
        case .integer, .float, .time, .comment: return .bare(found.value)
        }
    }

    private func checkMayBeClear(_ node: SecretNode) throws(Failure) {
        guard metadata.macCovers == .sealedValues else { return }
        throw Failure(
            "\(source), line \(node.line): a value that neither is sealed nor has a MAC",
            hint: "the file has 'mac_only_encrypted': anybody could have changed it")
    }

    /// As the MAC counts it: numbers as they are, truth values with a capital.
    private static func canonical(_ text: SecretValue) -> SecretValue {
        let isTrue = text.withBytes { text in ["true", "True", "TRUE"].contains { text.elementsEqual($0.utf8) } }
        let isFalse = text.withBytes { text in ["false", "False", "FALSE"].contains { text.elementsEqual($0.utf8) } }
        guard isTrue || isFalse else { return text }
        let value = SecretValue()
        value.append(isTrue ? "True" : "False")
        return value
    }
}
