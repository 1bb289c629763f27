public import Keyring
internal import Storage
internal import Threads

extension SecretTree {
    static let linkLimit: UInt32 = 65_000

    public func lookup(_ name: UnsafeRawBufferPointer, in parent: NodeID) throws(TreeError) -> NodeAttributes {
        guard name.count <= Entry.nameLimit else { throw .nameTooLong }
        return try lock.reading { () throws(TreeError) -> NodeAttributes in
            _ = try directory(parent)
            guard let entry = try entry(name, in: parent) else { throw .notFound }
            return try namedNode(entry.node).attributes
        }
    }

    /// Makes a node with a name. `target` is a symbolic link's.
    public func make(
        _ new: NewNode, named name: UnsafeRawBufferPointer, in parent: NodeID,
        target: UnsafeRawBufferPointer? = nil, now: Timestamp
    ) throws(TreeError) -> NodeAttributes {
        guard name.count <= Entry.nameLimit else { throw .nameTooLong }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            var directory = try transaction.directoryForNewEntry(parent)
            guard try transaction.entry(name, in: parent) == nil else { throw .exists }
            var node = try transaction.newNode(new, in: directory)
            if new.type == .directory {
                guard directory.attributes.linkCount < Self.linkLimit else { throw .tooManyLinks }
                directory.attributes.linkCount += 1
            }
            node.attributes.parent = parent
            if let target {
                node.attributes.size = UInt64(target.count)
                let record = RecordKey(.target, node.attributes.id.rawValue)
                transaction.seal(record, byteCount: PaddedBytes.byteCount(for: target.count)) {
                    PaddedBytes.put(target, into: $0)
                }
            }
            transaction.putEntry(name, in: parent, Entry(node: node.attributes.id, type: new.type))
            directory.entryCount += 1
            directory.modified(at: now)
            if new.type == .file { transaction.root.fileCount += 1 }
            transaction.set(directory)
            transaction.set(node)
            return node.attributes
        }
    }

    /// Makes a file without a name, which goes when it is held no more: hold it before anything else.
    ///
    /// - Parameter parent: Whose set-group-id bit counts.
    /// - Parameter canBeLinked: `link` may give it a name, once.
    public func makeTemporary(_ new: NewNode, in parent: NodeID, canBeLinked: Bool, now: Timestamp)
        throws(TreeError) -> NodeAttributes
    {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            // In a directory that was removed: ext4 says EPERM here, and ENOENT to what has a name.
            guard try transaction.node(parent).attributes.linkCount > 0 else { throw .notPermitted }
            let directory = try transaction.directoryForNewEntry(parent)
            var node = try transaction.newNode(new, in: directory)
            node.attributes.linkCount = 0
            node.isTemporary = canBeLinked
            transaction.set(node)
            transaction.putOrphan(node.attributes.id)
            return node.attributes
        }
    }

    public func link(
        _ id: NodeID, as name: UnsafeRawBufferPointer, in parent: NodeID, now: Timestamp
    ) throws(TreeError) -> NodeAttributes {
        guard name.count <= Entry.nameLimit else { throw .nameTooLong }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            var node = try transaction.node(id)
            guard node.attributes.type != .directory else { throw .notPermitted }
            // An unlinked file that is still open cannot come back (linkat(2): ENOENT).
            guard node.attributes.linkCount > 0 || node.isTemporary else { throw .notFound }
            guard node.attributes.linkCount < Self.linkLimit else { throw .tooManyLinks }
            var directory = try transaction.directoryForNewEntry(parent)
            guard try transaction.entry(name, in: parent) == nil else { throw .exists }
            transaction.putEntry(name, in: parent, Entry(node: id, type: node.attributes.type))
            directory.entryCount += 1
            directory.modified(at: now)
            if node.isTemporary {
                node.isTemporary = false
                node.attributes.parent = parent
                transaction.root.fileCount += 1
                transaction.endOrphan(id)
            }
            node.attributes.linkCount += 1
            node.attributes.statusChangeTime = now
            transaction.set(directory)
            transaction.set(node)
            return node.attributes
        }
    }

    /// Takes a name away. The node stays while it has other names or is held.
    ///
    /// - Returns: the node's attributes afterwards; nil if the node itself was damaged and is gone with its name.
    public func unlink(_ name: UnsafeRawBufferPointer, in parent: NodeID, now: Timestamp)
        throws(TreeError) -> NodeAttributes?
    {
        guard name.count <= Entry.nameLimit else { throw .nameTooLong }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes? in
            transaction.freesSpace = true
            var directory = try transaction.directory(parent)
            guard let entry = try transaction.entry(name, in: parent) else { throw .notFound }
            guard entry.type != .directory else { throw .isADirectory }
            transaction.deleteEntry(name, in: parent)
            directory.entryCount -= min(1, directory.entryCount)
            directory.modified(at: now)
            transaction.set(directory)
            return try transaction.dropName(of: entry)
        }
    }

    public func removeDirectory(_ name: UnsafeRawBufferPointer, in parent: NodeID, now: Timestamp)
        throws(TreeError) -> NodeID
    {
        guard name.count <= Entry.nameLimit else { throw .nameTooLong }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeID in
            transaction.freesSpace = true
            guard let entry = try transaction.entry(name, in: parent) else { throw .notFound }
            guard entry.type == .directory else { throw .notADirectory }
            try transaction.dropDirectory(entry.node)
            transaction.deleteEntry(name, in: parent)
            var directory = try transaction.directory(parent)
            directory.entryCount -= min(1, directory.entryCount)
            directory.attributes.linkCount -= 1
            directory.modified(at: now)
            transaction.set(directory)
            return entry.node
        }
    }
}

extension Transaction {
    /// A directory that may get another entry: one that was removed while somebody sits in it may not.
    func directoryForNewEntry(_ id: NodeID) throws(TreeError) -> NodeRecord {
        let directory = try directory(id)
        guard directory.attributes.linkCount > 0 else { throw .notFound }
        return directory
    }

    mutating func newNode(_ new: NewNode, in directory: NodeRecord) throws(TreeError) -> NodeRecord {
        var permissions = new.permissions & 0o7777
        var gid = new.gid
        // A set-group-id directory hands its group on, and the bit to directories (inode_init_owner in Linux).
        if directory.attributes.permissions & 0o2000 != 0 {
            gid = directory.attributes.gid
            if new.type == .directory { permissions |= 0o2000 }
        }
        var node = NodeRecord(
            NodeAttributes(
                id: newNodeID(), type: new.type, permissions: permissions, uid: new.uid, gid: gid,
                linkCount: new.type == .directory ? 2 : 1, size: 0, storedByteCount: 0, device: new.device,
                accessTime: now, modificationTime: now, statusChangeTime: now, birthTime: now, valueChanged: now,
                needsRegeneration: false, content: 0, parent: NodeID(rawValue: 0)))
        try inherit(from: directory, mask: new.mask, to: &node)
        return node
    }

    /// One name less for what an entry named.
    mutating func dropName(of entry: Entry) throws(TreeError) -> NodeAttributes? {
        let found: NodeRecord?
        do { found = try node(entry.node) } catch {
            switch error {
            // A damaged node must not keep its name for ever: both go.
            case .tampered, .notFound: found = nil
            default: throw error
            }
        }
        guard var node = found else {
            remove(entry.node)
            if entry.type == .file { root.fileCount -= min(1, root.fileCount) }
            return nil
        }
        node.attributes.linkCount -= min(1, node.attributes.linkCount)
        node.attributes.statusChangeTime = now
        if node.attributes.linkCount > 0 {
            set(node)
        } else {
            if node.attributes.type == .file { root.fileCount -= min(1, root.fileCount) }
            try dropNode(&node)
        }
        return node.attributes
    }

    /// An empty directory goes.
    mutating func dropDirectory(_ id: NodeID) throws(TreeError) {
        var node = try directory(id)
        guard node.entryCount == 0 else { throw .notEmpty }
        node.attributes.linkCount = 0
        node.attributes.parent = NodeID(rawValue: 0)
        // Its names had gone before: the modification time tells when.
        node.attributes.statusChangeTime = now
        try dropNode(&node)
    }

    /// A node without a name goes now, or when it is held no more.
    mutating func dropNode(_ node: inout NodeRecord) throws(TreeError) {
        let id = node.attributes.id
        guard tree.isHeld(id) || tree.inheritsHolds else { return try erase(&node) }
        set(node)
        putOrphan(id)
    }

    /// Everything of a node goes: attributes, target, content, and its place among the orphans.
    mutating func erase(_ node: inout NodeRecord) throws(TreeError) {
        let id = node.attributes.id
        try dropContent(of: &node)
        if node.attributes.type == .symbolicLink { delete(RecordKey(.target, id.rawValue)) }
        if node.attributeCount > 0 {
            for record in try tree.keys(in: .all(.attribute, of: id.rawValue)) { delete(record) }
        }
        remove(id)
    }

    /// - Parameter isCopy: A job's copy of a content: no kernel knows the node, and no later server needs it.
    mutating func putOrphan(_ id: NodeID, isCopy: Bool = false) {
        seal(RecordKey(.orphan, id.rawValue), byteCount: isCopy ? Orphan.copyByteCount : Orphan.byteCount) {
            $0.put(id.rawValue, at: 0)
            if isCopy { $0[Orphan.byteCount] = 1 }
        }
        newOrphans.append(id)
    }

    mutating func endOrphan(_ id: NodeID) {
        delete(RecordKey(.orphan, id.rawValue))
        endedOrphans.append(id)
    }
}

/// What an orphan's record holds: `node 8`, and for a job's copy of a content one byte more, 1.
enum Orphan {
    static let byteCount = 8
    static let copyByteCount = 9
}

extension SecretTree {
    func keys(in range: ClosedRange<RecordKey>) throws(TreeError) -> [RecordKey] {
        var keys: [RecordKey] = []
        do {
            try store.scan(range, prefix: 0) { record, _ in
                keys.append(record)
                return true
            }
        } catch { throw TreeError(error) }
        return keys
    }
}
