/// Names a record: what it is, whose it is, and which of the owner's.
///
/// Its 25 bytes are kind, owner, high and low, big-endian, so that keys sort as their bytes do.
public struct RecordKey: Hashable, Comparable, Sendable {
    public var kind: UInt8
    public var owner: UInt64
    public var high: UInt64
    public var low: UInt64

    public static let byteCount = 25

    public init(kind: UInt8, owner: UInt64, high: UInt64 = 0, low: UInt64 = 0) {
        self.kind = kind
        self.owner = owner
        self.high = high
        self.low = low
    }

    /// Reads a key from exactly `byteCount` bytes; nil if there are more or fewer.
    public init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        kind = bytes[0]
        owner = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 1, as: UInt64.self))
        high = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 9, as: UInt64.self))
        low = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 17, as: UInt64.self))
    }

    /// Writes the key's `byteCount` bytes.
    public func encode(into bytes: UnsafeMutableRawBufferPointer) {
        precondition(bytes.count >= Self.byteCount)
        bytes[0] = kind
        bytes.storeBytes(of: owner.bigEndian, toByteOffset: 1, as: UInt64.self)
        bytes.storeBytes(of: high.bigEndian, toByteOffset: 9, as: UInt64.self)
        bytes.storeBytes(of: low.bigEndian, toByteOffset: 17, as: UInt64.self)
    }

    @inlinable
    public static func < (left: RecordKey, right: RecordKey) -> Bool {
        if left.kind != right.kind { return left.kind < right.kind }
        if left.owner != right.owner { return left.owner < right.owner }
        if left.high != right.high { return left.high < right.high }
        return left.low < right.low
    }
}
