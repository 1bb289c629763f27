internal import Glibc
internal import Sodium
internal import Synchronization

/// What the log says of itself.
extension AuditLog {
    /// The newest records, as lines.
    public func tail() -> [UInt8] {
        guard let path = options.path else { return [] }
        let file = AuditFile(path)
        guard file.openForReading() else { return [] }
        let limit = 100
        let lines = file.tail(1 << 17).split(separator: UInt8(ascii: "\n")).suffix(limit)
        return Array(lines.joined(separator: [UInt8(ascii: "\n")])) + (lines.isEmpty ? [] : [UInt8(ascii: "\n")])
    }

    /// Whether the log is what was written: `ok N records`, or where it is not.
    public func verify() -> String {
        guard let path = options.path else { return "no file to verify" }
        let (known, key) = (turnstile.pass { head } ?? nil, keys.withLock { $0 }?.signing.publicKey)
        guard let known else { return "the log's device does not answer" }
        var verification = AuditVerification(key: key)
        verification.read(path)
        return verification.verdict(known: known, isLive: true).text
    }
}
