internal import Glibc

/// Zeroed heap memory for the plaintext of one request: not locked, wiped at the end.
public struct ScratchBuffer: ~Copyable, @unchecked Sendable {
    // The memory is this value's alone.
    public let bytes: UnsafeMutableRawBufferPointer

    public init(byteCount: Int) {
        precondition(byteCount >= 0, "a negative size")
        guard let base = calloc(max(1, byteCount), 1) else { preconditionFailure("out of memory") }
        bytes = UnsafeMutableRawBufferPointer(start: base, count: byteCount)
    }

    deinit {
        Memory.wipe(bytes)
        free(bytes.baseAddress)
    }

    public var byteCount: Int { bytes.count }
}

/// Bytes for as long as `body` runs, on the stack if they are few.
@inlinable
public func withTemporaryBytes<R>(_ byteCount: Int, _ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
    // A size that the compiler knows: what it does not know comes from the heap.
    guard byteCount > 256 else {
        return withUnsafeTemporaryAllocation(byteCount: 256, alignment: 8) { bytes in
            body(UnsafeMutableRawBufferPointer(rebasing: bytes[..<byteCount]))
        }
    }
    return withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { body($0) }
}
