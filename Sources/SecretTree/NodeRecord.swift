internal import Keyring

/// A node as its record holds it.
struct NodeRecord: Sendable {
    var attributes: NodeAttributes
    /// Contents over `Contents.inlineLimit` lie in blocks; the flag stays until the content is emptied.
    var isInBlocks = false
    /// It was made without a name, and may yet be given one.
    var isTemporary = false
    /// How many extended attributes there are, so that the usual node without any costs no search.
    var attributeCount: UInt32 = 0
    /// How many entries a directory has.
    var entryCount: UInt64 = 0

    /// type 1 | flags 1 | permissions 2 | uid 4 | gid 4 | links 4 | size 8 | stored 8 | device 8 | content 8 |
    /// parent 8 | xattrs 4 | entries 8 | atime, mtime, ctime, birth, value changed 12 each | id 8
    static let byteCount = 136

    private static let inBlocksFlag: UInt8 = 1
    private static let needsRegenerationFlag: UInt8 = 2
    private static let temporaryFlag: UInt8 = 4

    init(_ attributes: NodeAttributes) { self.attributes = attributes }

    /// Nil for what cannot be a node's record: the seal vouches that Letterlock wrote it, not which version did.
    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount, let type = NodeType(rawValue: bytes[0]) else { return nil }
        let flags = bytes[1]
        attributes = NodeAttributes(
            id: NodeID(rawValue: bytes.number(UInt64.self, at: 128)), type: type,
            permissions: bytes.number(UInt16.self, at: 2), uid: bytes.number(UInt32.self, at: 4),
            gid: bytes.number(UInt32.self, at: 8), linkCount: bytes.number(UInt32.self, at: 12),
            size: bytes.number(UInt64.self, at: 16), storedByteCount: bytes.number(UInt64.self, at: 24),
            device: bytes.number(UInt64.self, at: 32), accessTime: bytes.timestamp(at: 68),
            modificationTime: bytes.timestamp(at: 80), statusChangeTime: bytes.timestamp(at: 92),
            birthTime: bytes.timestamp(at: 104), valueChanged: bytes.timestamp(at: 116),
            needsRegeneration: flags & Self.needsRegenerationFlag != 0,
            content: bytes.number(UInt64.self, at: 40), parent: NodeID(rawValue: bytes.number(UInt64.self, at: 48)))
        isInBlocks = flags & Self.inBlocksFlag != 0
        isTemporary = flags & Self.temporaryFlag != 0
        attributeCount = bytes.number(UInt32.self, at: 56)
        entryCount = bytes.number(UInt64.self, at: 60)
    }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        bytes[0] = attributes.type.rawValue
        bytes[1] =
            (isInBlocks ? Self.inBlocksFlag : 0)
            | (attributes.needsRegeneration ? Self.needsRegenerationFlag : 0)
            | (isTemporary ? Self.temporaryFlag : 0)
        bytes.put(attributes.permissions, at: 2)
        bytes.put(attributes.uid, at: 4)
        bytes.put(attributes.gid, at: 8)
        bytes.put(attributes.linkCount, at: 12)
        bytes.put(attributes.size, at: 16)
        bytes.put(attributes.storedByteCount, at: 24)
        bytes.put(attributes.device, at: 32)
        bytes.put(attributes.content, at: 40)
        bytes.put(attributes.parent.rawValue, at: 48)
        bytes.put(attributeCount, at: 56)
        bytes.put(entryCount, at: 60)
        bytes.put(attributes.accessTime, at: 68)
        bytes.put(attributes.modificationTime, at: 80)
        bytes.put(attributes.statusChangeTime, at: 92)
        bytes.put(attributes.birthTime, at: 104)
        bytes.put(attributes.valueChanged, at: 116)
        bytes.put(attributes.id.rawValue, at: 128)
    }
}

extension NodeRecord {
    /// Contents or names changed: both times move.
    mutating func modified(at now: Timestamp) {
        attributes.modificationTime = now
        attributes.statusChangeTime = now
    }

    /// The plaintext value changed.
    mutating func valueChanged(at now: Timestamp) {
        modified(at: now)
        attributes.valueChanged = now
        attributes.needsRegeneration = false
    }
}
