internal import CLinux
internal import Glibc

/// A log's file: appended to, for its owner alone.
final class AuditFile {
    let path: String
    private var descriptor: Int32 = -1
    /// Where the last record ended.
    private var end: Int64 = 0
    /// It was shortened by somebody else.
    private(set) var wasCut = false

    init(_ path: String) { self.path = path }
    deinit { close() }

    var isOpen: Bool { descriptor >= 0 }

    func close() {
        if descriptor >= 0 { Glibc.close(descriptor) }
        descriptor = -1
    }

    /// - Returns: 0, or an error number.
    func open() -> Int32 {
        close()
        Self.makeDirectory(of: path)
        // It does not wait: not for a reader of a pipe, not for a terminal.
        descriptor = Glibc.open(
            path, O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY, 0o600)
        guard descriptor >= 0 else { return errno }
        wasCut = false
        end = max(0, Int64(lseek(descriptor, 0, SEEK_END)))
        return 0
    }

    /// - Returns: false if there is no such file.
    func openForReading() -> Bool {
        close()
        descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
        return isOpen
    }

    private static func makeDirectory(of path: String) {
        guard let slash = path.lastIndex(of: "/"), slash != path.startIndex else { return }
        let directory = String(path[..<slash])
        guard mkdir(directory, 0o700) != 0, errno == ENOENT else { return }
        makeDirectory(of: directory)
        mkdir(directory, 0o700)
    }

    /// All of `lines`, or nothing.
    ///
    /// - Returns: 0, or an error number.
    func append(_ lines: UnsafeRawBufferPointer) -> Int32 {
        guard descriptor >= 0 else { return EBADF }
        var written = 0
        var number: Int32 = 0
        while written < lines.count, number == 0 {
            let count = write(descriptor, lines.baseAddress! + written, lines.count - written)
            if count > 0 {
                written += count
            } else if count == 0 {
                number = EIO
            } else if errno != EINTR {
                number = errno
            }
        }
        if number == 0 {
            end += Int64(lines.count)
            return 0
        }
        // Half a record is none.
        if written > 0 {
            let size = lseek(descriptor, 0, SEEK_END)
            if size >= written { ftruncate(descriptor, size - written) }
        }
        return number
    }

    /// Sees whether somebody has shortened or removed it: now and then, as records would pay for it.
    func lookForCut() {
        guard descriptor >= 0 else { return }
        var found = stat()
        if fstat(descriptor, &found) == 0, found.st_nlink == 0 {
            // What is written there nobody will read. If no new one can be made, that is what keeps records from being taken.
            if open() == 0 { wasCut = true }
            return
        }
        let size = Int64(lseek(descriptor, 0, SEEK_END))
        if size >= 0, size < end { wasCut = true }
        end = max(0, size)
    }

    /// The last bytes, at most so many; from a line's beginning if there are more.
    func tail(_ limit: Int) -> [UInt8] {
        let size = Int64(lseek(descriptor, 0, SEEK_END))
        guard size > 0 else { return [] }
        let start = max(0, size - Int64(limit))
        var bytes = [UInt8](repeating: 0, count: Int(size - start))
        let count = pread(descriptor, &bytes, bytes.count, off_t(start))
        guard count > 0 else { return [] }
        bytes.removeLast(bytes.count - count)
        guard start > 0, let first = bytes.firstIndex(of: UInt8(ascii: "\n")) else { return bytes }
        return Array(bytes[(first + 1)...])
    }

    /// Takes away what is behind the last newline: a server died while it wrote it, and nobody was answered for it.
    func dropHalfLine() {
        // Most often there is none, and somebody waits for the server that looks for it.
        guard let last = tail(1).last, last != UInt8(ascii: "\n") else { return }
        let tail = tail(1 << 20)
        let half = tail.count - (tail.lastIndex(of: UInt8(ascii: "\n")).map { $0 + 1 } ?? 0)
        let size = Int64(lseek(descriptor, 0, SEEK_END))
        if ftruncate(descriptor, off_t(size - Int64(half))) == 0 {
            end = size - Int64(half)
        } else {
            withUnsafeBytes(of: UInt8(ascii: "\n")) { _ = append($0) }
        }
    }

    func acknowledgeCut() { wasCut = false }

    /// The open file, to be brought to disk by whoever need not hold anybody up for it.
    func duplicate() -> Descriptor? { Descriptor(fcntl(descriptor, F_DUPFD_CLOEXEC, 3)) }

    /// Reads it from its beginning, line by line and each without its newline, until `body` says false.
    static func lines(of path: String, _ body: (ArraySlice<UInt8>, _ isWhole: Bool) -> Bool) -> Int32 {
        let descriptor = Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { return errno }
        defer { Glibc.close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = read(descriptor, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count >= 0 else { return errno }
            if count == 0 { break }
            bytes += chunk[..<count]
            var start = 0
            while let end = bytes[start...].firstIndex(of: UInt8(ascii: "\n")) {
                guard body(bytes[start..<end], true) else { return 0 }
                start = end + 1
            }
            bytes.removeFirst(start)
            // No record is that long.
            if bytes.count > 1 << 22 { break }
        }
        if !bytes.isEmpty { _ = body(bytes[...], false) }
        return 0
    }
}

/// The system log, a datagram a record.
final class AuditSyslog {
    private var descriptor: Int32 = -1
    private let path: String

    init(_ path: String = "/dev/log") { self.path = path }
    deinit { if descriptor >= 0 { close(descriptor) } }

    /// - Returns: 0, or the error number of the first record that was not taken.
    func append(_ lines: UnsafeRawBufferPointer) -> Int32 {
        for line in lines.split(separator: UInt8(ascii: "\n")) {
            // auth.notice; the system log adds the time.
            let message = Array("<37>letterlock-audit[\(getpid())]: ".utf8) + line
            var number = send(message)
            // The system log may have been started anew.
            if number != 0, number != EAGAIN, connect() { number = send(message) }
            guard number == 0 else { return number }
        }
        return 0
    }

    private func send(_ message: [UInt8]) -> Int32 {
        guard descriptor >= 0 || connect() else { return ENOTCONN }
        let count = Glibc.send(descriptor, message, message.count, Int32(MSG_DONTWAIT) | Int32(MSG_NOSIGNAL))
        return count == message.count ? 0 : errno
    }

    private func connect() -> Bool {
        if descriptor >= 0 { close(descriptor) }
        descriptor = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue), 0)
        guard descriptor >= 0 else { return false }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: Array(path.utf8.prefix($0.count - 1))) }
        let result = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                Glibc.connect(
                    descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        if result == 0 { return true }
        close(descriptor)
        descriptor = -1
        return false
    }
}
