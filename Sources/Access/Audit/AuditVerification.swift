internal import Glibc
internal import Sodium

/// Reads a log from its beginning, and finds where it is not what was written.
public struct AuditVerification {
    /// Whose signatures count; nil for the key that the log names first.
    private var key: [UInt8]?
    public private(set) var recordCount = 0
    public private(set) var checkpointCount = 0
    /// Records that a device other than this file has.
    public private(set) var gapCount = 0
    private var firstProblem: String?
    private var line = 0
    private var last: AuditHead?
    private var isClosed = false
    private var unsigned = 0
    private var endsWithinLine = false
    /// A line that is no record, which a server that died may have left, if the next one begins anew.
    private var fragment: Int?
    /// Requests that had no answer so far.
    private var open: Set<String> = []

    /// - Parameter key: The public key of the keyring's log.
    public init(key: [UInt8]?) { self.key = key }

    /// A public key of 64 hexadecimal digits.
    public static func key(_ text: String) -> [UInt8]? { AuditText.bytes(hex: Array(text.utf8), count: 32) }

    /// The id of the store whose log a file says to be.
    public static func store(ofLog path: String) -> String? {
        var store: String?
        _ = AuditFile.lines(of: path) { line, _ in
            let text = String(decoding: line, as: UTF8.self)
            if let start = text.firstRange(of: ",\"store\":\"") {
                // Of what was restored the lineage stands behind a dot: it has a log of its own.
                let ids = text[start.upperBound...].prefix { $0 != "\"" }.split(
                    separator: ".", omittingEmptySubsequences: false)
                let areIDs = ids.allSatisfy { id in
                    id.utf8.count == 36 && id.utf8.allSatisfy { "0123456789abcdef-".utf8.contains($0) }
                }
                if areIDs, ids.count <= 2 { store = ids.joined(separator: ".") }
            }
            return false
        }
        return store
    }

    /// How many records a signature covers.
    public var signedCount: Int { recordCount - unsigned }

    /// What is made of it.
    public struct Verdict: Sendable {
        public var isSound: Bool
        /// Nothing is wrong but its end, which is as that of a log that is being written.
        public var isUnfinished = false
        /// `ok N records`, or where the chain breaks.
        public var text: String
    }

    public mutating func read(_ path: String) {
        var verification = self
        let number = AuditFile.lines(of: path) { line, isWhole in
            verification.take(line, isWhole: isWhole)
            return verification.firstProblem == nil
        }
        self = verification
        if number != 0 { problem("cannot be read: \(String(cString: strerror(number)))") }
    }

    private mutating func problem(_ what: String) {
        if firstProblem == nil { firstProblem = what }
    }

    mutating func take(_ bytes: ArraySlice<UInt8>, isWhole: Bool) {
        line += 1
        guard isWhole else {
            endsWithinLine = true
            return problem("line \(line) has no end: the log was cut within a record")
        }
        guard let record = AuditLine(bytes) else {
            if fragment != nil || last == nil { return problem("line \(line) is no record") }
            fragment = line
            return
        }
        if let fragment, record.type != "opened" { return problem("line \(fragment) is no record") }
        fragment = nil
        guard record.hashed.withUnsafeBytes(AuditHead.hash) == record.hash else {
            return problem("record \(record.number) (line \(line)) was changed: its hash is another")
        }
        if let last {
            guard record.number == last.number + 1 || record.type == "gap" && record.number > last.number else {
                return problem(
                    record.number > last.number
                        ? "records \(last.number + 1) to \(record.number - 1) are missing before line \(line)"
                        : "record \(record.number) (line \(line)) comes too late: record \(last.number) is before it")
            }
            if record.type != "gap", record.previous != last.hash {
                return problem("record \(record.number) (line \(line)) does not follow the one before it")
            }
            if record.type == "gap" { gapCount += 1 }
        } else if record.type != "opened" {
            return problem("the log begins with record \(record.number): what was before it is missing")
        }
        if record.type == "opened", record.reason == "cut" {
            return problem("records before \(record.number) (line \(line)) were missing when it was written")
        }
        take(record)
    }

    private mutating func take(_ record: AuditLine) {
        last = record.head
        recordCount += 1
        unsigned += 1
        isClosed = false
        switch record.type {
        case "checkpoint":
            guard let signer = record.key, let signature = record.signature else {
                return problem("checkpoint \(record.number) names no key")
            }
            if key == nil { key = signer }
            guard signer == key else {
                return problem("checkpoint \(record.number) (line \(line)) is signed by another key")
            }
            guard record.signed.withUnsafeBytes({ SigningKey.verify(signature, of: $0, by: signer) }) else {
                return problem("checkpoint \(record.number) (line \(line)) is not signed by the keyring's key")
            }
            checkpointCount += 1
            unsigned = 0
            isClosed = record.reason == "rotation"
        case "request": if let id = record.id { open.insert(id) }
        case "response", "interrupted": if let id = record.id { open.remove(id) }
        default: break
        }
    }

    /// - Parameters:
    ///   - known: The last record, as it is known from elsewhere.
    ///   - isLive: The log is being written, and `known` was its end a moment ago.
    public func verdict(known: AuditHead?, isLive: Bool) -> Verdict {
        if let firstProblem { return Verdict(isSound: false, isUnfinished: endsWithinLine, text: firstProblem) }
        if let fragment { return Verdict(isSound: false, text: "line \(fragment) is no record") }
        guard let last else {
            return known == nil || known == AuditHead()
                ? Verdict(isSound: true, text: "ok 0 records")
                : Verdict(
                    isSound: false, text: "the log is empty, and the keyring has written \(known!.number) records")
        }
        if let known, !isClosed {
            if last.number < known.number {
                return Verdict(
                    isSound: false,
                    text: "the log ends with record \(last.number), and the keyring has written \(known.number)")
            }
            if last.number == known.number, last.hash != known.hash {
                return Verdict(
                    isSound: false, text: "record \(last.number) is not the one that the keyring has written")
            }
        }
        if !isLive, unsigned > 0 {
            return Verdict(
                isSound: false, isUnfinished: true,
                text: "the last \(unsigned) records are not signed: the end was cut off, or the log is being written")
        }
        return Verdict(isSound: true, text: "ok \(recordCount) records" + notes(isLive: isLive))
    }

    private func notes(isLive: Bool) -> String {
        var notes: [String] = []
        if gapCount > 0 { notes.append("\(gapCount) gaps, which another device has") }
        if !isLive, !open.isEmpty { notes.append("\(open.count) requests without an answer") }
        return notes.isEmpty ? "" : ", " + notes.joined(separator: ", ")
    }
}
