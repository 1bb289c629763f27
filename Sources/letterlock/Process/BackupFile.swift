import Glibc
import Sodium

/// A backup on its way to its place: written beside it, brought to disk, read again, and only then given its name.
final class BackupFile {
    private let path: String
    private let temporary: String
    private let directory: Int32
    let descriptor: Int32
    /// Of all that was written, in pieces of one size: each hash goes over the one before it and the next piece.
    private var sum = [UInt8](repeating: 0, count: BackupFile.sumByteCount)
    private(set) var byteCount = 0
    private var isDone = false

    private static let sumByteCount = 32
    static let pieceByteCount = 128 * 1024

    /// - Parameter path: What is there is replaced when the backup is complete.
    init(_ path: String) throws(Failure) {
        let name = Paths.lastComponent(path)
        var status = stat()
        let isFile = stat(path, &status) != 0 ? errno == ENOENT : status.st_mode & S_IFMT == S_IFREG
        guard !name.isEmpty, !path.hasSuffix("/"), isFile else {
            throw Failure("\(path) is no place for a file", hint: "name a file that is new or to be replaced")
        }
        let parent = String(path.dropLast(name.count))
        let opened = open(parent.isEmpty ? "." : parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard opened >= 0 else { throw Failure("\(path): its directory", errno: errno) }
        let temporary = ".\(name).\(getpid())"
        let file = openat(opened, temporary, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard file >= 0 else {
            let number = errno
            close(opened)
            throw Failure("cannot make \(path)", errno: number)
        }
        self.path = path
        self.temporary = temporary
        directory = opened
        descriptor = file
    }

    deinit {
        if !isDone { unlinkat(directory, temporary, 0) }
        close(descriptor)
        close(directory)
    }

    /// Writes one piece: `pieceByteCount`, or what is left at the end.
    func write(_ piece: UnsafeRawBufferPointer) throws(Failure) {
        var done = 0
        while done < piece.count {
            let count = Glibc.write(descriptor, piece.baseAddress! + done, piece.count - done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw failed(errno) }
            done += count
        }
        byteCount += piece.count
        Self.add(piece, to: &sum)
    }

    private func failed(_ number: Int32) -> Failure {
        number == ENOSPC || number == EDQUOT
            ? Failure("the disk of \(path) is full", hint: "there is no new backup; one that was there is kept")
            : Failure("cannot write \(path)", errno: number)
    }

    /// Everything written survives the loss of power and is read again as it was written.
    func verify() throws(Failure) {
        guard fsync(descriptor) == 0 else { throw failed(errno) }
        // So that it is read from the disk, and not from where it was written to.
        _ = posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED)
        try rewind()
        var found = [UInt8](repeating: 0, count: Self.sumByteCount)
        var count = 0
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.pieceByteCount, alignment: 16)
        defer { buffer.deallocate() }
        while count < byteCount {
            let piece = UnsafeMutableRawBufferPointer(rebasing: buffer[..<min(buffer.count, byteCount - count)])
            try Self.fill(piece, from: descriptor, path)
            Self.add(UnsafeRawBufferPointer(piece), to: &found)
            count += piece.count
        }
        guard found == sum else {
            throw Failure("\(path) does not read as it was written", hint: "is its disk failing?", code: .integrity)
        }
        try rewind()
    }

    private func rewind() throws(Failure) {
        guard lseek(descriptor, 0, SEEK_SET) == 0 else { throw Failure("cannot read \(path)", errno: errno) }
    }

    private static func fill(_ piece: UnsafeMutableRawBufferPointer, from descriptor: Int32, _ path: String)
        throws(Failure)
    {
        var done = 0
        while done < piece.count {
            let count = read(descriptor, piece.baseAddress! + done, piece.count - done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Failure("cannot read \(path)", errno: count < 0 ? errno : EIO) }
            done += count
        }
    }

    private static func add(_ piece: UnsafeRawBufferPointer, to sum: inout [UInt8]) {
        let before = sum + piece
        before.withUnsafeBytes { bytes in sum.withUnsafeMutableBytes { Checksum.blake2b(bytes, into: $0) } }
    }

    /// Gives it its name.
    func finish() throws(Failure) {
        guard renameat(directory, temporary, directory, Paths.lastComponent(path)) == 0 else { throw failed(errno) }
        isDone = true
        guard fsync(directory) == 0 else { throw failed(errno) }
    }
}
