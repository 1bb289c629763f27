internal import Keyring
internal import Sodium
internal import Storage

/// A directory entry as its record holds it: `node 8 | type 1 | reserved 7 | padded name`.
///
/// Its key is the keyed hash of directory and name, so that names are found without being told, and the key's
/// first half is the entry's cookie: stable for as long as the name is there.
struct Entry {
    var node: NodeID
    var type: NodeType

    static let namePlace = 16
    static let nameLimit = 255

    init(node: NodeID, type: NodeType) {
        self.node = node
        self.type = type
    }

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count >= Self.namePlace + 4, let type = NodeType(rawValue: bytes[8]) else { return nil }
        node = NodeID(rawValue: bytes.number(UInt64.self, at: 0))
        self.type = type
    }

    static func name(_ bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard bytes.count >= namePlace + 4 else { return nil }
        return PaddedBytes.content(of: bytes.part(namePlace, bytes.count - namePlace))
    }
}

extension SecretTree {
    func entryKey(_ name: UnsafeRawBufferPointer, in directory: NodeID) -> RecordKey {
        nameKey(.entry, name, of: directory)
    }

    /// The key of a record that is found by a name: `BLAKE2b-128(names key, le64(8) owner, name)`.
    func nameKey(_ kind: RecordKind, _ name: UnsafeRawBufferPointer, of owner: NodeID) -> RecordKey {
        var number = owner.rawValue.littleEndian
        var hash: (UInt64, UInt64) = (0, 0)
        withUnsafeBytes(of: &number) { number in
            withUnsafeMutableBytes(of: &hash) { hash in
                seals.names.withKey { KeyedHash.hash(number, name, key: $0, into: hash) }
            }
        }
        return RecordKey(kind, owner.rawValue, high: hash.0.littleEndian, low: hash.1.littleEndian)
    }
}

extension RecordSource {
    /// The entry of that name; nil if there is none.
    func entry(_ name: UnsafeRawBufferPointer, in directory: NodeID) throws(TreeError) -> Entry? {
        let record = tree.entryKey(name, in: directory)
        return try open(record, of: directory) { bytes -> Entry? in
            guard let stored = Entry.name(bytes), stored.elementsEqual(name) else { return nil }
            return Entry(bytes)
        }
    }
}

extension Transaction {
    mutating func putEntry(_ name: UnsafeRawBufferPointer, in directory: NodeID, _ entry: Entry) {
        let record = tree.entryKey(name, in: directory)
        seal(record, byteCount: Entry.namePlace + PaddedBytes.byteCount(for: name.count)) { bytes in
            bytes.put(entry.node.rawValue, at: 0)
            bytes.put(UInt64(entry.type.rawValue), at: 8)
            PaddedBytes.put(name, into: bytes.part(Entry.namePlace, bytes.count - Entry.namePlace))
        }
    }

    mutating func deleteEntry(_ name: UnsafeRawBufferPointer, in directory: NodeID) {
        delete(tree.entryKey(name, in: directory))
    }
}
