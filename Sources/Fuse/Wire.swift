import Glibc

/// The requests of the kernel's FUSE protocol that libfuse 3.14 knows, under their names in <linux/fuse.h>, and
/// TMPFILE, which it is told is CREATE, and STATX, which is answered without it.
/// All numbers are in host order, and may lie unaligned in a test.
enum Opcode: UInt32 {
    case lookup = 1
    case forget, getattr, setattr, readlink, symlink
    case mknod = 8
    case mkdir, unlink, rmdir, rename, link, open, read, write, statfs, release
    case fsync = 20
    case setxattr, getxattr, listxattr, removexattr, flush, initialize, opendir, readdir, releasedir
    case fsyncdir, getlk, setlk, setlkw, access, create, interrupt, bmap, destroy, ioctl, poll, notifyReply
    case batchForget, fallocate, readdirplus, rename2, lseek, copyFileRange
    case temporaryFile = 51
    case statx
}

/// struct fuse_in_header: what stands before every request.
struct RequestHeader {
    static let byteCount = 40
    static let opcodePlace = 4
    /// Bit 63 of `unique`: the kernel sends this request a second time.
    static let resendBit: UInt64 = 1 << 63

    var length: Int
    /// nil for kinds that libfuse does not know, and answers ENOSYS.
    var opcode: Opcode?
    var unique: UInt64
    var node: UInt64
    var uid: UInt32
    var gid: UInt32
    var pid: Int32

    init?(_ request: UnsafeRawBufferPointer) {
        guard request.count >= Self.byteCount else { return nil }
        length = Int(request.loadUnaligned(fromByteOffset: 0, as: UInt32.self))
        opcode = Opcode(rawValue: request.loadUnaligned(fromByteOffset: Self.opcodePlace, as: UInt32.self))
        unique = request.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
        node = request.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        uid = request.loadUnaligned(fromByteOffset: 24, as: UInt32.self)
        gid = request.loadUnaligned(fromByteOffset: 28, as: UInt32.self)
        pid = request.loadUnaligned(fromByteOffset: 32, as: Int32.self)
    }

    /// The kernel does not wait for an answer to these.
    var isUnanswered: Bool {
        opcode == .forget || opcode == .batchForget || opcode == .notifyReply
    }
}

/// INIT flags that libfuse 3.14 does not know but that need nothing of it beyond the reply's bits.
enum InitFlags {
    static let extended: UInt32 = 1 << 30
    static let handleKillprivV2: UInt32 = 1 << 28
    static let maxPages: UInt32 = 1 << 22
    /// In `flags2`: mmap(MAP_SHARED) of files opened past the page cache.
    static let directIOAllowsMapping: UInt32 = 1 << 4

    static let requestFlagsOffset = RequestHeader.byteCount + 12
    static let requestFlags2Offset = RequestHeader.byteCount + 16
    /// struct fuse_init_out, without its header.
    static let replyFlagsOffset = 12
    static let replyMaxPagesOffset = 28
    static let replyFlags2Offset = 32
}

/// Says whether a request's body is as long as its kind demands, and its names end within it: libfuse believes
/// the kernel in this, and reads on.
func isWellFormed(_ request: UnsafeRawBufferPointer, opcode: Opcode?) -> Bool {
    guard let opcode else { return true }
    let shape = shape(of: opcode)
    let body = UnsafeRawBufferPointer(rebasing: request[RequestHeader.byteCount...])
    guard body.count >= shape.fixedByteCount else { return false }
    func number(at offset: Int) -> Int { Int(body.loadUnaligned(fromByteOffset: offset, as: UInt32.self)) }
    var rest = UnsafeRawBufferPointer(rebasing: body[shape.fixedByteCount...])
    for _ in 0..<shape.names {
        guard let base = rest.baseAddress, let end = memchr(base, 0, rest.count) else { return false }
        rest = UnsafeRawBufferPointer(rebasing: rest[(UnsafeRawPointer(end) - base + 1)...])
    }
    switch opcode {
    case .write: return number(at: 16) <= rest.count
    case .setxattr: return number(at: 0) <= rest.count
    case .batchForget: return number(at: 0) <= rest.count / 16
    case .initialize:
        let isExtended = UInt32(number(at: 12)) & InitFlags.extended != 0
        return !isExtended || body.count >= 20
    default: return true
    }
}

/// The fixed part of a request's body, and how many names follow it.
private func shape(of opcode: Opcode) -> (fixedByteCount: Int, names: Int) {
    switch opcode {
    case .readlink, .statfs, .destroy, .notifyReply: (0, 0)
    case .lookup, .unlink, .rmdir, .removexattr: (0, 1)
    case .symlink: (0, 2)
    case .forget, .open, .opendir, .listxattr, .access, .interrupt, .batchForget: (8, 0)
    case .mkdir, .link, .setxattr, .getxattr: (8, 1)
    case .rename: (8, 2)
    case .getattr, .fsync, .fsyncdir, .bmap, .initialize: (16, 0)
    case .mknod, .create, .temporaryFile: (16, 1)
    case .rename2: (16, 2)
    case .release, .flush, .releasedir, .poll, .lseek: (24, 0)
    case .statx: (ExtendedStatus.requestByteCount, 0)
    case .ioctl, .fallocate: (32, 0)
    case .read, .readdir, .readdirplus, .write: (40, 0)
    case .getlk, .setlk, .setlkw: (48, 0)
    case .copyFileRange: (56, 0)
    case .setattr: (88, 0)
    }
}

/// True if the request says that set-user and set-group bits are to go (KILLPRIV_V2). libfuse hides these bits.
func killsSetID(_ request: UnsafeRawBufferPointer, opcode: Opcode?) -> Bool {
    func flag(_ bit: UInt32, at offset: Int) -> Bool {
        request.loadUnaligned(fromByteOffset: RequestHeader.byteCount + offset, as: UInt32.self) & bit != 0
    }
    switch opcode {
    case .write: return flag(1 << 2, at: 20)
    case .setattr: return flag(1 << 11, at: 0)
    case .open: return flag(1 << 0, at: 4)
    case .create, .temporaryFile: return flag(1 << 0, at: 12)
    default: return false
    }
}
