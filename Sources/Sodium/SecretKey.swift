/// A 32-byte key in locked memory, shared by reference; wiped when the last reference is gone.
///
/// A forked child does not have it: keys are unlocked after forking.
public final class SecretKey: @unchecked Sendable {
    // The slot is written in init and `wipe` alone.
    private let slot: UnsafeMutableRawBufferPointer

    public static let byteCount = KeySlots.byteCount

    private init(_ fill: (UnsafeMutableRawBufferPointer) -> Void) throws(SodiumError) {
        try Sodium.start()
        slot = try KeySlots.take()
        fill(slot)
    }

    deinit { KeySlots.giveBack(slot) }

    public static func random() throws(SodiumError) -> SecretKey {
        try SecretKey { Randomness.fill($0) }
    }

    /// - Precondition: `bytes` are 32.
    public convenience init(copying bytes: UnsafeRawBufferPointer) throws(SodiumError) {
        precondition(bytes.count == SecretKey.byteCount, "a key has 32 bytes")
        try self.init { $0.copyMemory(from: bytes) }
    }

    /// A key that `fill` writes straight into locked memory.
    static func make(_ fill: (UnsafeMutableRawBufferPointer) -> Void) throws(SodiumError) -> SecretKey {
        try SecretKey(fill)
    }

    public func withKey<R, E: Error>(_ body: (borrowing BorrowedKey) throws(E) -> R) throws(E) -> R {
        try withExtendedLifetime(self) { () throws(E) -> R in
            try body(BorrowedKey(UnsafeRawBufferPointer(slot)))
        }
    }

    /// Zeroes it for good, whoever still holds it: afterwards it opens nothing that was sealed.
    ///
    /// Only when no other thread is using it.
    public func wipe() { Memory.wipe(slot) }
}

/// 32 bytes of a key, valid in the closure that they were handed to.
public struct BorrowedKey: ~Copyable {
    public let bytes: UnsafeRawBufferPointer

    /// - Precondition: `bytes` are 32.
    public init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == SecretKey.byteCount, "a key has 32 bytes")
        self.bytes = bytes
    }
}

/// 32 zeroed bytes on the stack, wiped after `body`: a DEK for one operation.
public func withScratchKey<R, E: Error>(
    _ body: (UnsafeMutableRawBufferPointer) throws(E) -> R
) throws(E) -> R {
    var key: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0)
    let result = withUnsafeMutableBytes(of: &key) { bytes in
        defer { Memory.wipe(bytes) }
        return Result { () throws(E) -> R in try body(bytes) }
    }
    return try result.get()
}
