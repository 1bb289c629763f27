internal import CLinux
internal import Glibc
internal import Sodium
internal import Synchronization

/// SHA-256 of programs, computed once for each state of a file.
final class ProgramHashes: Sendable {
    private static let limit = 1024
    /// Longer programs have no hash.
    private static let longest: UInt64 = 1 << 30
    private let known = Mutex<[FileIdentity: [UInt8]]>([:])

    /// The hash of the program that a process runs; nil if its file cannot be read
    /// without asking a file system's server, or is not where it was started from.
    func hash(of process: ProcessIdentity) -> [UInt8]? {
        guard let path = process.exe, process.isExeVerified, let program = process.file,
            let file = Descriptor(ll_open_cached(path)),
            let found = FileIdentity(at: "", in: file.number, flags: AT_EMPTY_PATH), found.isSameFile(as: program),
            found.size <= Self.longest
        else { return nil }
        if let hash = known.withLock({ $0[found] }) { return hash }
        guard Self.isLocal(mount: found.mount), let hash = Self.read(file) else { return nil }
        // What was written to meanwhile has a hash of no state.
        guard let after = FileIdentity(at: "", in: file.number, flags: AT_EMPTY_PATH), after == found else {
            return nil
        }
        known.withLock { known in
            if known.count >= Self.limit { known.removeAll() }
            known[found] = hash
        }
        return hash
    }

    private static func read(_ file: Descriptor) -> [UInt8]? {
        guard let contents = Descriptor(open("/proc/self/fd/\(file.number)", O_RDONLY | O_CLOEXEC)) else { return nil }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 18, alignment: 16)
        defer { buffer.deallocate() }
        return SHA256.hash(through: buffer) { buffer in
            while true {
                let count = Glibc.read(contents.number, buffer.baseAddress, buffer.count)
                if count < 0, errno == EINTR { continue }
                return count
            }
        }
    }

    /// False for what a process serves: it may be this one, or one that waits for it.
    private static func isLocal(mount: UInt64) -> Bool {
        guard mount != 0, let directory = ProcDirectory(getpid()),
            let table = directory.text("mountinfo", limit: 16 << 20)
        else {
            return false
        }
        for line in table.split(separator: "\n") {
            let fields = line.split(separator: " ")
            guard fields.first.flatMap({ UInt64($0) }) == mount, let dash = fields.firstIndex(of: "-"),
                dash + 1 < fields.count
            else { continue }
            return !fields[dash + 1].hasPrefix("fuse")
        }
        return false
    }
}
