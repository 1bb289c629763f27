import Access
public import Fuse
public import Glibc
import Keyring
import SecretTree
import Synchronization

extension SecretFS {
    public func openDirectory(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        if let control = ControlNode(node) {
            guard control.isDirectory else { throw .notADirectory }
            return OpenReply(handle: 0)
        }
        let id = NodeID(rawValue: node)
        let policy = gate.guardian.generation
        return try guarded(
            AccessRequest(.list, .list, .node(id)), caller, undo: { _ in },
            { () throws(Errno) in openTreeDirectory(id, policy) })
    }

    private func openTreeDirectory(_ id: NodeID, _ policy: UInt32) -> OpenReply {
        var reply = OpenReply(handle: UInt64(policy))
        // The kernel itself drops its list when something is made or removed through the mount.
        let isCached = options.cacheMode == .kernel
        if isCached { gate.listed.withLock { _ = $0.insert(id) } }
        reply.cacheDirectory = isCached
        reply.keepCache = isCached
        return reply
    }

    public func readDirectory<Sink: DirectorySink & ~Copyable>(
        _ node: UInt64, handle: UInt64, from offset: Int64, into sink: inout Sink, _ caller: Caller
    ) throws(Errno) {
        let control = ControlNode(node)
        let parent: UInt64
        if let control {
            parent = control.parent
        } else {
            try recheck(
                NodeID(rawValue: node), openedUnder: UInt32(truncatingIfNeeded: handle), .list, .list, caller)
            parent = try answering { () throws(TreeError) in
                try tree.attributes(of: NodeID(rawValue: node)).parent.rawValue
            }
        }
        for (index, name) in [".", ".."].enumerated() where offset <= index {
            let id = index == 0 || parent == 0 ? node : parent
            guard sink.addDirectory(name, id, nextOffset: Int64(index + 1)) else { return }
        }
        if let control {
            try readControlDirectory(control, from: offset, into: &sink)
        } else {
            try readTreeDirectory(NodeID(rawValue: node), after: offset, into: &sink)
        }
    }

    private func readTreeDirectory<Sink: DirectorySink & ~Copyable>(
        _ id: NodeID, after offset: Int64, into sink: inout Sink
    ) throws(Errno) {
        let wantsAttributes = sink.wantsAttributes
        var unwanted: NodeID?
        do throws(TreeError) {
            let changes = changesSoFar
            try tree.readDirectory(
                id, after: UInt64(bitPattern: max(2, offset)), withAttributes: wantsAttributes
            ) { name, entry in
                let next = Int64(bitPattern: entry.cookie)
                guard wantsAttributes, let attributes = entry.attributes else {
                    return sink.add(
                        name: name, node: entry.node.rawValue, type: entry.type.modeBits, nextOffset: next)
                }
                // Held before the kernel may be told, and let go if the reply is full.
                let reply = self.entry(attributes, since: changes)
                guard sink.add(name: name, entry: reply, nextOffset: next) else {
                    unwanted = entry.node
                    return false
                }
                return true
            }
        } catch { throw Errno(error) }
        if let unwanted { nodes.forget(unwanted, count: 1) }
    }

    public func synchronizeDirectory(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        guard ControlNode(node) == nil else { return }
        try answering { () throws(TreeError) in try tree.sync() }
    }

    public func statistics(of node: UInt64, _ caller: Caller) throws(Errno) -> statvfs {
        let statistics = try answering { () throws(TreeError) in try tree.statistics() }
        var reply = statvfs()
        let block = 4096
        reply.f_bsize = UInt(block)
        reply.f_frsize = UInt(block)
        reply.f_blocks = UInt(clamping: statistics.diskByteCount / UInt64(block))
        reply.f_bfree = UInt(clamping: statistics.freeByteCount / UInt64(block))
        reply.f_bavail = reply.f_bfree
        // A file takes a block's worth of records at least.
        reply.f_files = reply.f_bfree + UInt(clamping: statistics.recordCount)
        reply.f_ffree = reply.f_bfree
        reply.f_favail = reply.f_bfree
        reply.f_namemax = 255
        return reply
    }
}

extension DirectorySink where Self: ~Copyable {
    /// "." or "..", which count as no lookup.
    mutating func addDirectory(_ name: String, _ node: UInt64, nextOffset: Int64) -> Bool {
        var name = name
        return name.withUTF8 {
            add(name: UnsafeRawBufferPointer($0), node: node, type: S_IFDIR, nextOffset: nextOffset)
        }
    }
}
