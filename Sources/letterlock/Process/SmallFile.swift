import Glibc

/// Small files without secrets in them: control files, /proc, the epoch.
enum SmallFile {
    static func read(_ path: String, limit: Int = 64 << 20) throws(SystemErrorNumber) -> [UInt8] {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemErrorNumber(errno) }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while bytes.count < limit {
            let count = Glibc.read(descriptor, &chunk, chunk.count)
            let number = errno
            if count < 0, number == EINTR { continue }
            guard count >= 0 else { throw SystemErrorNumber(number) }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return bytes
    }

    /// A file that one process at a time has locked: others wait.
    final class Lock {
        private let descriptor: Int32

        /// Nil if there can be none.
        init?(_ path: String) {
            descriptor = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o600)
            guard descriptor >= 0 else { return nil }
            while flock(descriptor, LOCK_EX) != 0, errno == EINTR {}
        }

        deinit { if descriptor >= 0 { close(descriptor) } }
    }

    static func text(_ path: String) -> String? {
        (try? read(path)).map { String(decoding: $0, as: UTF8.self) }
    }

    /// One write(2) of all of `text` into the file that is there.
    static func writeOnce(_ text: String, to path: String) throws(SystemErrorNumber) {
        let descriptor = open(path, O_WRONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw SystemErrorNumber(errno) }
        defer { close(descriptor) }
        var text = text
        let number: Int32 = text.withUTF8 { bytes in
            while true {
                let count = write(descriptor, bytes.baseAddress, bytes.count)
                if count < 0, errno == EINTR { continue }
                return count == bytes.count ? 0 : count < 0 ? errno : EIO
            }
        }
        guard number == 0 else { throw SystemErrorNumber(number) }
    }

    /// Puts `text` in `path`'s place in one step that survives power loss.
    static func replace(_ path: String, with text: String, mode: mode_t = 0o600) throws(SystemErrorNumber) {
        let temporary = "\(path).\(getpid())"
        let descriptor = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { throw SystemErrorNumber(errno) }
        let bytes = Array(text.utf8)
        var number: Int32 = 0
        if write(descriptor, bytes, bytes.count) != bytes.count || fchmod(descriptor, mode) != 0 {
            number = errno
        } else if fsync(descriptor) != 0 {
            number = errno
        }
        close(descriptor)
        if number == 0, rename(temporary, path) != 0 { number = errno }
        guard number == 0 else {
            unlink(temporary)
            throw SystemErrorNumber(number)
        }
        let directory = open(
            String(path.dropLast(Paths.lastComponent(path).count)), O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard directory >= 0 else { return }
        fsync(directory)
        close(directory)
    }
}
