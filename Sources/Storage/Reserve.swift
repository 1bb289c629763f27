internal import Glibc
internal import Threads

/// Space kept back, so that on a full disk there is room for the changes that give space back.
final class Reserve: @unchecked Sendable {
    static let fileName = "reserve"
    static let byteCount = 16 << 20

    private let directory: File
    private let byteCount: Int
    /// Guards `isThere`.
    private let lock = Monitor()
    private var isThere = false

    init(in directory: File, byteCount: Int = Reserve.byteCount) {
        self.directory = directory
        self.byteCount = byteCount
        let file = try? File(Self.fileName, in: directory, O_RDONLY)
        isThere = file.flatMap { try? $0.byteCount() } == byteCount
    }

    /// True if there was a reserve and its space is now free.
    func giveUp() -> Bool {
        lock.locked {
            guard isThere else { return false }
            isThere = false
            directory.remove(Self.fileName)
            return true
        }
    }

    /// Makes the reserve again if as much would be left besides.
    func restore() {
        lock.locked {
            guard !isThere else { return }
            var disk = statvfs()
            guard fstatvfs(directory.descriptor, &disk) == 0,
                UInt64(disk.f_bavail) * UInt64(disk.f_frsize) >= UInt64(2 * byteCount),
                let file = try? File(Self.fileName, in: directory, O_WRONLY | O_CREAT | O_TRUNC)
            else { return }
            // A file system without preallocation has no reserve.
            isThere = fallocate(file.descriptor, 0, 0, off_t(byteCount)) == 0
            if !isThere { directory.remove(Self.fileName) }
        }
    }
}
