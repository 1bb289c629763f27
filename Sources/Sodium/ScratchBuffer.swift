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
