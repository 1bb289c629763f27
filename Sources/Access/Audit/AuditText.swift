internal import Glibc

/// The bytes of records, written without a detour over strings: there are two of them an opening.
struct AuditText {
    var bytes: [UInt8] = []
    /// The time up to the second as it was written last, and which second that was.
    private var writtenSecond: (second: Int, text: [UInt8]) = (.min, [])

    init() {}

    /// With room for so many bytes, so that it need not be moved while it grows.
    init(capacity: Int) { bytes.reserveCapacity(capacity) }

    mutating func add(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func add(number: some BinaryInteger) {
        guard let small = UInt64(exactly: number) else { return bytes.append(contentsOf: String(number).utf8) }
        add(digits: small, base: 10)
    }

    mutating func add(digits number: UInt64, base: UInt64) {
        withUnsafeTemporaryAllocation(byteCount: 20, alignment: 1) { digits in
            var (rest, place) = (number, digits.count)
            repeat {
                place -= 1
                digits[place] = Self.digit(UInt8(truncatingIfNeeded: rest % base))
                rest /= base
            } while rest > 0
            bytes.append(contentsOf: UnsafeRawBufferPointer(rebasing: digits[place...]))
        }
    }

    /// `,"name":"value"`
    mutating func add(_ name: StaticString, _ value: String) { add(name, bytes: value.utf8) }

    mutating func add(_ name: StaticString, number: some BinaryInteger) {
        begin(name)
        add(number: number)
    }

    /// `,"name":`
    mutating func begin(_ name: StaticString) {
        add(",\"")
        add(name)
        add("\":")
    }

    mutating func add(_ name: StaticString, bytes value: some Collection<UInt8>) {
        begin(name)
        bytes.append(UInt8(ascii: "\""))
        defer { bytes.append(UInt8(ascii: "\"")) }
        let isDone = value.withContiguousStorageIfAvailable { value in
            guard value.allSatisfy(Self.isPlain) else { return false }
            bytes.append(contentsOf: value)
            return true
        }
        guard isDone != true else { return }
        for byte in value {
            switch byte {
            case UInt8(ascii: "\""), UInt8(ascii: "\\"): bytes += [UInt8(ascii: "\\"), byte]
            case 0..<0x20, 0x7F:
                add("\\u00")
                bytes += [Self.digits[Int(byte >> 4)], Self.digits[Int(byte & 15)]]
            default: bytes.append(byte)
            }
        }
    }

    @inline(__always)
    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte != 0x7F && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    /// `,"name":"…"` in hexadecimal.
    mutating func add(_ name: StaticString, hex value: [UInt8]) {
        begin(name)
        bytes.append(UInt8(ascii: "\""))
        withUnsafeTemporaryAllocation(byteCount: 2 * value.count, alignment: 1) { digits in
            for (index, byte) in value.enumerated() {
                digits[2 * index] = Self.digit(byte >> 4)
                digits[2 * index + 1] = Self.digit(byte & 15)
            }
            bytes.append(contentsOf: UnsafeRawBufferPointer(digits))
        }
        bytes.append(UInt8(ascii: "\""))
    }

    /// A path; one that is no UTF-8 is told in hexadecimal besides.
    mutating func add(_ name: StaticString, path: [UInt8]) {
        let isASCII = path.allSatisfy { $0 < 0x80 }
        if isASCII || String(validating: path, as: UTF8.self) != nil { return add(name, bytes: path) }
        add(name, String(decoding: path, as: UTF8.self))
        add("path_bytes", bytes: Self.hex(path))
    }

    private static let digits = Array("0123456789abcdef".utf8)

    private static func digit(_ value: UInt8) -> UInt8 {
        value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: "a") + value - 10
    }

    static func hex(_ bytes: some Collection<UInt8>) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: 2 * bytes.count) { text, count in
            for byte in bytes {
                text[count] = digit(byte >> 4)
                text[count + 1] = digit(byte & 15)
                count += 2
            }
        }
    }

    /// Nil for what is no hexadecimal number of so many bytes, in lower case.
    static func bytes(hex: some Collection<UInt8>, count: Int) -> [UInt8]? {
        guard hex.count == 2 * count else { return nil }
        var isHex = true
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { bytes, filled in
            var isHigh = true
            for digit in hex {
                let value: UInt8
                switch digit {
                case UInt8(ascii: "0")...UInt8(ascii: "9"): value = digit - UInt8(ascii: "0")
                case UInt8(ascii: "a")...UInt8(ascii: "f"): value = digit - UInt8(ascii: "a") + 10
                default:
                    isHex = false
                    return
                }
                if isHigh {
                    bytes[filled] = value << 4
                } else {
                    bytes[filled] |= value
                    filled += 1
                }
                isHigh.toggle()
            }
        }
        return isHex ? bytes : nil
    }

    /// `"time":"2026-03-01T12:00:00.123456Z"`: what every record begins with.
    mutating func addTime() {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        if writtenSecond.second == time.tv_sec {
            bytes.append(contentsOf: writtenSecond.text)
        } else {
            let start = bytes.count
            addSecond(time.tv_sec)
            writtenSecond = (time.tv_sec, Array(bytes[start...]))
        }
        add(padded: time.tv_nsec / 1000, 6)
        add("Z\"")
    }

    private mutating func addSecond(_ second: Int) {
        var second = second
        var parts = tm()
        gmtime_r(&second, &parts)
        add("\"time\":\"")
        add(padded: Int(parts.tm_year) + 1900, 4)
        add("-")
        add(padded: Int(parts.tm_mon) + 1, 2)
        add("-")
        add(padded: Int(parts.tm_mday), 2)
        add("T")
        add(padded: Int(parts.tm_hour), 2)
        add(":")
        add(padded: Int(parts.tm_min), 2)
        add(":")
        add(padded: Int(parts.tm_sec), 2)
        add(".")
    }

    private mutating func add(padded value: Int, _ count: Int) {
        var power = 1
        for _ in 1..<count { power *= 10 }
        while power > 0 {
            bytes.append(UInt8(ascii: "0") + UInt8(value / power % 10))
            power /= 10
        }
    }
}
