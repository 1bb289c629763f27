import Glibc

/// A file of many mebibytes, each with contents of its own.
enum LargeFile {
    static let chunkByteCount = 1 << 20

    static func contents(_ chunk: Int) -> [UInt8] {
        var state = UInt64(chunk) &* 0x9E37_79B9_7F4A_7C15 | 1
        return [UInt8](unsafeUninitializedCapacity: chunkByteCount) { buffer, count in
            let words = UnsafeMutableRawBufferPointer(buffer)
            for offset in stride(from: 0, to: chunkByteCount, by: 8) {
                state ^= state << 13
                state ^= state >> 7
                state ^= state << 17
                words.storeBytes(of: state, toByteOffset: offset, as: UInt64.self)
            }
            count = chunkByteCount
        }
    }

    /// Writes it from its beginning to its end and brings it to disk; MiB a second.
    static func write(_ path: String, byteCount: Int, flags: Int32) throws(Failure) -> Double {
        let chunks = byteCount / chunkByteCount
        let descriptor = try check(open(path, O_WRONLY | O_CLOEXEC | flags, 0o600), path)
        defer { close(descriptor) }
        var elapsed = 0.0
        for chunk in 0..<chunks {
            let bytes = contents(chunk)
            let start = now()
            try check(Glibc.write(descriptor, bytes, bytes.count), path)
            elapsed += now() - start
        }
        let start = now()
        try check(fsync(descriptor), path)
        return Double(chunks) / (elapsed + now() - start)
    }

    /// Reads it from its beginning to its end, comparing every byte; MiB a second without the comparing.
    static func read(_ path: String, byteCount: Int, contents: (Int) -> [UInt8]) throws(Failure) -> Double {
        let chunks = byteCount / chunkByteCount
        let descriptor = try check(open(path, O_RDONLY | O_CLOEXEC), path)
        defer { close(descriptor) }
        var buffer = [UInt8](repeating: 0, count: chunkByteCount)
        var elapsed = 0.0
        for chunk in 0..<chunks {
            var filled = 0
            let start = now()
            while filled < chunkByteCount {
                let count = try check(
                    buffer.withUnsafeMutableBytes {
                        Glibc.read(descriptor, $0.baseAddress! + filled, chunkByteCount - filled)
                    }, path)
                guard count > 0 else { throw Failure("\(path) ends early") }
                filled += count
            }
            elapsed += now() - start
            guard buffer == contents(chunk) else { throw Failure("\(path) reads as something else than was written") }
        }
        return Double(chunks) / elapsed
    }
}
