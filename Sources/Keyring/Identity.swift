internal import Glibc
internal import Sodium

/// The number of a key-encryption key: from 1, never given twice.
public struct KEKVersion: RawRepresentable, Hashable, Comparable, Sendable, CustomStringConvertible {
    public let rawValue: UInt32
    public init(rawValue: UInt32) { self.rawValue = rawValue }
    public static let first = KEKVersion(rawValue: 1)
    public static func < (left: KEKVersion, right: KEKVersion) -> Bool { left.rawValue < right.rawValue }
    public var description: String { String(rawValue) }
}

/// Names a store for ever: 16 random bytes, bound into everything that is sealed in it.
public struct StoreID: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 16
    private let high: UInt64
    private let low: UInt64

    public static func random() -> StoreID {
        var bytes: (UInt64, UInt64) = (0, 0)
        Swift.withUnsafeMutableBytes(of: &bytes) { Randomness.fill($0) }
        return Swift.withUnsafeBytes(of: bytes) { StoreID($0) }
    }

    /// Reads 16 bytes.
    public init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == Self.byteCount)
        high = UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self))
        low = UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
    }

    public func withUnsafeBytes<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        Swift.withUnsafeBytes(of: (high.bigEndian, low.bigEndian), body)
    }

    /// `8-4-4-4-12` hexadecimal digits.
    public var description: String {
        func hex(_ value: UInt64, _ digits: Int) -> String {
            let text = String(value, radix: 16)
            return String(repeating: "0", count: digits - text.count) + text
        }
        let parts: [(UInt64, Int)] = [
            (high >> 32, 8), (high >> 16 & 0xFFFF, 4), (high & 0xFFFF, 4), (low >> 48, 4), (low & 0xFFFF_FFFF_FFFF, 12),
        ]
        return parts.map { hex($0.0, $0.1) }.joined(separator: "-")
    }
}

/// A moment: seconds and nanoseconds since 1970, UTC.
public struct Timestamp: Hashable, Comparable, Sendable {
    public var seconds: Int64
    /// 0 to 999,999,999.
    public var nanoseconds: UInt32

    public init(seconds: Int64, nanoseconds: UInt32 = 0) {
        self.seconds = seconds
        self.nanoseconds = nanoseconds
    }

    public static func now() -> Timestamp {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        return Timestamp(seconds: Int64(time.tv_sec), nanoseconds: UInt32(time.tv_nsec))
    }

    public static func < (left: Timestamp, right: Timestamp) -> Bool {
        (left.seconds, left.nanoseconds) < (right.seconds, right.nanoseconds)
    }

    /// So many seconds later, or the end of time.
    public func adding(seconds more: Int64) -> Timestamp {
        let (sum, overflows) = seconds.addingReportingOverflow(more)
        return Timestamp(seconds: overflows ? .max : sum, nanoseconds: nanoseconds)
    }

    /// `2026-03-01T12:00:00Z`, with whole seconds (RFC 3339).
    public var rfc3339: String {
        var time = time_t(seconds)
        var parts = tm()
        guard gmtime_r(&time, &parts) != nil else { return "1970-01-01T00:00:00Z" }
        func padded(_ value: Int32, _ digits: Int = 2) -> String {
            let text = String(value)
            return String(repeating: "0", count: max(0, digits - text.count)) + text
        }
        let date = "\(padded(parts.tm_year + 1900, 4))-\(padded(parts.tm_mon + 1))-\(padded(parts.tm_mday))"
        return "\(date)T\(padded(parts.tm_hour)):\(padded(parts.tm_min)):\(padded(parts.tm_sec))Z"
    }
}
