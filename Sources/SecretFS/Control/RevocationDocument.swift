import Access
import Fuse
import Keyring
import SecretTree
import Synchronization

/// The paths that a revocation concerns.
struct AffectedPaths: Sendable {
    var started: Timestamp?
    /// Of the clock that nobody sets: seconds.
    var goodUntil = 0.0
    /// As members of a JSON array.
    var list = ControlText()
    var leftOut = 0
}

/// What `revoke` reads as.
extension SecretFS {
    /// So many paths are listed.
    private static let pathLimit = 100_000
    /// For so many times what it took to list them they are not listed anew.
    private static let affectedAge = 20.0

    /// Running until the report is written too.
    func stateName(of job: JobProgress) -> String { isReporting(job) ? JobState.running.name : job.state.name }

    func obstacle(of job: JobProgress) -> String? {
        guard isReporting(job) else { return job.obstacle }
        return gate.audit?.failure == 0 ? nil : "the audit log cannot be written"
    }

    private func isReporting(_ job: JobProgress) -> Bool {
        job.isEndedRevocation && !job.isReported && gate.audit != nil
    }

    /// The revocation with the paths that it concerns (what is not re-encrypted yet, and what holds a value that may be
    /// known), who has read them, and the revocations before it.
    func revocationText() throws(Errno) -> ControlText {
        let text = ControlText()
        let job = tree.job(.revoke)
        let readership = readership(of: job)
        text.append(String(document(of: job, readership).line.dropLast(2)) + ",\"affected\":[")
        let affected = try affectedPaths(of: job)
        text.append(affected.list)
        text.append("],\"affected_left_out\":\(affected.leftOut),\"readers\":[")
        for (index, row) in (readership?.rows ?? []).enumerated() {
            text.append(index == 0 ? "{" : ",{")
            row.members.withUnsafeBytes { text.append($0) }
            text.append("}")
        }
        text.append("],\"readers_left_out\":\(readership?.leftOut ?? 0)")
        text.append(",\"readers_complete\":\(readership?.isWhole ?? true),\"earlier\":")
        text.append(String(earlierRevocations.line.dropLast()) + "}\n")
        return text
    }

    /// Walking takes a while where there are many files, and who waits for a job's end may look often. While it runs the list
    /// changes by new values alone, so that one that is not old for what it took is good enough.
    private func affectedPaths(of job: JobProgress) throws(Errno) -> AffectedPaths {
        guard let version = job.version else { return AffectedPaths() }
        let begun = Self.monotonicTime
        if job.state == .running, let known = affected.withLock({ $0 }), known.started == job.started,
            begun < known.goodUntil
        {
            return known
        }
        var new = AffectedPaths()
        new.started = job.started
        var listed = 0
        _ = try answering { () throws(TreeError) in
            try tree.walk { path, attributes in
                guard attributes.needsRegeneration || tree.isGuarded(attributes, by: version) else { return true }
                guard listed < Self.pathLimit else {
                    new.leftOut += 1
                    return true
                }
                new.list.append(
                    (listed == 0 ? "" : ",") + JSON.text(String(decoding: path, as: UTF8.self)).line.dropLast())
                listed += 1
                return true
            }
        }
        let ended = Self.monotonicTime
        new.goodUntil = ended + Self.affectedAge * (ended - begun)
        affected.withLock { [new] in $0 = job.state == .running ? new : nil }
        return new
    }

    private var earlierRevocations: JSON {
        .array(
            tree.revocations.dropLast().map { job in
                .object([
                    ("state", .text(stateName(of: job))), ("version", Self.number(job.version)),
                    ("started", .optional(job.started?.rfc3339)), ("ended", .optional(job.ended?.rfc3339)),
                    ("done", .number(Int(clamping: job.done))), ("total", .number(Int(clamping: job.total))),
                    ("failed", .number(Int(clamping: job.failed))), ("reported", .bool(job.isReported)),
                ])
            })
    }

    private static func number(_ version: KEKVersion?) -> JSON { version.map { .number(Int($0.rawValue)) } ?? .null }

    private func document(of job: JobProgress, _ readership: AuditReadership?) -> JSON {
        let begun: JSON = job.state != .idle ? "done" : "idle"
        let record = job.version.flatMap { tree.keyring.lifecycle[$0] }
        return .object([
            ("state", .text(stateName(of: job))), ("version", Self.number(job.version)),
            ("reason", .optional(record?.reason)),
            ("started", .optional(job.started?.rfc3339)), ("ended", .optional(job.ended?.rfc3339)),
            ("waits_for", .optional(obstacle(of: job))),
            (
                "steps",
                .array([
                    .object([
                        ("step", "list"), ("state", begun), ("files", .number(Int(clamping: job.total))),
                        ("paths", .optional(job.version.map { "keys/\($0)/paths" })),
                    ]),
                    .object([("step", "rotate"), ("state", begun), ("primary", Self.number(job.successor))]),
                    .object([("step", "compromise"), ("state", begun)]),
                    .object([
                        ("step", "reencrypt"), ("state", .text(job.state.name)),
                        ("done", .number(Int(clamping: job.done))), ("total", .number(Int(clamping: job.total))),
                        ("failed", .number(Int(clamping: job.failed))), ("failures", failuresDocument(.revoke)),
                    ]),
                    reportStep(of: job, readership),
                ])
            ),
        ])
    }

    private func reportStep(of job: JobProgress, _ readership: AuditReadership?) -> JSON {
        let state =
            switch job.state {
            case .idle: "idle"
            case _ where job.isReported: "done"
            // Nothing is recorded: there is nothing to report from, and nowhere.
            case _ where gate.audit == nil: "cancelled"
            default: "running"
            }
        return .object([
            ("step", "report"), ("state", .text(state)), ("log", .optional(gate.audit?.options.path)),
            ("unwraps", readership.map { .number($0.unwraps) } ?? .null),
            ("readers", readership.map { .number($0.rows.count) } ?? .null),
            ("unread_files", readership.map { .number($0.unreadFiles) } ?? .null),
        ])
    }
}
