import CFuse
import Glibc

/// What a file system answered, on its way to the kernel.
enum Answer {
    case done
    /// FORGET, and a read that waits: nothing is sent.
    case silence
    case entry(EntryReply)
    case created(EntryReply, OpenReply)
    case opened(OpenReply, of: UInt64, isDirectory: Bool)
    case attributes(stat, validity: Double)
    case written(Int)
    /// So many bytes at the start of the worker's scratch buffer.
    case scratch(Int)
    /// The size of an extended attribute or of their list.
    case size(Int)
    case position(Int64)
    case statistics(statvfs)
}

/// A request as a handler sees it.
struct Call {
    let worker: Worker
    let caller: Caller
    var fileSystem: any FileSystem { worker.session.fileSystem }
}

/// Runs a handler and replies: the only place that does.
///
/// `scratchByteCount` is what a failing handler may have left in the scratch buffer.
func answer(
    _ request: fuse_req_t?, scratchByteCount: Int = 0, _ handler: (Call) throws(Errno) -> Answer
) {
    guard let request, let worker = Worker.current else { return }
    let context = fuse_req_ctx(request).pointee
    let unique = worker.header?.unique ?? 0
    let caller = Caller(
        uid: context.uid, gid: context.gid, pid: context.pid, umask: context.umask,
        unique: unique & ~RequestHeader.resendBit, isResend: unique & RequestHeader.resendBit != 0,
        killsSetID: worker.killsSetID)
    do throws(Errno) {
        send(try handler(Call(worker: worker, caller: caller)), to: request, worker)
    } catch {
        if scratchByteCount > 0 { worker.wipeScratch(scratchByteCount) }
        fuse_reply_err(request, error.rawValue)
    }
}

private func send(_ answer: Answer, to request: fuse_req_t, _ worker: Worker) {
    let fileSystem = worker.session.fileSystem
    switch answer {
    case .done: fuse_reply_err(request, 0)
    case .silence: fuse_reply_none(request)
    case .entry(let entry):
        var parameters = fuse_entry_param(entry)
        let isGone = fuse_reply_entry(request, &parameters) == -ENOENT
        // The kernel has not taken the lookup that it was to be given.
        if isGone, entry.node != 0 { fileSystem.forget(entry.node, count: 1) }
    case .created(let entry, let opened):
        var parameters = fuse_entry_param(entry)
        var information = fuse_file_info(opened)
        if fuse_reply_create(request, &parameters, &information) == -ENOENT {
            fileSystem.release(entry.node, handle: opened.handle, flags: 0)
            fileSystem.forget(entry.node, count: 1)
        }
    case .opened(let opened, let node, let isDirectory):
        var information = fuse_file_info(opened)
        guard fuse_reply_open(request, &information) == -ENOENT else { return }
        if isDirectory {
            fileSystem.releaseDirectory(node, handle: opened.handle)
        } else {
            fileSystem.release(node, handle: opened.handle, flags: 0)
        }
    case .attributes(var attributes, let validity): fuse_reply_attr(request, &attributes, validity)
    case .written(let count): fuse_reply_write(request, count)
    case .scratch(let count): worker.replyFromScratch(request, count)
    case .size(let count): fuse_reply_xattr(request, count)
    case .position(let offset): fuse_reply_lseek(request, off_t(offset))
    case .statistics(var statistics): fuse_reply_statfs(request, &statistics)
    }
}

extension fuse_entry_param {
    init(_ entry: EntryReply) {
        self.init()
        ino = entry.node
        generation = 0
        attr = entry.attributes
        attr_timeout = entry.attributeValidity
        entry_timeout = entry.entryValidity
    }
}

extension fuse_file_info {
    init(_ opened: OpenReply) {
        self.init()
        fh = opened.handle
        direct_io = opened.directIO ? 1 : 0
        keep_cache = opened.keepCache ? 1 : 0
        noflush = opened.noFlush ? 1 : 0
        cache_readdir = opened.cacheDirectory ? 1 : 0
    }
}
