internal import CSodium

/// Bytes that are keys or plaintext, and what may be done with them.
public enum Memory {
    /// Zeroes bytes in a way that no compiler takes out.
    public static func wipe(_ bytes: UnsafeMutableRawBufferPointer) {
        if let base = bytes.baseAddress { sodium_memzero(base, bytes.count) }
    }

    /// Compares in constant time; false if the lengths differ.
    public static func equal(_ one: UnsafeRawBufferPointer, _ other: UnsafeRawBufferPointer) -> Bool {
        guard one.count == other.count else { return false }
        guard let left = one.baseAddress, let right = other.baseAddress else { return true }
        return sodium_memcmp(left, right, one.count) == 0
    }
}

/// Keys and passphrases: locked, guarded by inaccessible pages, left out of core dumps, wiped at the end.
///
/// It has no description, no equality and no coding, so that it cannot get out by accident.
public struct SecretBytes: ~Copyable, @unchecked Sendable {
    private let memory: UnsafeMutableRawBufferPointer

    /// Zeroed bytes.
    public init(byteCount: Int) throws(SodiumError) {
        precondition(byteCount >= 0)
        guard let base = sodium_malloc(byteCount) else { throw .outOfMemory }
        // sodium_malloc succeeds where locking fails: asked again, the kernel says so.
        do { try LockedMemory.lock(base, max(byteCount, 1)) } catch {
            sodium_free(base)
            throw error
        }
        memory = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
        sodium_memzero(base, byteCount)
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

/// Memory for one request's plaintext: not locked, as there is too much of it, but wiped at the end.
public struct ScratchBuffer: ~Copyable, @unchecked Sendable {
    public let bytes: UnsafeMutableRawBufferPointer

    /// The bytes are not set to anything.
    public init(byteCount: Int) {
        bytes = .allocate(byteCount: byteCount, alignment: 16)
    }

    deinit {
        Memory.wipe(bytes)
        bytes.deallocate()
    }

    public var byteCount: Int { bytes.count }
}

/// Runs `body` with 32 bytes for a key that lives for one operation, on the stack, wiped afterwards.
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
