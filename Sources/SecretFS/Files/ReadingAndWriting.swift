import Access
public import Fuse
import Glibc
import Keyring
import SecretTree

extension SecretFS {
    public func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64,
        into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int {
        guard offset >= 0 else { throw .invalid }
        if node == ControlNode.events.number {
            return try options.readEvents(handle, flags: flags, at: offset, into: buffer, caller)
        }
        if case .control(let number) = Handle(handle) {
            return try readControlFile(number, of: node, at: Int(offset), into: buffer)
        }
        let id = NodeID(rawValue: node)
        var isOfOldPolicy = false
        switch Handle(handle) {
        case .directReader(let number):
            try recheck(id, openedUnder: readers[number]?.policy ?? 0, .read, .read, caller)
            return try recordingRead(id, caller) { () throws(Errno) in
                try read(number, at: UInt64(offset), into: buffer)
            }
        case .reader(_, _, let policy): isOfOldPolicy = try recheck(id, openedUnder: policy, .read, .read, caller)
        case .writer(let number):
            isOfOldPolicy = try recheck(id, openedUnder: writers[number]?.policy ?? 0, .read, .read, caller)
        case .control: break
        }
        // Its pages are not for others whom an earlier policy let pass: they go as soon as the kernel has them.
        defer { if isOfOldPolicy { invalidator.drop([node]) } }
        return try recordingRead(id, caller) { () throws(Errno) in
            try answering { () throws(TreeError) in try tree.read(id, at: UInt64(offset), into: buffer) }
        }
    }

    public func write(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, from buffer: UnsafeRawBufferPointer,
        killsSetID: Bool, _ caller: Caller
    ) throws(Errno) -> Int {
        let appends = flags & O_APPEND != 0
        if case .control(let number) = Handle(handle) {
            // `>>` is as good as `>`: where an append goes is not the writer's to say.
            guard let control = ControlNode(node) else { throw .invalid }
            return try guarded(AccessRequest(.control, .control, .control(control)), caller) { () throws(Errno) in
                try writeControlFile(number, of: node, at: appends ? 0 : offset, buffer)
                return buffer.count
            }
        }
        guard offset >= 0 else { throw .invalid }
        let id = NodeID(rawValue: node)
        do throws(Errno) { try recheckWriting(id, handle, caller) } catch {
            session(ofHandle: handle)?.miss(at: UInt64(offset))
            throw error
        }
        let now = Timestamp.now()
        if let session = session(ofHandle: handle),
            try session.write(
                buffer, at: UInt64(offset), appends: appends,
                ReplaceSession.Writing(thread: caller.pid, clearsSetID: killsSetID, now: now))
        {
            return buffer.count
        }
        try beginPlainChange(of: id, handle: handle)
        _ = try answering { () throws(TreeError) in
            try tree.write(
                id, at: UInt64(offset), from: buffer, appends: appends, clearsSetID: killsSetID, now: now)
        }
        endPlainChange(of: id, handle: handle)
        return buffer.count
    }

    public func allocate(
        _ node: UInt64, handle: UInt64, mode: Int32, at offset: Int64, count: Int64, _ caller: Caller
    ) throws(Errno) {
        guard ControlNode(node) == nil else { throw .notSupported }
        guard let mode = AllocationMode(linux: mode) else { throw .notSupported }
        guard offset >= 0, count > 0 else { throw .invalid }
        let id = NodeID(rawValue: node)
        try recheckWriting(id, handle, caller)
        let now = Timestamp.now()
        // The kernel leaves these bits to us here, and does not tell whether the caller may keep them.
        let clearsSetID = caller.uid != 0
        let (start, length) = (UInt64(offset), UInt64(count))
        if let session = session(ofHandle: handle),
            try session.allocate(
                mode, at: start, count: length,
                ReplaceSession.Writing(thread: caller.pid, clearsSetID: clearsSetID, now: now))
        {
            return
        }
        try beginPlainChange(of: id, handle: handle)
        _ = try answering { () throws(TreeError) in
            try tree.allocate(id, mode, at: start, count: length, now: now)
        }
        if clearsSetID { try clearSetID(of: id, now: now) }
    }

    /// Whoever writes through a descriptor that an earlier policy let pass.
    func recheckWriting(_ id: NodeID, _ handle: UInt64, _ caller: Caller) throws(Errno) {
        guard case .writer(let number) = Handle(handle), let writer = writers[number] else { return }
        try recheck(id, openedUnder: writer.policy, .write, .write, caller)
    }

    private func clearSetID(of id: NodeID, now: Timestamp) throws(Errno) {
        try answering { () throws(TreeError) in
            guard try tree.attributes(of: id).permissions & 0o6000 != 0 else { return }
            var change = AttributeChange()
            change.clearsSetID = true
            _ = try tree.setAttributes(of: id, change, now: now)
        }
    }

    public func seek(_ node: UInt64, handle: UInt64, from offset: Int64, whence: Int32, _ caller: Caller)
        throws(Errno) -> Int64
    {
        guard ControlNode(node) == nil else { throw .invalid }
        guard offset >= 0 else { throw Errno(ENXIO) }
        let isForData: Bool
        switch whence {
        case 3: isForData = true  // SEEK_DATA
        case 4: isForData = false  // SEEK_HOLE
        default: throw .invalid
        }
        if let found = try session(ofHandle: handle)?.seek(from: UInt64(offset), forData: isForData) {
            return Int64(clamping: found)
        }
        return Int64(
            clamping: try answering { () throws(TreeError) in
                try tree.seek(NodeID(rawValue: node), from: UInt64(offset), forData: isForData)
            })
    }
}

extension AllocationMode {
    /// fallocate(2)'s mode bits: keep size 1, punch hole 2, zero range 16. Nil for what is not supported.
    init?(linux mode: Int32) {
        switch mode {
        case 0: self = .extend
        case 1: self = .keepSize
        case 3: self = .punchHole
        case 16: self = .zeroRange(keepsSize: false)
        case 17: self = .zeroRange(keepsSize: true)
        default: return nil
        }
    }
}
