internal import Sodium

/// Which backup: the hash of its header, and with it of a salt that no other one has.
public struct BackupID: Hashable, Sendable, CustomStringConvertible {
    public static let byteCount = 32
    let bytes: [UInt8]

    init(header: [UInt8]) {
        var hash = [UInt8](repeating: 0, count: Self.byteCount)
        hash.withUnsafeMutableBytes { hash in header.withUnsafeBytes { Checksum.blake2b($0, into: hash) } }
        bytes = hash
    }

    /// - Precondition: there are `byteCount` of them.
    init(bytes: [UInt8]) { self.bytes = bytes }

    /// - Returns: nil for what `description` does not give.
    public init?(_ text: some StringProtocol) {
        let digits = text.utf8.map { digit -> UInt8? in
            switch digit {
            case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0")
            case UInt8(ascii: "a")...UInt8(ascii: "f"): digit - UInt8(ascii: "a") + 10
            default: nil
            }
        }
        guard digits.count == 2 * Self.byteCount, !digits.contains(nil) else { return nil }
        bytes = stride(from: 0, to: digits.count, by: 2).map { (digits[$0] ?? 0) << 4 | (digits[$0 + 1] ?? 0) }
    }

    /// In hexadecimal.
    public var description: String { bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
}

/// What a keyring was when a backup of it was made: `epoch 8 | records 8 | sum 32`.
struct BackupMoment: Equatable {
    var epoch: UInt64
    var recordCount: UInt64
    var sum: HashSum

    static let byteCount = 16 + HashSum.byteCount

    init(_ root: Root) { (epoch, recordCount, sum) = (root.epoch, root.recordCount, root.sum) }

    init(_ bytes: UnsafeRawBufferPointer) {
        epoch = bytes.number(UInt64.self, at: 0)
        recordCount = bytes.number(UInt64.self, at: 8)
        sum = HashSum(bytes, at: 16)
    }

    var bytes: [UInt8] {
        var bytes = [UInt8](repeating: 0, count: Self.byteCount)
        bytes.withUnsafeMutableBytes { bytes in
            bytes.put(epoch, at: 0)
            bytes.put(recordCount, at: 8)
            sum.put(into: bytes, at: 16)
        }
        return bytes
    }
}
