internal import Glibc
package import Sodium

/// Reading small secret files without a copy in ordinary memory.
package enum SecretFile {
    /// Reads a file whole into locked memory.
    ///
    /// - Parameter forbiddenMode: Permissions that a key file must not have, and be a regular file; nil for a file that
    ///   may be a pipe, too.
    package static func read(_ path: String, limit: Int, forbiddenMode: UInt32?) throws(KeyringError) -> SecretBytes {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (forbiddenMode == nil ? 0 : O_NONBLOCK))
        guard descriptor >= 0 else { throw .io(path: path, errno: errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .io(path: path, errno: errno) }
        let type = status.st_mode & S_IFMT
        let mode = UInt32(status.st_mode & 0o7777)
        if let forbiddenMode {
            guard type == S_IFREG else { throw .malformedKeyFile(path: path) }
            guard mode & forbiddenMode == 0 else { throw .insecureFile(path: path, mode: mode) }
        } else if type == S_IFDIR {
            throw .io(path: path, errno: EISDIR)
        }
        return try read(descriptor, path, limit: limit)
    }

    /// Reads until the end.
    ///
    /// - Throws: `.malformedKeyFile` if there is more than `limit` bytes.
    static func read(_ descriptor: Int32, _ path: String, limit: Int) throws(KeyringError) -> SecretBytes {
        do {
            var buffer = try SecretBytes(byteCount: limit + 1)
            var count = 0
            while count <= limit {
                let got = buffer.withUnsafeMutableBytes {
                    Glibc.read(descriptor, $0.baseAddress! + count, limit + 1 - count)
                }
                if got < 0, errno == EINTR { continue }
                guard got >= 0 else { throw KeyringError.io(path: path, errno: errno) }
                if got == 0 { break }
                count += got
            }
            guard count <= limit else { throw KeyringError.malformedKeyFile(path: path) }
            var bytes = try SecretBytes(byteCount: count)
            buffer.withUnsafeBytes { source in
                bytes.withUnsafeMutableBytes {
                    $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[0..<count]))
                }
            }
            return bytes
        } catch let error as KeyringError {
            throw error
        } catch {
            throw .cannotLock
        }
    }

    /// How many bytes there are before one newline at the end.
    package static func lineByteCount(_ text: UnsafeRawBufferPointer) -> Int {
        text.last == UInt8(ascii: "\n") ? text.count - 1 : text.count
    }
}
