import Access
public import Fuse
import Glibc
import Keyring
import SecretTree

extension SecretFS {
    public func setExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, flags: Int32,
        _ caller: Caller
    ) throws(Errno) {
        try checkChangeable(node, name)
        let mode: AttributeMode
        switch flags {
        case 0: mode = .createOrReplace
        case 1: mode = .create
        case 2: mode = .replace
        case 3:  // both: there is no way
            try answering { () throws(TreeError) in
                try tree.withExtendedAttribute(of: NodeID(rawValue: node), name) { _ in }
            }
            throw .exists
        default: throw .invalid
        }
        let id = NodeID(rawValue: node)
        try guarded(AccessRequest(.setXattr, .write, .node(id)), caller) { () throws(Errno) in
            try answering { () throws(TreeError) in
                // The kernel does not say whether the caller is of the group in another way.
                let isJudged = SecretTree.isAccessControlList(name) && caller.uid != 0
                let clearsSetGroupID = isJudged ? try tree.attributes(of: id).gid != caller.gid : false
                try tree.setExtendedAttribute(
                    of: id, name, value, mode, clearsSetGroupID: clearsSetGroupID, now: .now())
            }
        }
    }

    public func removeExtendedAttribute(_ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller)
        throws(Errno)
    {
        try checkChangeable(node, name)
        let id = NodeID(rawValue: node)
        try guarded(AccessRequest(.removeXattr, .write, .node(id)), caller) { () throws(Errno) in
            try answering { () throws(TreeError) in
                try tree.removeExtendedAttribute(of: id, name, now: .now())
            }
        }
    }

    private func checkChangeable(_ node: UInt64, _ name: UnsafeRawBufferPointer) throws(Errno) {
        guard ControlNode(node) == nil, KeyAttribute(name) == nil else { throw .notPermitted }
        try checkNamespace(of: name)
        guard !name.starts(with: KeyAttribute.prefix.utf8) else { throw .notPermitted }
    }

    /// The namespaces of xattr(7), as the kernel asks for names of any kind; of `system` what there is.
    private func checkNamespace(of name: UnsafeRawBufferPointer) throws(Errno) {
        if SecretTree.isAccessControlList(name) { return }
        for namespace in ["user.", "security.", Self.trusted] where name.starts(with: namespace.utf8) {
            guard name.count > namespace.utf8.count else { throw .invalid }
            return
        }
        throw .notSupported
    }

    /// Seen, set and read by the superuser alone.
    private static var trusted: String { "trusted." }

    public func extendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        guard ControlNode(node) == nil else { throw .noAttribute }
        try checkNamespace(of: name)
        let id = NodeID(rawValue: node)
        if name.starts(with: KeyAttribute.prefix.utf8) {
            guard let attribute = KeyAttribute(name) else { throw .noAttribute }
            var text = try answering { () throws(TreeError) in try attribute.value(of: id, in: tree) }
            return text.withUTF8 { reply(UnsafeRawBufferPointer($0)) }
        }
        try answering { () throws(TreeError) in try tree.withExtendedAttribute(of: id, name, reply) }
    }

    public func listExtendedAttributes(_ node: UInt64, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void)
        throws(Errno)
    {
        guard ControlNode(node) == nil else { return reply(UnsafeRawBufferPointer(start: nil, count: 0)) }
        try answering { () throws(TreeError) in
            try tree.listExtendedAttributes(of: NodeID(rawValue: node)) { names in
                guard caller.uid != 0 else { return reply(names) }
                let visible = names.split(separator: 0).filter { !$0.starts(with: Self.trusted.utf8) }
                visible.flatMap { $0 + [0] }.withUnsafeBytes(reply)
            }
        }
    }
}

/// What a regular file tells about its key. Read-only, and not listed, so that programs that copy all attributes
/// do not fail with these.
private enum KeyAttribute: String {
    case kekVersion = "user.letterlock.kek_version"
    case dekCreated = "user.letterlock.dek_created"
    case valueChanged = "user.letterlock.value_changed"
    case needsRegeneration = "user.letterlock.needs_regeneration"

    static let prefix = "user.letterlock."

    init?(_ name: UnsafeRawBufferPointer) {
        guard name.starts(with: Self.prefix.utf8) else { return nil }
        self.init(rawValue: String(decoding: name, as: UTF8.self))
    }

    /// What was never written has no DEK; it tells of the one that it would get.
    ///
    /// - Throws: `.noAttribute` for what is no regular file.
    func value(of id: NodeID, in tree: SecretTree) throws(TreeError) -> String {
        let attributes = try tree.attributes(of: id)
        guard attributes.type == .file else { throw .noAttribute }
        switch self {
        case .kekVersion:
            let version = try tree.kekVersion(of: id) ?? tree.keyring.lifecycle.primary
            return String(version.rawValue)
        case .dekCreated:
            return (try tree.dekCreated(of: id) ?? attributes.valueChanged).preciseRFC3339
        case .valueChanged: return attributes.valueChanged.preciseRFC3339
        case .needsRegeneration: return attributes.needsRegeneration ? "1" : "0"
        }
    }
}

extension Timestamp {
    /// `2026-03-01T12:00:00.123456789Z`: two changes within a second differ.
    fileprivate var preciseRFC3339: String {
        let digits = String(nanoseconds)
        return rfc3339.dropLast() + "." + String(repeating: "0", count: max(0, 9 - digits.count)) + digits + "Z"
    }
}
