internal import CSodium
internal import Synchronization

/// The operating system's random numbers.
public enum Randomness {
    public static func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress, bytes.count > 0 else { return }
        randombytes_buf(base, bytes.count)
    }

    /// Fills 24 bytes for a nonce, out of a supply: a system call for each would cost more than the sealing of a
    /// small record. Nonces are no secrets; the supply is for nothing else.
    public static func nonce(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count == Seal.nonceByteCount)
        supply.withLock { $0.take(into: bytes) }
    }

    private static let supply = Mutex(NonceSupply())
}

/// Random bytes, each given out once.
private struct NonceSupply: ~Copyable, @unchecked Sendable {
    private static let byteCount = 170 * Seal.nonceByteCount
    // Letterlock never goes on in a forked child, which would share this: it spawns.
    private var bytes: UnsafeMutableRawBufferPointer?
    private var used = NonceSupply.byteCount

    mutating func take(into target: UnsafeMutableRawBufferPointer) {
        if used == Self.byteCount || bytes == nil { refill() }
        guard let bytes else { return Randomness.fill(target) }
        let next = UnsafeMutableRawBufferPointer(rebasing: bytes[used..<used + target.count])
        target.copyMemory(from: UnsafeRawBufferPointer(next))
        Memory.wipe(next)
        used += target.count
    }

    private mutating func refill() {
        if bytes == nil { bytes = .allocate(byteCount: Self.byteCount, alignment: 16) }
        if let bytes { Randomness.fill(bytes) }
        used = 0
    }
}
