internal import Sodium
internal import Storage

/// A 256-bit number, added without carry out: one record's keyed hash, or the sum over all of them.
struct HashSum: Hashable, Sendable {
    var a: UInt64 = 0
    var b: UInt64 = 0
    var c: UInt64 = 0
    var d: UInt64 = 0
    static let byteCount = 32

    static func += (sum: inout HashSum, other: HashSum) {
        var carry: Bool
        (sum.a, carry) = sum.a.addingReportingOverflow(other.a)
        (sum.b, carry) = add(sum.b, other.b, carry)
        (sum.c, carry) = add(sum.c, other.c, carry)
        (sum.d, _) = add(sum.d, other.d, carry)
    }

    static func -= (sum: inout HashSum, other: HashSum) {
        // Two's complement: minus x is not x, plus one.
        sum += HashSum(a: ~other.a, b: ~other.b, c: ~other.c, d: ~other.d)
        sum += HashSum(a: 1)
    }

    static func ^= (sum: inout HashSum, other: HashSum) {
        sum.a ^= other.a
        sum.b ^= other.b
        sum.c ^= other.c
        sum.d ^= other.d
    }

    private static func add(_ x: UInt64, _ y: UInt64, _ carry: Bool) -> (UInt64, Bool) {
        let (partial, first) = x.addingReportingOverflow(y)
        let (total, second) = partial.addingReportingOverflow(carry ? 1 : 0)
        return (total, first || second)
    }

    init(a: UInt64 = 0, b: UInt64 = 0, c: UInt64 = 0, d: UInt64 = 0) {
        (self.a, self.b, self.c, self.d) = (a, b, c, d)
    }

    init(_ bytes: UnsafeRawBufferPointer, at offset: Int) {
        a = bytes.number(UInt64.self, at: offset)
        b = bytes.number(UInt64.self, at: offset + 8)
        c = bytes.number(UInt64.self, at: offset + 16)
        d = bytes.number(UInt64.self, at: offset + 24)
    }

    func put(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) {
        bytes.put(a, at: offset)
        bytes.put(b, at: offset + 8)
        bytes.put(c, at: offset + 16)
        bytes.put(d, at: offset + 24)
    }
}

/// The keyed hash of one record: `BLAKE2b-256(freshness key, le64(25) record key, head)`.
///
/// The sum of it over all records is MSet-Add-Hash (Clarke and others, ASIACRYPT 2003) with a secret key and a
/// sealed sum: adding, dropping, replacing or putting back any record changes it, and it costs a change no more
/// than the records it touches.
final class FreshnessHash: Sendable {
    private let key: SecretKey
    init(key: SecretKey) { self.key = key }

    func element(_ record: RecordKey, head: UnsafeRawBufferPointer) -> HashSum {
        withUnsafeTemporaryAllocation(byteCount: RecordKey.byteCount + HashSum.byteCount, alignment: 8) { memory in
            let name = memory.part(0, RecordKey.byteCount)
            let hash = memory.part(RecordKey.byteCount, HashSum.byteCount)
            record.encode(into: name)
            key.withKey { KeyedHash.hash(name.readOnly, head, key: $0, into: hash) }
            return HashSum(hash.readOnly, at: 0)
        }
    }

    /// The element of a whole value, or of its first bytes as a scan gives them.
    func element(_ record: RecordKey, value: UnsafeRawBufferPointer) -> HashSum {
        let head = RecordKind(rawValue: record.kind)?.headByteCount ?? RecordKind.longestHeadByteCount
        return element(record, head: value.part(0, min(head, value.count)))
    }
}
