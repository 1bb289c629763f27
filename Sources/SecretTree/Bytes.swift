internal import Keyring

/// Little-endian numbers at fixed places of a record, as the format page lays them out.
extension UnsafeRawBufferPointer {
    func number<T: FixedWidthInteger>(_ type: T.Type, at offset: Int) -> T {
        T(littleEndian: loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    func timestamp(at offset: Int) -> Timestamp {
        Timestamp(seconds: number(Int64.self, at: offset), nanoseconds: number(UInt32.self, at: offset + 8))
    }

    func part(_ offset: Int, _ count: Int) -> UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(rebasing: self[offset..<offset + count])
    }
}

extension UnsafeMutableRawBufferPointer {
    func put<T: FixedWidthInteger>(_ value: T, at offset: Int) {
        storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    func put(_ value: Timestamp, at offset: Int) {
        put(value.seconds, at: offset)
        put(value.nanoseconds, at: offset + 8)
    }

    func put(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        if bytes.count > 0 { part(offset, bytes.count).copyMemory(from: bytes) }
    }

    func zero(from offset: Int, to end: Int) {
        if end > offset { part(offset, end - offset).initializeMemory(as: UInt8.self, repeating: 0) }
    }

    func part(_ offset: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[offset..<offset + count])
    }

    var readOnly: UnsafeRawBufferPointer { UnsafeRawBufferPointer(self) }
}

/// `value` rounded up to a whole number of steps.
func rounded(_ value: Int, upTo step: Int) -> Int { (value + step - 1) / step * step }
