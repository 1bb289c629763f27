import CFuse
import Glibc

/// Tells the kernel to forget what it has cached. Errors of a mount that is gone and of nodes that the kernel does not
/// know are none: there is nothing to forget then.
///
/// Never invalidate on a worker thread (within a `FileSystem` call): the kernel may wait there for the very request
/// that is being served.
public struct Notifier: Sendable {
    let session: Session

    /// Drops a node's attributes and its cached pages from `offset` on; `length` 0 means to the end. A negative
    /// `offset` drops the attributes alone.
    @discardableResult
    public func invalidateNode(_ node: UInt64, offset: Int64 = 0, length: Int64 = 0) -> Errno? {
        fault(fuse_lowlevel_notify_inval_inode(session.raw, node, off_t(offset), off_t(length)))
    }

    /// Drops a name, positive or negative, and what is mounted below it.
    @discardableResult
    public func invalidateEntry(_ parent: UInt64, name: UnsafeRawBufferPointer) -> Errno? {
        fault(
            withTerminated(name) { name, count in
                fuse_lowlevel_notify_inval_entry(session.raw, parent, name, count)
            })
    }

    /// Has the next use of a name looked up again, without dropping what lies below it.
    @discardableResult
    public func expireEntry(_ parent: UInt64, name: UnsafeRawBufferPointer) -> Errno? {
        fault(
            withTerminated(name) { name, count in
                fuse_lowlevel_notify_expire_entry(session.raw, parent, name, count, FUSE_LL_EXPIRE_ONLY)
            })
    }

    /// Drops a name that is gone, and lets inotify watches of the node see its deletion.
    @discardableResult
    public func entryDeleted(_ parent: UInt64, child: UInt64, name: UnsafeRawBufferPointer) -> Errno? {
        fault(
            withTerminated(name) { name, count in
                fuse_lowlevel_notify_delete(session.raw, parent, child, name, count)
            })
    }

    /// Has reads that wait (`Errno.later`) asked again, and wakes callers of poll(2), by the numbers that they gave. Waits
    /// for nothing, so that worker threads may call it.
    public func wake(_ polls: [UInt64]) { session.waiters.ring(polls, of: session) }

    private func fault(_ result: Int32) -> Errno? {
        switch -result {
        case ENOENT, ENODEV, ENOTCONN, EBADF: nil
        case let number where number > 0: Errno(number)
        default: nil
        }
    }

    /// libfuse sends the zero after a name too.
    private func withTerminated(
        _ name: UnsafeRawBufferPointer, _ body: (UnsafePointer<CChar>?, Int) -> Int32
    ) -> Int32 {
        withUnsafeTemporaryAllocation(byteCount: name.count + 1, alignment: 1) { copy in
            copy.copyMemory(from: name)
            copy[name.count] = 0
            defer { wipe(copy, copy.count) }
            return body(copy.assumingMemoryBound(to: CChar.self).baseAddress, name.count)
        }
    }
}
