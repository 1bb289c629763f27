import Glibc

/// System calls on files, as the workloads make them.
enum File {
    static func contents(_ path: String) throws(Failure) -> [UInt8] {
        let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), path)
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65536)
        while true {
            let count = try check(read(descriptor, &chunk, chunk.count), path)
            if count == 0 { return bytes }
            bytes += chunk[..<count]
        }
    }

    /// open, write, close.
    static func write(_ path: String, _ bytes: [UInt8], flags: Int32 = O_WRONLY | O_CREAT | O_TRUNC) throws(Failure) {
        let descriptor = try check(open(path, flags | O_CLOEXEC, 0o600), path)
        let written = Glibc.write(descriptor, bytes, bytes.count)
        let closed = close(descriptor)
        guard written == bytes.count, closed == 0 else { throw .call("write \(path)") }
    }

    /// open, one read, close; every byte is compared.
    static func readAndCompare(_ path: String, _ expected: [UInt8], _ buffer: inout [UInt8]) throws(Failure) {
        let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), path)
        let count = read(descriptor, &buffer, buffer.count)
        close(descriptor)
        guard count == expected.count, memcmp(buffer, expected, count) == 0 else {
            throw Failure("\(path) reads as something else than was written")
        }
    }

    static func removeTree(_ path: String) {
        guard path.hasPrefix("/") else { return }
        _ = try? Process(["rm", "-rf", "--one-file-system", path], log: "/dev/null").wait()
    }

    static func device(_ path: String) -> dev_t? {
        var attributes = stat()
        return stat(path, &attributes) == 0 ? attributes.st_dev : nil
    }
}
