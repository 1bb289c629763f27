import Sodium

/// Secrets as Kubernetes' manifests have them: each is a directory `NAME` or `NAMESPACE/NAME`, each of its keys a file.
///
/// What is read is `data`, base64, and `stringData`, which counts where both have a key. `type`, labels and annotations are not kept.
struct KubernetesSecrets {
    private let source: String
    private var entries: [ExchangeEntry] = []
    /// Told of what is no Secret.
    private let leftOut: (String) -> Void
    /// The most that a cluster takes of one.
    static let byteLimit = 1 << 20

    static func read(_ documents: [SecretNode], _ source: String, leftOut: @escaping (String) -> Void) throws(Failure)
        -> [ExchangeEntry]
    {
        var reader = KubernetesSecrets(source: source, leftOut: leftOut)
        for document in documents { try reader.object(document) }
        return reader.entries
    }

    private init(source: String, leftOut: @escaping (String) -> Void) {
        self.source = source
        self.leftOut = leftOut
    }

    private func malformed(_ what: String, _ node: SecretNode) -> Failure {
        Failure("\(source), line \(node.line): \(what)")
    }

    private mutating func object(_ node: SecretNode) throws(Failure) {
        guard case .map = node.content else { throw malformed("no object of Kubernetes", node) }
        guard let kind = node.member("kind")?.plainText else { throw malformed("'kind' is missing", node) }
        switch kind {
        case "List", "SecretList":
            guard case .list(let items)? = node.member("items")?.content else {
                throw malformed("'items' is no list", node)
            }
            // Of a list of Secrets none has to say what it is.
            for item in items { if kind == "List" { try object(item) } else { try secret(item) } }
        case "Secret": try secret(node)
        default: leftOut("\(source), line \(node.line): a \(kind) is no Secret, and is left out")
        }
    }

    private mutating func secret(_ node: SecretNode) throws(Failure) {
        if let version = node.member("apiVersion"), version.plainText != "v1" {
            throw malformed("'apiVersion' is not v1", version)
        }
        guard let metadata = node.member("metadata"), let name = metadata.member("name")?.plainText else {
            throw malformed("'metadata.name' is missing", node)
        }
        var path = [name]
        switch metadata.member("namespace")?.content {
        case nil, .null: break
        default:
            guard let namespace = metadata.member("namespace")?.plainText else {
                throw malformed("'metadata.namespace' is no text", metadata)
            }
            path = [namespace, name]
        }
        for name in path { try ExchangeEntry.check(name, in: source) }
        var values: [(name: String, value: SecretValue)] = []
        for member in try members(of: node, "data") {
            values.append((member.name, try decoded(member)))
        }
        for member in try members(of: node, "stringData") {
            guard case .text(let value) = member.node.content else { throw noText(member) }
            if let index = values.firstIndex(where: { $0.name == member.name }) { values.remove(at: index) }
            values.append((member.name, value))
        }
        for (name, value) in values {
            try ExchangeEntry.check(name, in: source)
            entries.append(ExchangeEntry(path: path + [name], value: value))
        }
    }

    private func members(of node: SecretNode, _ name: String) throws(Failure) -> [SecretMember] {
        switch node.member(name)?.content {
        case nil, .null: return []
        case .map(let members): return members
        default: throw malformed("'\(name)' is no map", node)
        }
    }

    private func noText(_ member: SecretMember) -> Failure {
        Failure(
            "\(source), line \(member.node.line): '\(member.name)' is no text",
            hint: "a number, a truth value or a time has to stand in quotes")
    }

    /// Of base64, which may have several lines.
    private func decoded(_ member: SecretMember) throws(Failure) -> SecretValue {
        if case .null = member.node.content { return SecretValue() }
        guard case .text(let text) = member.node.content else { throw noText(member) }
        let value = text.withBytes { text -> SecretValue? in
            let line = SecretValue()
            for byte in text where byte != UInt8(ascii: "\n") && byte != UInt8(ascii: "\r") { line.append(byte) }
            return line.decodedBase64()
        }
        guard let value else {
            throw Failure(
                "\(source), line \(member.node.line): '\(member.name)' is no base64",
                hint: "what is not encoded stands in 'stringData'")
        }
        return value
    }
}

/// Writing manifests.
extension KubernetesSecrets {
    /// Each directory that has files is a Secret; files of the exported directory itself are one of its name.
    ///
    /// - Parameter directory: What that is called.
    static func write(_ entries: [ExchangeEntry], directory: String, asJSON: Bool, into text: SecretValue)
        throws(Failure)
    {
        var places: [[String]] = []
        var found: [[String]: [ExchangeEntry]] = [:]
        for entry in entries {
            let place = Array(entry.path.dropLast())
            if found[place] == nil { places.append(place) }
            found[place, default: []].append(entry)
        }
        if asJSON { text.append(#"{"apiVersion": "v1", "kind": "List", "items": ["#) }
        for (index, place) in places.enumerated() {
            let path = place.isEmpty ? [directory] : place
            try check(path)
            let keys = found[place] ?? []
            guard keys.reduce(0, { $0 + $1.value.byteCount }) <= byteLimit else {
                throw Failure("\(path.joined(separator: "/")) has more than a Secret may hold, which is 1 MiB")
            }
            text.append(asJSON ? (index == 0 ? "\n" : ",\n") : (index == 0 ? "" : "---\n"))
            try write(path, keys, asJSON: asJSON, into: text)
        }
        if asJSON { text.append("\n]}\n") }
    }

    /// Names here need no escapes.
    private static func write(_ path: [String], _ keys: [ExchangeEntry], asJSON: Bool, into text: SecretValue)
        throws(Failure)
    {
        let name = path[path.count - 1]
        let namespace = path.count > 1 ? path[0] : nil
        if asJSON {
            text.append(#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "\#(name)""#)
            if let namespace { text.append(#", "namespace": "\#(namespace)""#) }
            text.append(#"}, "type": "Opaque", "data": {"#)
        } else {
            text.append("apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"\(name)\"\n")
            if let namespace { text.append("  namespace: \"\(namespace)\"\n") }
            text.append("type: Opaque\ndata:\n")
        }
        for (index, key) in keys.enumerated() {
            let name = key.path[key.path.count - 1]
            let isKey =
                name.utf8.count <= 253 && name.utf8.allSatisfy { isLetterOrDigit($0) || "-._".utf8.contains($0) }
            guard isKey else {
                throw Failure(
                    "\(key.name) cannot be a key of a Secret", hint: "keys have letters, digits, '-', '_' and '.'")
            }
            if asJSON { text.append(index == 0 ? "" : ", ") } else { text.append("  ") }
            text.append("\"\(name)\": \"")
            text.appendBase64(of: key.value)
            text.append(asJSON ? "\"" : "\"\n")
        }
        if asJSON { text.append("}}") }
    }

    /// RFC 1123's names, in small letters.
    private static func check(_ path: [String]) throws(Failure) {
        guard path.count <= 2 else {
            throw Failure(
                "\(path.joined(separator: "/")) is too deep for a Secret",
                hint: "its directory is NAME, or NAMESPACE/NAME")
        }
        for (index, name) in path.enumerated() {
            let mayHaveDots = index == path.count - 1
            let isName =
                name.utf8.count <= (mayHaveDots ? 253 : 63)
                && name.utf8.split(separator: UInt8(ascii: "."), omittingEmptySubsequences: false).allSatisfy { part in
                    !part.isEmpty && part.first != UInt8(ascii: "-") && part.last != UInt8(ascii: "-")
                        && part.allSatisfy { isLetterOrDigit($0) && !isCapital($0) || $0 == UInt8(ascii: "-") }
                } && (mayHaveDots || !name.contains("."))
            guard isName else {
                throw Failure(
                    "'\(name)' cannot be the name of a Secret", hint: "names have small letters, digits, '-' and '.'")
            }
        }
    }

    private static func isCapital(_ byte: UInt8) -> Bool { (0x41...0x5A).contains(byte) }

    private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
        (0x30...0x39).contains(byte) || isCapital(byte) || (0x61...0x7A).contains(byte)
    }
}
