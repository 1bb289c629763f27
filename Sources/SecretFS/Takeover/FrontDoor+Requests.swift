import Access
public import Fuse
public import Glibc
import Keyring
import SecretTree

/// The requests, one by one. An operation that changes something is answered from what there is if it is done already:
/// its caller still holds what it asked for, so nobody has changed it since.
extension FrontDoor {
    public func started() {}
    public var truncatesAtOpening: Bool { false }
    public var hasAccessControlLists: Bool { true }

    // MARK: Names

    public func lookup(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) -> EntryReply
    {
        try pass(parent) { () throws(Errno) in
            try lockedLookup(name, in: parent)
        } _: { inner throws(Errno) in
            try inner.lookup(name, in: parent, caller)
        }
    }

    public func forget(_ node: UInt64, count: UInt64) {
        _ = try? pass(node) { inner throws(Errno) in inner.forget(node, count: count) }
    }

    public func makeNode(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, device: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply {
        try pass(parent) { inner throws(Errno) in
            if isDone(caller) { return try inner.lookup(name, in: parent, caller) }
            return try inner.makeNode(name, in: parent, mode: mode, device: device, caller)
        }
    }

    public func makeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, _ caller: Caller)
        throws(Errno) -> EntryReply
    {
        try pass(parent) { inner throws(Errno) in
            if isDone(caller) { return try inner.lookup(name, in: parent, caller) }
            return try inner.makeDirectory(name, in: parent, mode: mode, caller)
        }
    }

    public func makeSymbolicLink(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> EntryReply {
        try pass(parent) { inner throws(Errno) in
            if isDone(caller) { return try inner.lookup(name, in: parent, caller) }
            return try inner.makeSymbolicLink(name, in: parent, target: target, caller)
        }
    }

    public func link(_ node: UInt64, as name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller)
        throws(Errno) -> EntryReply
    {
        try pass(parent) { inner throws(Errno) in
            if isDone(caller) { return try inner.lookup(name, in: parent, caller) }
            return try inner.link(node, as: name, in: parent, caller)
        }
    }

    public func unlink(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        try pass(parent) { inner throws(Errno) in
            if !isDone(caller) { try inner.unlink(name, in: parent, caller) }
        }
    }

    public func removeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        try pass(parent) { inner throws(Errno) in
            if !isDone(caller) { try inner.removeDirectory(name, in: parent, caller) }
        }
    }

    public func rename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer,
        in newParent: UInt64, flags: UInt32, _ caller: Caller
    ) throws(Errno) {
        try pass(parent) { inner throws(Errno) in
            guard !isDone(caller) else {
                return inner.afterRepeatedRename(name, in: parent, to: newName, in: newParent, flags: flags, caller)
            }
            try inner.rename(name, in: parent, to: newName, in: newParent, flags: flags, caller)
        }
    }

    public func readLink(_ node: UInt64, into target: UnsafeMutableRawBufferPointer, _ caller: Caller) throws(Errno)
        -> Int
    {
        try pass(node) { inner throws(Errno) in try inner.readLink(node, into: target, caller) }
    }

    // MARK: Attributes

    public func attributes(of node: UInt64, handle: UInt64?, _ caller: Caller)
        throws(Errno) -> (stat, validity: Double)
    {
        try pass(node) { () throws(Errno) in
            try lockedAttributes(of: node)
        } _: { inner throws(Errno) in
            try inner.attributes(of: node, handle: handle, caller)
        }
    }

    public func birthTime(of node: UInt64) -> timespec? {
        (try? pass(node) { inner throws(Errno) in inner.birthTime(of: node) }) ?? nil
    }

    public func setAttributes(of node: UInt64, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller)
        throws(Errno) -> (stat, validity: Double)
    {
        try pass(node) { () throws(Errno) in
            // A truncation is what `>` does before it writes.
            guard isLockFile(node), request.size != nil else { throw Errno(ENOKEY) }
            return try lockedAttributes(of: node)
        } _: { inner throws(Errno) in
            if isDone(caller) {
                if request.size != nil, handle == nil { inner.tellChanged(NodeID(rawValue: node), by: caller) }
                return try inner.attributes(of: node, handle: handle, caller)
            }
            return try inner.setAttributes(of: node, handle: handle, request, caller)
        }
    }

    public func setExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, flags: Int32,
        _ caller: Caller
    ) throws(Errno) {
        try pass(node) { inner throws(Errno) in
            if !isDone(caller) { try inner.setExtendedAttribute(node, name, value, flags: flags, caller) }
        }
    }

    public func extendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        try pass(node) { () throws(Errno) in
            // Whoever may come to `unlock` by the mode shall.
            throw SecretTree.isAccessControlList(name) ? .noAttribute : Errno(ENOKEY)
        } _: { inner throws(Errno) in
            try inner.extendedAttribute(node, name, caller, reply: reply)
        }
    }

    public func listExtendedAttributes(_ node: UInt64, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void)
        throws(Errno)
    {
        try pass(node) { inner throws(Errno) in try inner.listExtendedAttributes(node, caller, reply: reply) }
    }

    public func removeExtendedAttribute(_ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller)
        throws(Errno)
    {
        try pass(node) { inner throws(Errno) in
            if !isDone(caller) { try inner.removeExtendedAttribute(node, name, caller) }
        }
    }

    // MARK: Files

    public func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) {
        try pass(parent) { inner throws(Errno) in
            if caller.isResend { inner.forgetOpening(caller) }
            guard isDone(caller) else {
                return try inner.create(name, in: parent, mode: mode, flags: flags, caller)
            }
            // It is there, and new: made by this very request.
            return try inner.create(name, in: parent, mode: mode, flags: flags & ~(O_EXCL | O_TRUNC), caller)
        }
    }

    /// One that was made already is another's whom nobody has told of: a new one takes its place.
    public func createTemporary(in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller)
        throws(Errno) -> (EntryReply, OpenReply)
    {
        try pass(parent) { inner throws(Errno) in
            if caller.isResend { inner.forgetTemporary(caller) }
            return try inner.createTemporary(in: parent, mode: mode, flags: flags, caller)
        }
    }

    public func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        try pass(node) { () throws(Errno) in
            try lockedOpen(node, caller)
        } _: { inner throws(Errno) in
            if caller.isResend { inner.forgetOpening(caller) }
            return try inner.open(node, flags: flags, caller)
        }
    }

    public func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64,
        into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int {
        try pass(node) { () throws(Errno) in
            guard node != ControlNode.events.number else {
                return try options.readEvents(handle, flags: flags, at: offset, into: buffer, caller)
            }
            return try lockedRead(node, at: offset, into: buffer)
        } _: {
            inner throws(Errno) in
            try inner.read(node, handle: handle, flags: flags, at: offset, into: buffer, caller)
        }
    }

    public func write(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, from buffer: UnsafeRawBufferPointer,
        killsSetID: Bool, _ caller: Caller
    ) throws(Errno) -> Int {
        if isLockFile(node) {
            let offset = flags & O_APPEND != 0 ? 0 : offset
            // While it is locked the policy is sealed: who may write the file and knows the passphrase may unlock.
            guard let control = ControlNode(node) else { throw .notFound }
            guard let fileSystem else {
                try recordingWhileLocked(control, caller) { () throws(Errno) in
                    try changeLock(node, at: offset, buffer)
                }
                return buffer.count
            }
            try fileSystem.guarded(AccessRequest(.control, .control, .control(control)), caller) { () throws(Errno) in
                try changeLock(node, at: offset, buffer)
            }
            return buffer.count
        }
        return try pass(node, writing: handle) { inner throws(Errno) in
            guard !isDone(caller) else {
                inner.afterRepeatedWrite(node)
                return buffer.count
            }
            return try inner.write(
                node, handle: handle, flags: flags, at: offset, from: buffer, killsSetID: killsSetID, caller)
        }
    }

    public func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        try pass(node) { () throws(Errno) in
            guard ControlNode(node) != nil else { throw Errno(ENOKEY) }
        } _: { inner throws(Errno) in
            try inner.flush(node, handle: handle, caller)
        }
    }

    public func release(_ node: UInt64, handle: UInt64, flags: Int32) {
        do throws(Errno) {
            try pass(node) { inner throws(Errno) in inner.release(node, handle: handle, flags: flags) }
        } catch { forgetHandle(handle, of: node) }
    }

    public func synchronize(_ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller) throws(Errno) {
        try pass(node) { inner throws(Errno) in
            try inner.synchronize(node, handle: handle, dataOnly: dataOnly, caller)
        }
    }

    public func allocate(
        _ node: UInt64, handle: UInt64, mode: Int32, at offset: Int64, count: Int64, _ caller: Caller
    ) throws(Errno) {
        try pass(node) { inner throws(Errno) in
            if !isDone(caller) {
                try inner.allocate(node, handle: handle, mode: mode, at: offset, count: count, caller)
            }
        }
    }

    public func seek(_ node: UInt64, handle: UInt64, from offset: Int64, whence: Int32, _ caller: Caller)
        throws(Errno) -> Int64
    {
        try pass(node) { inner throws(Errno) in
            try inner.seek(node, handle: handle, from: offset, whence: whence, caller)
        }
    }

    // MARK: Directories

    public func openDirectory(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        try pass(node) { inner throws(Errno) in try inner.openDirectory(node, flags: flags, caller) }
    }

    public func readDirectory<Sink: DirectorySink & ~Copyable>(
        _ node: UInt64, handle: UInt64, from offset: Int64, into sink: inout Sink, _ caller: Caller
    ) throws(Errno) {
        try pass(node) { inner throws(Errno) in
            try inner.readDirectory(node, handle: handle, from: offset, into: &sink, caller)
        }
    }

    public func releaseDirectory(_ node: UInt64, handle: UInt64) {
        _ = try? pass(node) { inner throws(Errno) in inner.releaseDirectory(node, handle: handle) }
    }

    public func synchronizeDirectory(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        try pass(node) { inner throws(Errno) in try inner.synchronizeDirectory(node, handle: handle, caller) }
    }

    public func statistics(of node: UInt64, _ caller: Caller) throws(Errno) -> statvfs {
        try pass(node) { () throws(Errno) in
            // df(1) and umount(8) shall find a file system here.
            var statistics = statvfs()
            statistics.f_bsize = 4096
            statistics.f_frsize = 4096
            statistics.f_namemax = 255
            return statistics
        } _: { inner throws(Errno) in
            try inner.statistics(of: node, caller)
        }
    }
}
