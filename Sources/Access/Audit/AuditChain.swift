internal import Glibc
internal import Sodium

/// BLAKE2b-256.
public typealias AuditHash = SIMD32<UInt8>

/// The last record of a chain: each record holds the hash of the one before it.
public struct AuditHead: Sendable, Equatable {
    public var number: UInt64 = 0
    /// Of the record's line up to `,"hash"`.
    public var hash = AuditHash.zero

    public init() {}

    /// Puts a record behind the last one: `{"seq":N,BODY,"prev":"…","hash":"…"}` and a newline.
    ///
    /// - Parameter sign: Makes a signature of the line so far, for `,"signature":"…"` before the hash.
    ///
    /// - Parameter body: Adds the body.
    mutating func chain(
        into text: inout AuditText, sign: ((UnsafeRawBufferPointer) -> [UInt8])? = nil,
        _ body: (inout AuditText) -> Void
    ) {
        let start = text.count
        text.add("{\"seq\":")
        text.add(digits: number + 1, base: 10)
        text.append(UInt8(ascii: ","))
        body(&text)
        text.add("prev", hash: hash)
        if let sign { text.add("signature", hex: text.withBytes(from: start, sign)) }
        hash = text.withBytes(from: start, Self.hash)
        number += 1
        text.add("hash", hash: hash)
        text.add("}\n")
    }

    mutating func chain(
        _ body: [UInt8], into text: inout AuditText, sign: ((UnsafeRawBufferPointer) -> [UInt8])? = nil
    ) {
        chain(into: &text, sign: sign) { $0.append(body) }
    }

    static func hash(_ line: UnsafeRawBufferPointer) -> AuditHash {
        var hash = AuditHash.zero
        withUnsafeMutableBytes(of: &hash) { Checksum.blake2b(line, into: $0) }
        return hash
    }
}

/// A line of a log, as far as the chain is concerned. The form is strict: what was not written here does not pass.
struct AuditLine {
    var number: UInt64
    var type: String
    var id: String?
    var previous: AuditHash
    var hash: AuditHash
    /// Of an `opened` record: why.
    var reason: String?
    /// Of a checkpoint.
    var signature: [UInt8]?
    var key: [UInt8]?
    /// What the signature is of.
    var signed: ArraySlice<UInt8> = []
    /// What the hash is of.
    var hashed: ArraySlice<UInt8>

    /// The lines of a log, each without its newline.
    static func split(_ bytes: [UInt8]) -> [ArraySlice<UInt8>] {
        var lines: [ArraySlice<UInt8>] = []
        bytes.withUnsafeBufferPointer { memory in
            var start = 0
            while start < memory.count {
                let newline = memchr(memory.baseAddress! + start, 10, memory.count - start)
                let end = newline.map { UnsafePointer($0.assumingMemoryBound(to: UInt8.self)) - memory.baseAddress! }
                lines.append(bytes[start..<(end ?? memory.count)])
                start = (end ?? memory.count) + 1
            }
        }
        return lines.filter { !$0.isEmpty }
    }

    /// What a line is about, without a look at its hash: a server that takes over reads many.
    static func subject(of line: ArraySlice<UInt8>) -> (type: String, id: String?)? {
        var head = Fields(line)
        guard head.take("{\"seq\":"), head.number() != nil, head.take(",\"time\":\""), head.string() != nil,
            head.take(",\"type\":\""), let type = head.string()
        else { return nil }
        return (type, head.take(",\"id\":\"") ? head.string() : nil)
    }

    /// - Parameter line: Without its newline.
    init?(_ line: ArraySlice<UInt8>) {
        let tail = 2 + 64 + 9  // ,"hash":" and 64 digits and "}
        guard line.count > tail, line.suffix(2).elementsEqual("\"}".utf8) else { return nil }
        hashed = line.dropLast(tail)
        let rest = line.suffix(tail)
        guard rest.prefix(9).elementsEqual(",\"hash\":\"".utf8),
            let hash = AuditText.bytes(hex: rest.dropFirst(9).prefix(64), count: 32)
        else { return nil }
        self.hash = AuditHash(hash)
        var head = Fields(line)
        guard head.take("{\"seq\":"), let number = head.number(), head.take(",\"time\":\""), head.string() != nil,
            head.take(",\"type\":\""), let type = head.string()
        else { return nil }
        self.number = number
        self.type = type
        if head.take(",\"id\":\"") { id = head.string() }
        if head.take(",\"reason\":\"") { reason = head.string() }
        var body = hashed
        if type == "checkpoint" {
            let length = 14 + 128 + 1  // ,"signature":" and 128 digits and a quote
            guard body.count > length else { return nil }
            let part = body.suffix(length)
            guard part.prefix(14).elementsEqual(",\"signature\":\"".utf8), part.last == UInt8(ascii: "\""),
                let signature = AuditText.bytes(hex: part.dropFirst(14).dropLast(), count: 64)
            else { return nil }
            self.signature = signature
            body = body.dropLast(length)
            signed = body
            if head.take(",\"key\":\""), let text = head.string() {
                key = AuditText.bytes(hex: Array(text.utf8), count: 32)
            }
        }
        let previousCount = 9 + 64 + 1  // ,"prev":" and 64 digits and a quote
        guard body.count > previousCount else { return nil }
        let part = body.suffix(previousCount)
        guard part.prefix(9).elementsEqual(",\"prev\":\"".utf8), part.last == UInt8(ascii: "\""),
            let previous = AuditText.bytes(hex: part.dropFirst(9).dropLast(), count: 32)
        else { return nil }
        self.previous = AuditHash(previous)
    }

    /// The chain behind this record.
    var head: AuditHead {
        var head = AuditHead()
        head.number = number
        head.hash = hash
        return head
    }

    /// Reads fields in the order in which they are written.
    private struct Fields {
        var rest: ArraySlice<UInt8>
        init(_ line: ArraySlice<UInt8>) { rest = line }

        mutating func take(_ text: StaticString) -> Bool {
            let wanted = UnsafeBufferPointer(start: text.utf8Start, count: text.utf8CodeUnitCount)
            guard rest.starts(with: wanted) else { return false }
            rest = rest.dropFirst(wanted.count)
            return true
        }

        mutating func number() -> UInt64? {
            let digits = rest.prefix { (48...57).contains($0) }
            rest = rest.dropFirst(digits.count)
            return UInt64(String(decoding: digits, as: UTF8.self))
        }

        /// To the next quote: no field that is read here has one in it.
        mutating func string() -> String? {
            guard let end = rest.firstIndex(of: UInt8(ascii: "\"")) else { return nil }
            defer { rest = rest[(end + 1)...] }
            return String(decoding: rest[..<end], as: UTF8.self)
        }
    }
}
