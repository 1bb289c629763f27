/// Locked, guarded, wiped memory for passphrases and keys.
///
/// No description, no `==`, no coding. Each costs three pages and some 15 µs; many keys are `SecretKey`s.
public struct SecretBytes: ~Copyable, @unchecked Sendable {
    // The memory is this value's alone, and changes only under `mutating`.
    private let memory: UnsafeMutableRawBufferPointer

    /// Zeroed memory.
    ///
    /// - Throws: `.cannotLock` if it cannot be locked, unless `LockedMemory.allowsUnlocked`.
    public init(byteCount: Int) throws(SodiumError) {
        precondition(byteCount >= 0, "a negative size")
        try Sodium.start()
        memory = UnsafeMutableRawBufferPointer(
            start: try LockedMemory.make(pages: LockedMemory.pages(for: byteCount)), count: byteCount)
    }

    deinit {
        if let start = memory.baseAddress { LockedMemory.remove(start, pages: LockedMemory.pages(for: memory.count)) }
    }

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
