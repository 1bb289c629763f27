internal import Keyring
internal import Sodium

/// Text that is put together in locked memory, since a token or a key is part of it.
struct SecretText: ~Copyable {
    private var memory: SecretBytes
    private(set) var byteCount = 0

    /// - Parameter limit: All that it will ever hold, without the zero byte at its end.
    init(limit: Int) throws(KeyringError) {
        do { memory = try SecretBytes(byteCount: limit + 1) } catch { throw .cannotLock }
    }

    mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    mutating func append(_ bytes: UnsafeRawBufferPointer) {
        precondition(byteCount + bytes.count < memory.byteCount, "there is no room for the text")
        let place = byteCount
        memory.withUnsafeMutableBytes { memory in
            UnsafeMutableRawBufferPointer(rebasing: memory[place...]).copyMemory(from: bytes)
        }
        byteCount += bytes.count
    }

    mutating func append(base64 bytes: UnsafeRawBufferPointer) {
        precondition(
            byteCount + Base64.characterCount(of: bytes.count) < memory.byteCount, "there is no room for the text")
        let place = byteCount
        memory.withUnsafeMutableBytes { memory in
            Base64.encode(bytes, into: UnsafeMutableRawBufferPointer(rebasing: memory[place...]))
        }
        byteCount += Base64.characterCount(of: bytes.count)
    }

    borrowing func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        let count = byteCount
        return try memory.withUnsafeBytes { bytes throws(E) in
            try body(UnsafeRawBufferPointer(rebasing: bytes[..<count]))
        }
    }

    /// The text with a zero byte behind it, for C; not to be changed.
    borrowing func withCString<R, E: Error>(_ body: (UnsafeMutablePointer<CChar>) throws(E) -> R) throws(E) -> R {
        try memory.withUnsafeBytes { bytes throws(E) in
            try body(UnsafeMutableRawPointer(mutating: bytes.baseAddress!).assumingMemoryBound(to: CChar.self))
        }
    }
}
