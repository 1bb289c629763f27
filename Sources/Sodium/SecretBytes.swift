internal import CSodium

/// Locked, guarded, wiped heap memory for passphrases and keys.
///
/// No description, no `==`, no coding. Each costs three pages and 15 µs; many keys are `SecretKey`s.
public struct SecretBytes: ~Copyable, @unchecked Sendable {
    // The memory is this value's alone, and changes only under `mutating`.
    private let memory: UnsafeMutableRawBufferPointer

    /// Zeroed memory.
    ///
    /// - Throws: `.cannotLock` if it cannot be locked, unless `LockedMemory.allowsUnlocked`.
    public init(byteCount: Int) throws(SodiumError) {
        precondition(byteCount >= 0, "a negative size")
        try Sodium.start()
        // Without a byte there would be nothing for free to know it by.
        guard let base = sodium_malloc(max(1, byteCount)) else { throw .outOfMemory }
        do { try LockedMemory.lock(base, max(1, byteCount)) } catch {
            sodium_free(base)
            throw error
        }
        sodium_memzero(base, max(1, byteCount))
        memory = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
    }

    deinit { sodium_free(memory.baseAddress) }

    public var byteCount: Int { memory.count }

    public borrowing func withUnsafeBytes<R, E: Error>(
        _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        try body(UnsafeRawBufferPointer(memory))
    }

    public mutating func withUnsafeMutableBytes<R, E: Error>(
        _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        try body(memory)
    }
}
