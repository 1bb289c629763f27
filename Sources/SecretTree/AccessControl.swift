internal import Keyring
internal import Sodium
internal import Storage

/// Access control lists of nodes. They are kept as extended attributes, and in step with modes: a list that says no more
/// than a mode is none.
extension SecretTree {
    /// True for the names of the two lists, which `setExtendedAttribute` and its like take as well.
    public static func isAccessControlList(_ name: UnsafeRawBufferPointer) -> Bool {
        AccessControlListKind(name) != nil
    }

    func setAccessControlList(
        of id: NodeID, _ kind: AccessControlListKind, _ value: UnsafeRawBufferPointer, clearsSetGroupID: Bool,
        now: Timestamp
    ) throws(TreeError) {
        guard let list = AccessControlList(value) else { throw .invalid }
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            var node = try transaction.node(id)
            switch kind {
            case .access:
                guard node.attributes.type != .symbolicLink else { throw .notSupported }
                node.attributes.permissions = node.attributes.permissions & ~0o777 | list.permissions
                if clearsSetGroupID { node.attributes.permissions &= ~0o2000 }
                try transaction.put(list.isMinimal ? nil : list, .access, of: &node)
            case .initial:
                guard node.attributes.type == .directory else { throw .notSupported }
                try transaction.put(list, .initial, of: &node)
            }
            node.attributes.statusChangeTime = now
            transaction.set(node)
        }
    }
}

extension Transaction {
    private func record(_ kind: AccessControlListKind, of node: NodeRecord) -> RecordKey {
        tree.nameKey(.attribute, kind.name, of: node.attributes.id)
    }

    func accessControlList(_ kind: AccessControlListKind, of node: NodeRecord) throws(TreeError) -> AccessControlList? {
        guard node.attributeCount > 0 else { return nil }
        return try open(record(kind, of: node), of: node.attributes.id) { plaintext in
            StoredAttribute(plaintext).flatMap { AccessControlList($0.value) }
        }
    }

    /// Sets or, with nil, removes a list; the caller sets the node.
    mutating func put(_ list: AccessControlList?, _ kind: AccessControlListKind, of node: inout NodeRecord)
        throws(TreeError)
    {
        let record = record(kind, of: node)
        let isThere = node.attributeCount > 0 ? try read(record) { $0 != nil } : false
        guard let list else {
            guard isThere else { return }
            delete(record)
            node.attributeCount -= 1
            return
        }
        if !isThere { node.attributeCount += 1 }
        let value = ScratchBuffer(byteCount: list.byteCount)
        list.put(into: value.bytes)
        seal(record, byteCount: StoredAttribute.byteCount(kind.name.count, list.byteCount)) { bytes in
            StoredAttribute.put(kind.name, value.bytes.readOnly, into: bytes)
        }
    }

    /// After chmod(2): the list says what the mode says.
    mutating func followMode(of node: inout NodeRecord) throws(TreeError) {
        guard var list = try accessControlList(.access, of: node) else { return }
        list.permissions = node.attributes.permissions
        try put(list, .access, of: &node)
    }

    /// What is made in a directory with an initial list gets that, as far as its mode goes; the mask of who makes it
    /// counts elsewhere.
    mutating func inherit(from directory: NodeRecord, mask: UInt16, to node: inout NodeRecord) throws(TreeError) {
        guard node.attributes.type != .symbolicLink else { return }
        guard let initial = try accessControlList(.initial, of: directory) else {
            node.attributes.permissions &= ~(mask & 0o777)
            return
        }
        var list = initial
        list.permissions &= node.attributes.permissions
        node.attributes.permissions = node.attributes.permissions & ~0o777 | list.permissions
        if !list.isMinimal { try put(list, .access, of: &node) }
        if node.attributes.type == .directory { try put(initial, .initial, of: &node) }
    }
}
