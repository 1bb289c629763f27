internal import Glibc

/// The lock file: who has the store open, one writer or several readers. The lock is the kernel's and ends with the
/// process; the text in the file is for people.
final class StoreLock: Sendable {
    static let fileName = "lock"
    // <fcntl.h>, F_OFD_GETLK and F_OFD_SETLK: locks of the open file, not of the process.
    private static let getLock: Int32 = 36
    private static let setLock: Int32 = 37

    private let file: File
    private let isExclusive: Bool

    /// - Parameter inherited: The lock file as another process has it open and locked, whose lock this one shares.
    init(in directory: File, exclusive: Bool, inherited: Int32? = nil) throws(StorageError) {
        if let inherited {
            file = try File(inherited: inherited, Self.fileName)
        } else {
            file = try File(Self.fileName, in: directory, exclusive ? O_RDWR : O_RDONLY)
        }
        isExclusive = exclusive
        // Whoever reads beside the one that has the lock must not make a lesser one of it.
        guard exclusive || inherited == nil else { return }
        var lock = flock()
        lock.l_type = Int16(exclusive ? F_WRLCK : F_RDLCK)
        lock.l_whence = Int16(SEEK_SET)
        guard fcntl(file.descriptor, Self.setLock, &lock) == 0 else {
            let number = errno
            guard number == EAGAIN || number == EACCES else {
                throw StorageError(number, "cannot lock the store")
            }
            throw .busy(holder: Self.text(file))
        }
    }

    /// Says after the process id what it does with the store.
    func describe(_ purpose: String) throws(StorageError) {
        guard isExclusive else { return }
        var text = Array("pid \(getpid())".utf8)
        if !purpose.isEmpty { text += Array(" \(purpose)".utf8) }
        try file.truncate(to: 0)
        let result = text.withUnsafeBytes { bytes in
            Result { () throws(StorageError) in try file.write(bytes, at: 0) }
        }
        try result.get()
    }

    /// The open lock file: who has it has the lock.
    var descriptor: Int32 { file.descriptor }

    /// Gives the lock up; the text goes with it.
    func release() {
        if isExclusive { try? file.truncate(to: 0) }
        var lock = flock()
        lock.l_type = Int16(F_UNLCK)
        lock.l_whence = Int16(SEEK_SET)
        _ = fcntl(file.descriptor, Self.setLock, &lock)
    }

    /// What the holder says of itself; nil if nobody holds the store.
    static func holder(of directory: String) -> String? {
        guard let directory = try? File(directory: directory),
            let file = try? File(fileName, in: directory, O_RDONLY)
        else { return nil }
        var lock = flock()
        lock.l_type = Int16(F_WRLCK)
        lock.l_whence = Int16(SEEK_SET)
        guard fcntl(file.descriptor, getLock, &lock) == 0, lock.l_type != Int16(F_UNLCK) else { return nil }
        return text(file)
    }

    private static func text(_ file: File) -> String {
        withUnsafeTemporaryAllocation(byteCount: 4352, alignment: 8) { bytes in
            let count = (try? file.read(into: bytes, at: 0)) ?? 0
            guard count > 0 else { return "another process" }
            return String(decoding: bytes[..<count], as: UTF8.self)
        }
    }
}
