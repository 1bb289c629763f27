import CFuse
import Glibc
import Synchronization

/// One libfuse session on a /dev/fuse descriptor: it parses requests and lays out replies; reading and writing are ours.
final class Session: @unchecked Sendable {
    // Unchecked: libfuse locks what it changes in `raw`; all else is constant or atomic.
    let raw: OpaquePointer
    /// A duplicate of the caller's descriptor (the same open file: no clone), closed with the session.
    let descriptor: Int32
    let fileSystem: any FileSystem
    let options: Server.Options
    let keepsInit: (@Sendable (UnsafeRawBufferPointer) -> Void)?
    let isStopping = Atomic<Bool>(false)
    /// INIT has been served, here or, in another process, as the request that was kept.
    let isInitialized = Atomic<Bool>(false)
    let kernelResends = Atomic<Bool>(true)
    let waiters = Waiters()
    /// The first error of a read that no unmount explains; 0 if none.
    let failure = Atomic<Int32>(0)

    init(
        fileSystem: any FileSystem, descriptor: Int32, options: Server.Options,
        keepsInit: (@Sendable (UnsafeRawBufferPointer) -> Void)?
    ) throws(FuseError) {
        let own = fcntl(descriptor, F_DUPFD_CLOEXEC, 3)
        guard own >= 0 else { throw .session(errno) }
        var operations = operationTable()
        guard let raw = Self.make(&operations) else {
            close(own)
            throw .session(ENOMEM)
        }
        var io = fuse_custom_io()
        io.read = { descriptor, buffer, count, _ in read(descriptor, buffer, count) }
        io.writev = { descriptor, parts, count, _ in writeReply(descriptor, parts, count) }
        guard fuse_session_custom_io(raw, &io, own) == 0 else {
            fuse_session_destroy(raw)
            close(own)
            throw .session(EINVAL)
        }
        self.raw = raw
        self.descriptor = own
        self.fileSystem = fileSystem
        self.options = options
        self.keepsInit = keepsInit
    }

    deinit { fuse_session_destroy(raw) }

    private static func make(_ operations: inout fuse_lowlevel_ops) -> OpaquePointer? {
        guard let name = strdup("letterlock") else { return nil }
        defer { free(name) }
        var argument: UnsafeMutablePointer<CChar>? = name
        return withUnsafeMutablePointer(to: &argument) { vector in
            var arguments = fuse_args(argc: 1, argv: vector, allocated: 0)
            defer { fuse_opt_free_args(&arguments) }
            return fuse_session_new(&arguments, &operations, MemoryLayout<fuse_lowlevel_ops>.size, nil)
        }
    }

    /// Asks the kernel to send again what a server that is gone has read and not answered.
    func askForResend() throws(FuseError) {
        // struct fuse_out_header with FUSE_NOTIFY_RESEND (7) as its error, and no body.
        var notification: (length: UInt32, code: Int32, unique: UInt64) = (16, 7, 0)
        guard write(descriptor, &notification, 16) == 16 else { throw .resend(errno) }
    }
}

/// Called within INIT: says which of the kernel's abilities are wanted.
func negotiate(
    _ connection: UnsafeMutablePointer<fuse_conn_info>, _ options: Server.Options, _ fileSystem: any FileSystem
) {
    var wanted =
        FUSE_CAP_ASYNC_READ | FUSE_CAP_DONT_MASK | FUSE_CAP_READDIRPLUS
        | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_CACHE_SYMLINKS
        | FUSE_CAP_EXPIRE_ONLY | FUSE_CAP_IOCTL_DIR
    wanted |= options.invalidatesExplicitly ? FUSE_CAP_EXPLICIT_INVAL_DATA : FUSE_CAP_AUTO_INVAL_DATA
    if fileSystem.truncatesAtOpening { wanted |= FUSE_CAP_ATOMIC_O_TRUNC }
    if fileSystem.hasAccessControlLists { wanted |= FUSE_CAP_POSIX_ACL }
    let capable = connection.pointee.capable
    // HANDLE_KILLPRIV is left out on purpose: its second version is put into the reply, see `patchInitReply`.
    connection.pointee.want = UInt32(wanted) & capable
    connection.pointee.max_write = UInt32(options.maxWriteByteCount)
    connection.pointee.max_background = UInt32(options.maxBackground)
    connection.pointee.congestion_threshold = UInt32(options.maxBackground * 3 / 4)
    connection.pointee.time_gran = 1
}

/// The most that one READ asks for: its reply has a buffer that is there only as far as it is used, unlike a WRITE's.
private let maxReadByteCount = 1 << 20

/// Adds to an INIT reply what libfuse 3.14 does not know, where the kernel offered it: flags, and a limit of READs that
/// is not that of WRITEs.
func patchInitReply(_ reply: UnsafeMutableRawBufferPointer, offered: (flags: UInt32, flags2: UInt32)) {
    guard reply.count >= InitFlags.replyFlags2Offset + 4 else { return }
    func add(_ bits: UInt32, at offset: Int) {
        let old = reply.loadUnaligned(fromByteOffset: offset, as: UInt32.self)
        reply.storeBytes(of: old | bits, toByteOffset: offset, as: UInt32.self)
    }
    add(offered.flags & InitFlags.handleKillprivV2, at: InitFlags.replyFlagsOffset)
    if offered.flags & InitFlags.maxPages != 0 {
        add(InitFlags.maxPages, at: InitFlags.replyFlagsOffset)
        let pages = UInt16(maxReadByteCount / Int(sysconf(Int32(_SC_PAGESIZE))))
        reply.storeBytes(of: pages, toByteOffset: InitFlags.replyMaxPagesOffset, as: UInt16.self)
    }
    if offered.flags & InitFlags.extended != 0 {
        add(InitFlags.extended, at: InitFlags.replyFlagsOffset)
        add(offered.flags2 & InitFlags.directIOAllowsMapping, at: InitFlags.replyFlags2Offset)
    }
}

/// What libfuse calls to send a reply or a notification.
private func writeReply(_ descriptor: Int32, _ parts: UnsafeMutablePointer<iovec>?, _ count: Int32) -> Int {
    guard let parts else { return 0 }
    if let worker = Worker.current {
        if let offered = worker.offeredFlags, count == 2, let reply = parts[1].iov_base {
            patchInitReply(
                UnsafeMutableRawBufferPointer(start: reply, count: parts[1].iov_len), offered: offered)
        }
        if worker.swallowsReplies { return (0..<Int(count)).reduce(0) { $0 + parts[$1].iov_len } }
        let copied = worker.gather(UnsafeMutableBufferPointer(start: parts, count: Int(count)))
        defer { worker.wipeBounce(copied) }
        return writeAll(descriptor, parts, count)
    }
    return writeAll(descriptor, parts, count)
}

private func writeAll(_ descriptor: Int32, _ parts: UnsafeMutablePointer<iovec>, _ count: Int32) -> Int {
    while true {
        let written = writev(descriptor, parts, count)
        if written >= 0 { return written }
        switch errno {
        case EINTR: continue
        // The mount is gone, and with it whoever waited: nothing that libfuse should print about.
        case ENODEV where Worker.current != nil: return (0..<Int(count)).reduce(0) { $0 + parts[$1].iov_len }
        default: return -1
        }
    }
}
