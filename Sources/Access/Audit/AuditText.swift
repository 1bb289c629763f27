internal import Glibc

/// The bytes of records, in memory of its own that is used again: there are two of them an opening.
struct AuditText: ~Copyable {
    private var base: UnsafeMutablePointer<UInt8>
    private var capacity: Int
    private(set) var count = 0
    /// The time up to the second as it was written last, and which second that was.
    private var writtenSecond: (second: Int, text: [UInt8]) = (.min, [])
    private var lastTime = 0..<0

    /// With room for so many bytes, so that it need not be moved while it grows.
    init(capacity: Int = 640) {
        self.capacity = max(1, capacity)
        base = .allocate(capacity: self.capacity)
    }

    deinit { base.deallocate() }

    /// A copy.
    var bytes: [UInt8] { Array(UnsafeBufferPointer(start: base, count: count)) }

    /// Its bytes from `start` on, as long as `body` runs.
    func withBytes<R, E: Error>(from start: Int = 0, _ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try body(UnsafeRawBufferPointer(start: base + start, count: count - start))
    }

    mutating func removeAll() { count = 0 }

    /// Room for so many bytes more.
    @inline(__always)
    private mutating func reserve(_ byteCount: Int) {
        if count + byteCount > capacity { grow(byteCount) }
    }

    @inline(never)
    private mutating func grow(_ byteCount: Int) {
        capacity = max(2 * capacity, count + byteCount)
        let larger = UnsafeMutablePointer<UInt8>.allocate(capacity: capacity)
        larger.update(from: base, count: count)
        base.deallocate()
        base = larger
    }

    @inline(__always)
    mutating func append(_ byte: UInt8) {
        reserve(1)
        base[count] = byte
        count += 1
    }

    @inline(__always)
    mutating func append(_ bytes: UnsafeBufferPointer<UInt8>) {
        guard let start = bytes.baseAddress else { return }
        reserve(bytes.count)
        (base + count).update(from: start, count: bytes.count)
        count += bytes.count
    }

    mutating func append(_ bytes: [UInt8]) { bytes.withUnsafeBufferPointer { append($0) } }

    /// What it says already at a place, once more.
    mutating func `repeat`(_ place: Range<Int>) {
        reserve(place.count)
        (base + count).update(from: base + place.lowerBound, count: place.count)
        count += place.count
    }

    // Where it is known what is added, that is a few stores.
    @inline(__always)
    mutating func add(_ text: StaticString) {
        append(UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func add(number: some BinaryInteger) {
        guard let small = UInt64(exactly: number) else { return append(Array(String(number).utf8)) }
        add(digits: small, base: 10)
    }

    mutating func add(digits number: UInt64, base radix: UInt64) {
        var (length, rest) = (1, number / radix)
        while rest > 0 {
            length += 1
            rest /= radix
        }
        reserve(length)
        rest = number
        for place in stride(from: count + length - 1, through: count, by: -1) {
            base[place] = Self.digit(UInt8(truncatingIfNeeded: rest % radix))
            rest /= radix
        }
        count += length
    }

    /// `,"name":"value"`
    mutating func add(_ name: StaticString, _ value: String) { add(name, bytes: value.utf8) }

    /// What every record of its kind has, known or not.
    mutating func add(_ name: StaticString, orNull value: String?) {
        if let value { return add(name, value) }
        begin(name)
        add("null")
    }

    mutating func add(_ name: StaticString, number: some BinaryInteger) {
        begin(name)
        add(number: number)
    }

    /// `,"name":`
    @inline(__always)
    mutating func begin(_ name: StaticString) {
        add(",\"")
        add(name)
        add("\":")
    }

    mutating func add(_ name: StaticString, bytes value: some Collection<UInt8>) {
        begin(name)
        append(UInt8(ascii: "\""))
        if value.withContiguousStorageIfAvailable({ addEscaped($0) }) == nil {
            Array(value).withUnsafeBufferPointer { addEscaped($0) }
        }
        append(UInt8(ascii: "\""))
    }

    private mutating func addEscaped(_ value: UnsafeBufferPointer<UInt8>) {
        if value.allSatisfy(Self.isPlain) { return append(value) }
        for byte in value {
            if Self.isPlain(byte) { append(byte) } else { addEscape(of: byte) }
        }
    }

    @inline(__always)
    private static func isPlain(_ byte: UInt8) -> Bool {
        byte >= 0x20 && byte != 0x7F && byte != UInt8(ascii: "\"") && byte != UInt8(ascii: "\\")
    }

    @inline(never)
    private mutating func addEscape(of byte: UInt8) {
        guard byte < 0x20 || byte == 0x7F else {
            append(UInt8(ascii: "\\"))
            return append(byte)
        }
        add("\\u00")
        append(Self.digit(byte >> 4))
        append(Self.digit(byte & 15))
    }

    /// `,"name":"…"` in hexadecimal.
    mutating func add(_ name: StaticString, hex value: some Collection<UInt8>) { add(name, bytes: Self.hex(value)) }

    /// `,"name":"…"` in hexadecimal.
    mutating func add(_ name: StaticString, hash: AuditHash) {
        begin(name)
        reserve(2 * AuditHash.scalarCount + 2)
        append(UInt8(ascii: "\""))
        withUnsafeBytes(of: hash) { bytes in
            var place = base + count
            for byte in bytes {
                place[0] = Self.digit(byte >> 4)
                place[1] = Self.digit(byte & 15)
                place += 2
            }
        }
        count += 2 * AuditHash.scalarCount
        append(UInt8(ascii: "\""))
    }

    /// A path; one that is no UTF-8 is told in hexadecimal besides.
    mutating func add(_ name: StaticString, path: [UInt8]) {
        let isASCII = path.allSatisfy { $0 < 0x80 }
        if isASCII || String(validating: path, as: UTF8.self) != nil { return add(name, bytes: path) }
        add(name, String(decoding: path, as: UTF8.self))
        add("path_bytes", bytes: Self.hex(path))
    }

    @inline(__always)
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
        let start = count
        defer { lastTime = start..<count }
        if writtenSecond.second == time.tv_sec {
            append(writtenSecond.text)
        } else {
            addSecond(time.tv_sec)
            writtenSecond = (time.tv_sec, withBytes(from: start) { Array($0) })
        }
        add(padded: time.tv_nsec / 1000, 6)
        add("Z\"")
    }

    /// The time that was added last.
    mutating func repeatTime() { `repeat`(lastTime) }

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

    private mutating func add(padded value: Int, _ length: Int) {
        reserve(length)
        var rest = value
        for place in stride(from: count + length - 1, through: count, by: -1) {
            base[place] = UInt8(ascii: "0") + UInt8(truncatingIfNeeded: rest % 10)
            rest /= 10
        }
        count += length
    }
}
