public import Keyring
internal import Storage
internal import Threads

extension SecretTree {
    public func attributes(of id: NodeID) throws(TreeError) -> NodeAttributes {
        if let node = cache[id] { return node.attributes }
        return try lock.reading { () throws(TreeError) in try node(id).attributes }
    }

    /// Changes attributes, and the size with them. The status change time moves whatever is changed.
    public func setAttributes(of id: NodeID, _ change: AttributeChange, now: Timestamp)
        throws(TreeError) -> NodeAttributes
    {
        try self.change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            var node = change.size == nil ? try transaction.node(id) : try transaction.file(id)
            if let size = change.size {
                try transaction.resize(&node, to: size)
                node.valueChanged(at: now)
            }
            if change.clearsSetID { node.clearSetID() }
            if let permissions = change.permissions {
                node.attributes.permissions = permissions & 0o7777
                try transaction.followMode(of: &node)
            }
            if let uid = change.uid { node.attributes.uid = uid }
            if let gid = change.gid { node.attributes.gid = gid }
            if let time = change.accessTime { node.attributes.accessTime = time }
            if let time = change.modificationTime { node.attributes.modificationTime = time }
            node.attributes.statusChangeTime = now
            transaction.set(node)
            return node.attributes
        }
    }

    /// Reads a symbolic link's target; returns its length.
    public func readTarget(of id: NodeID, into buffer: UnsafeMutableRawBufferPointer) throws(TreeError) -> Int {
        try lock.reading { () throws(TreeError) -> Int in
            guard try node(id).attributes.type == .symbolicLink else { throw .invalid }
            let record = RecordKey(.target, id.rawValue)
            let count = try open(record, of: id) { plaintext -> Int? in
                guard let target = PaddedBytes.content(of: plaintext), target.count <= buffer.count else { return nil }
                buffer.put(target, at: 0)
                return target.count
            }
            guard let count else { throw tampered(record, id, "is missing") }
            return count
        }
    }
}

/// Bytes with their length before and zeros behind, up to a whole number of steps: `length 4 | bytes | padding`.
enum PaddedBytes {
    static let step = 32

    static func byteCount(for count: Int) -> Int { rounded(4 + count, upTo: step) }

    static func put(_ content: UnsafeRawBufferPointer, into bytes: UnsafeMutableRawBufferPointer) {
        bytes.put(UInt32(content.count), at: 0)
        bytes.put(content, at: 4)
        bytes.zero(from: 4 + content.count, to: bytes.count)
    }

    static func content(of bytes: UnsafeRawBufferPointer) -> UnsafeRawBufferPointer? {
        guard bytes.count >= 4 else { return nil }
        let count = Int(bytes.number(UInt32.self, at: 0))
        guard count <= bytes.count - 4 else { return nil }
        return bytes.part(4, count)
    }
}
