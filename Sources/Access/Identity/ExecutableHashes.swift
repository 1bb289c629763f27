internal import Glibc
internal import Sodium
internal import Synchronization

/// SHA-256 of the programs that processes run, each file hashed once.
///
/// A program on a file system that a process serves, or another machine, is not read: that process may be this one, and
/// the other machine may be gone. Its hash cannot be told.
final class ExecutableHashes: Sendable {
    static let shared = ExecutableHashes()

    private static let byteLimit: UInt64 = 1 << 30
    private static let knownLimit = 1024
    private let known = Mutex<[FileIdentity: [UInt8]]>([:])

    func hash(_ process: ProcessIdentity) -> [UInt8]? {
        if let supposed = process.supposedHash { return supposed }
        guard process.pid > 0, let file = process.file, file.size <= Self.byteLimit else { return nil }
        if let hash = known.withLock({ $0[file] }) { return hash }
        guard let hash = Self.read(file, of: process) else { return nil }
        known.withLock { known in
            if known.count >= Self.knownLimit { known.removeAll(keepingCapacity: true) }
            known[file] = hash
        }
        return hash
    }

    private static func read(_ file: FileIdentity, of process: ProcessIdentity) -> [UInt8]? {
        // Held by a descriptor that asks no file system before it is known which one it is.
        guard let place = Descriptor(open("/proc/\(process.pid)/exe", O_PATH | O_CLOEXEC)),
            FileIdentity(at: "", in: place.number, flags: AT_EMPTY_PATH) == file, isLocal(mount: file.mount),
            let opened = Descriptor(open("/proc/self/fd/\(place.number)", O_RDONLY | O_CLOEXEC))
        else { return nil }
        var hash = SHA256()
        var total: UInt64 = 0
        let isWhole = withUnsafeTemporaryAllocation(byteCount: 65_536, alignment: 16) { buffer in
            while true {
                let count = Glibc.read(opened.number, buffer.baseAddress, buffer.count)
                if count < 0, errno == EINTR { continue }
                guard count > 0 else { return count == 0 }
                hash.add(UnsafeRawBufferPointer(rebasing: buffer[..<count]))
                total += UInt64(count)
                guard total <= byteLimit else { return false }
            }
        }
        guard isWhole, FileIdentity(at: "", in: place.number, flags: AT_EMPTY_PATH) == file else { return nil }
        return hash.finish()
    }

    /// Whether a mount, as its number in mountinfo (proc_pid_mountinfo(5)) tells, is of a disk of this machine.
    private static func isLocal(mount: UInt64) -> Bool {
        guard mount != 0, let own = Descriptor(open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC)),
            let table = ProcDirectory(own).text("mountinfo", limit: 4 << 20)
        else { return false }
        for line in table.split(separator: "\n") where UInt64(line.prefix { $0 != " " }) == mount {
            guard let mark = line.firstRange(of: " - ") else { return false }
            let type = line[mark.upperBound...].prefix { $0 != " " }
            return !["fuse", "nfs", "cifs", "smb", "9p", "ceph", "afs", "virtiofs"].contains { type.hasPrefix($0) }
        }
        return false
    }
}
