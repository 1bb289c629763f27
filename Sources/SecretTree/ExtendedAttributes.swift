public import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// How setxattr(2) treats a name that is there, or is not.
public enum AttributeMode: Sendable { case createOrReplace, create, replace }

/// Extended attributes: a record each, found by the keyed hash of node and name.
extension SecretTree {
    static let attributeNameLimit = 255
    /// What Linux lets a value have (XATTR_SIZE_MAX).
    static let attributeValueLimit = 65_536
    /// What Linux lets a list have (XATTR_LIST_MAX).
    private static let attributeListLimit = 65_536

    /// - Parameter clearsSetGroupID: A new access control list takes the set-group-id bit away.
    public func setExtendedAttribute(
        of id: NodeID, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, _ mode: AttributeMode,
        clearsSetGroupID: Bool = false, now: Timestamp
    ) throws(TreeError) {
        if let kind = AccessControlListKind(name) {
            return try setAccessControlList(of: id, kind, value, clearsSetGroupID: clearsSetGroupID, now: now)
        }
        guard name.count > 0, name.count <= Self.attributeNameLimit else { throw .attributeTooLarge }
        guard value.count <= Self.attributeValueLimit else { throw .attributeTooLarge }
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            var node = try transaction.node(id)
            let record = nameKey(.attribute, name, of: id)
            let isThere = try transaction.read(record) { $0 != nil }
            switch mode {
            case .create where isThere: throw .exists
            case .replace where !isThere: throw .noAttribute
            default: break
            }
            if !isThere {
                guard try listByteCount(of: node) + name.count + 1 <= Self.attributeListLimit else { throw .full }
                node.attributeCount += 1
            } else if holds(record, of: id, value) {
                // As on ext4, which leaves times alone when nothing changes.
                return
            }
            transaction.seal(record, byteCount: StoredAttribute.byteCount(name.count, value.count)) {
                StoredAttribute.put(name, value, into: $0)
            }
            node.attributes.statusChangeTime = now
            transaction.set(node)
        }
    }

    /// Whether an attribute has this value already; one that does not authenticate has none.
    private func holds(_ record: RecordKey, of id: NodeID, _ value: UnsafeRawBufferPointer) -> Bool {
        let isSame = try? open(record, of: id) { StoredAttribute($0)?.value.elementsEqual(value) }
        return (isSame ?? nil) == true
    }

    /// Calls `body` with the value's bytes.
    public func withExtendedAttribute(
        of id: NodeID, _ name: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> Void
    ) throws(TreeError) {
        try lock.reading { () throws(TreeError) in
            guard try node(id).attributeCount > 0 else { throw .noAttribute }
            let found: Void? = try open(nameKey(.attribute, name, of: id), of: id) { plaintext -> Void? in
                guard let stored = StoredAttribute(plaintext), stored.name.elementsEqual(name) else { return nil }
                return body(stored.value)
            }
            guard found != nil else { throw .noAttribute }
        }
    }

    /// Calls `body` with all names, each ended by a zero byte.
    public func listExtendedAttributes(of id: NodeID, _ body: (UnsafeRawBufferPointer) -> Void) throws(TreeError) {
        try lock.reading { () throws(TreeError) in
            let node = try node(id)
            guard node.attributeCount > 0 else { return body(UnsafeRawBufferPointer(start: nil, count: 0)) }
            let names = ScratchBuffer(byteCount: max(1, try listByteCount(of: node)))
            var place = 0
            try forEachAttribute(of: id) { stored in
                guard place + stored.name.count < names.byteCount else { return }
                names.bytes.put(stored.name, at: place)
                names.bytes[place + stored.name.count] = 0
                place += stored.name.count + 1
            }
            body(names.bytes.readOnly.part(0, place))
        }
    }

    public func removeExtendedAttribute(of id: NodeID, _ name: UnsafeRawBufferPointer, now: Timestamp)
        throws(TreeError)
    {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            var node = try transaction.node(id)
            let record = nameKey(.attribute, name, of: id)
            guard try transaction.read(record, { $0 != nil }) else {
                // Without a list there is nothing to take away.
                if AccessControlListKind(name) != nil { return }
                throw .noAttribute
            }
            transaction.delete(record)
            node.attributeCount -= min(1, node.attributeCount)
            node.attributes.statusChangeTime = now
            transaction.set(node)
        }
    }

    private func listByteCount(of node: NodeRecord) throws(TreeError) -> Int {
        guard node.attributeCount > 0 else { return 0 }
        var count = 0
        try forEachAttribute(of: node.attributes.id) { count += $0.name.count + 1 }
        return count
    }

    private func forEachAttribute(of id: NodeID, _ body: (StoredAttribute) -> Void) throws(TreeError) {
        for record in try keys(in: .all(.attribute, of: id.rawValue)) {
            let opened: Void? = try open(record, of: id) { plaintext in StoredAttribute(plaintext).map(body) }
            _ = opened
        }
    }
}

/// `name length 4 | value length 4 | name | value | zeros up to a whole number of 32`.
struct StoredAttribute {
    var name: UnsafeRawBufferPointer
    var value: UnsafeRawBufferPointer

    static func byteCount(_ name: Int, _ value: Int) -> Int { rounded(8 + name + value, upTo: PaddedBytes.step) }

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= 8 else { return nil }
        let nameCount = Int(bytes.number(UInt32.self, at: 0))
        let valueCount = Int(bytes.number(UInt32.self, at: 4))
        guard nameCount <= bytes.count - 8, valueCount <= bytes.count - 8 - nameCount else { return nil }
        name = bytes.part(8, nameCount)
        value = bytes.part(8 + nameCount, valueCount)
    }

    static func put(
        _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, into bytes: UnsafeMutableRawBufferPointer
    ) {
        bytes.put(UInt32(name.count), at: 0)
        bytes.put(UInt32(value.count), at: 4)
        bytes.put(name, at: 8)
        bytes.put(value, at: 8 + name.count)
        bytes.zero(from: 8 + name.count + value.count, to: bytes.count)
    }
}
