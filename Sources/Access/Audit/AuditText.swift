internal import Glibc

/// The bytes of a record, written without a detour over strings: there are two of them an opening.
struct AuditText {
    var bytes: [UInt8] = []

    mutating func add(_ text: StaticString) {
        bytes.append(contentsOf: UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount))
    }

    mutating func add(number: some BinaryInteger) { bytes.append(contentsOf: String(number).utf8) }

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
        let isPlain = value.allSatisfy {
            $0 >= 0x20 && $0 != 0x7F && $0 != UInt8(ascii: "\"") && $0 != UInt8(ascii: "\\")
        }
        guard !isPlain else { return bytes.append(contentsOf: value) }
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

    /// A path; one that is no UTF-8 is told in hexadecimal besides.
    mutating func add(_ name: StaticString, path: [UInt8]) {
        if String(validating: path, as: UTF8.self) != nil { return add(name, bytes: path) }
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
        var seconds = time.tv_sec
        var parts = tm()
        gmtime_r(&seconds, &parts)
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
        add(padded: time.tv_nsec / 1000, 6)
        add("Z\"")
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

/// An access as its two records tell it.
public struct AuditEntry: Sendable {
    /// The same in both records, and when the kernel sends the request again.
    public var id: String
    public var call: String
    public var operation: Operation
    public var path: [UInt8]?
    public var newPath: [UInt8]?
    public var requester: Requester
    public var isAllowed: Bool
    public var rule: String

    public init(
        id: String, call: String, operation: Operation, path: [UInt8]?, newPath: [UInt8]?, requester: Requester,
        isAllowed: Bool, rule: String
    ) {
        self.id = id
        self.call = call
        self.operation = operation
        self.path = path
        self.newPath = newPath
        self.requester = requester
        self.isAllowed = isAllowed
        self.rule = rule
    }

    enum Kind {
        case request
        case response(errno: Int32, kekVersion: UInt32?)
    }

    /// What both records of it have in common.
    ///
    /// - Parameter hide: What stands for a path; nil if it may be told.
    func common(keyring: String, hide: (([UInt8]) -> String)?) -> AuditText {
        var text = AuditText()
        text.bytes.reserveCapacity(640)
        text.add("id", id)
        text.add("keyring", keyring)
        text.add("call", call)
        text.add("operation", operation.rawValue)
        for (name, path) in [("path" as StaticString, path), ("new_path", newPath)] {
            guard let path else { continue }
            if let hide { text.add(name, hide(path)) } else { text.add(name, path: path) }
        }
        let process = requester.process
        text.add("uid", number: requester.uid)
        text.add("gid", number: requester.gid)
        text.add("pid", number: process.pid)
        if let exe = process.exe { text.add("exe", exe) }
        if process.exe != nil, !process.isExeVerified { text.add(",\"exe_verified\":false") }
        if let unit = process.unit { text.add("unit", unit) }
        text.add("decision", isAllowed ? "allow" : "deny")
        text.add("rule", rule)
        return text
    }

    /// One of its records, as of now.
    static func text(_ kind: Kind, _ common: AuditText) -> AuditText {
        var text = AuditText()
        text.bytes.reserveCapacity(common.bytes.count + 128)
        text.addTime()
        if case .request = kind { text.add(",\"type\":\"request\"") } else { text.add(",\"type\":\"response\"") }
        text.bytes.append(contentsOf: common.bytes)
        if case .response(let number, let version) = kind {
            if let version { text.add("kek_version", number: version) }
            text.add("errno", number: number)
        }
        return text
    }
}
