/// Writes little-endian numbers and counted strings, as the format page lays them out. For what is not secret.
struct ByteWriter {
    private(set) var bytes: [UInt8] = []

    mutating func put<T: FixedWidthInteger>(_ value: T) {
        withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
    }

    mutating func put(_ time: Timestamp) {
        put(time.seconds)
        put(time.nanoseconds)
    }

    mutating func put(_ other: [UInt8]) { bytes += other }
    mutating func put(_ other: UnsafeRawBufferPointer) { bytes.append(contentsOf: other) }

    /// A length of two bytes, and the bytes.
    mutating func putCounted(_ other: [UInt8]) {
        put(UInt16(other.count))
        bytes += other
    }
}

/// Reads what may be anything: every answer is nil once the bytes have ended.
struct ByteReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var place = 0

    init(_ bytes: UnsafeRawBufferPointer) { self.bytes = bytes }

    var remaining: Int { bytes.count - place }

    mutating func number<T: FixedWidthInteger>(_ type: T.Type) -> T? {
        guard let part = take(MemoryLayout<T>.size) else { return nil }
        return T(littleEndian: part.loadUnaligned(as: T.self))
    }

    mutating func timestamp() -> Timestamp? {
        guard let seconds = number(Int64.self), let nanoseconds = number(UInt32.self), nanoseconds < 1_000_000_000
        else { return nil }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    mutating func take(_ count: Int) -> UnsafeRawBufferPointer? {
        guard count >= 0, count <= remaining else { return nil }
        defer { place += count }
        return UnsafeRawBufferPointer(rebasing: bytes[place..<place + count])
    }

    mutating func counted(limit: Int) -> UnsafeRawBufferPointer? {
        guard let count = number(UInt16.self), Int(count) <= limit else { return nil }
        return take(Int(count))
    }
}
