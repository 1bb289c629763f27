import Fuse
import Glibc
import Keyring
import SecretTree

/// What the files `rewrap`, `reencrypt` and `revoke` do.
extension SecretFS {
    /// `start`, `start from=N`, `start path=P`, `pause`, `resume`, `cancel`.
    func command(_ kind: JobKind, _ command: ControlCommand) throws(Errno) {
        let now = Timestamp.now()
        switch command.words {
        case ("start", let rest):
            let (version, scope) = try arguments(of: kind, rest)
            try answering { () throws(TreeError) in try tree.startJob(kind, from: version, below: scope, now: now) }
        case ("pause", nil): try answering { () throws(TreeError) in try tree.pauseJob(kind, now: now) }
        case ("resume", nil): try answering { () throws(TreeError) in try tree.resumeJob(kind, now: now) }
        case ("cancel", nil): try answering { () throws(TreeError) in try tree.cancelJob(kind, now: now) }
        default: throw .invalid
        }
    }

    private func arguments(of kind: JobKind, _ text: String?) throws(Errno) -> (KEKVersion?, NodeID?) {
        guard let text else { return (nil, nil) }
        if text.hasPrefix("from=") {
            let version = try ControlCommand.version(text.dropFirst("from=".count))
            return (version, nil)
        }
        guard kind == .reencrypt, text.hasPrefix("path=") else { throw .invalid }
        return (nil, try node(at: text.dropFirst("path=".count)))
    }

    /// The node at a path from the mount's root; symbolic links are not followed, as they may lead anywhere.
    private func node(at path: Substring) throws(Errno) -> NodeID {
        guard !path.isEmpty else { throw .invalid }
        var place = NodeID.root
        for part in path.split(separator: "/") where part != "." {
            guard part != ".." else { throw .invalid }
            var name = String(part)
            let result = name.withUTF8 { name in
                Result { () throws(TreeError) in try tree.lookup(UnsafeRawBufferPointer(name), in: place) }
            }
            place = try answering { () throws(TreeError) in try result.get() }.id
        }
        return place
    }

    /// `N REASON`. Its readers are refused when this returns.
    func revoke(_ command: ControlCommand) throws(Errno) {
        let (number, reason) = command.words
        let version = try ControlCommand.version(number[...])
        guard let reason, !reason.isEmpty else { throw .invalid }
        try answering { () throws(TreeError) in try tree.revoke(version, reason: reason, now: .now()) }
        dropUnreadablePages()
        tellRotations()
        tellRevoked()
    }

    // MARK: Documents

    func jobDocument(_ kind: JobKind) -> JSON {
        let job = tree.job(kind)
        return .object([
            ("state", .text(job.state.name)), ("done", .number(Int(clamping: job.done))),
            ("total", .number(Int(clamping: job.total))), ("failed", .number(Int(clamping: job.failed))),
            ("started", .optional(job.started?.rfc3339)), ("ended", .optional(job.ended?.rfc3339)),
            ("waits_for", .optional(job.obstacle)),
        ])
    }

    /// Jobs that have been begun, for `status`.
    var jobsDocument: JSON {
        .array(
            JobKind.allCases.map { ($0, tree.job($0)) }.filter { $0.1.state != .idle }.map { kind, job in
                .object([
                    ("kind", .text("\(kind)")), ("state", .text(job.state.name)),
                    ("done", .number(Int(clamping: job.done))), ("total", .number(Int(clamping: job.total))),
                    ("failed", .number(Int(clamping: job.failed))), ("waits_for", .optional(job.obstacle)),
                ])
            })
    }

    /// The revocation with the paths that it concerns: what is not re-encrypted yet, and what was and holds the value
    /// that may be known.
    func revocationText() throws(Errno) -> ControlText {
        let text = ControlText()
        text.append(String(revocationDocument.line.dropLast(2)) + ",\"affected\":[")
        guard let version = tree.job(.revoke).version else {
            text.append("]}\n")
            return text
        }
        var isFirst = true
        func append(_ path: UnsafeRawBufferPointer) {
            text.append((isFirst ? "" : ",") + JSON.text(String(decoding: path, as: UTF8.self)).line.dropLast())
            isFirst = false
        }
        try answering { () throws(TreeError) in
            try tree.withPaths(under: version) { append(UnsafeRawBufferPointer(rebasing: $0.dropLast())) }
            try tree.walk { path, attributes in
                if attributes.needsRegeneration { append(path) }
                return true
            }
        }
        text.append("]}\n")
        return text
    }

    private var revocationDocument: JSON {
        let job = tree.job(.revoke)
        let hasBegun = job.state != .idle
        let isDone = job.state == .done
        let begun: JSON = hasBegun ? "done" : "idle"
        let record = job.version.flatMap { tree.keyring.lifecycle[$0] }
        return .object([
            ("state", .text(job.state.name)),
            ("version", job.version.map { .number(Int($0.rawValue)) } ?? .null),
            ("reason", .optional(record?.reason)),
            ("started", .optional(job.started?.rfc3339)), ("ended", .optional(job.ended?.rfc3339)),
            ("waits_for", .optional(job.obstacle)),
            (
                "steps",
                .array([
                    .object([
                        ("step", "list"), ("state", begun), ("files", .number(Int(clamping: job.total))),
                        ("paths", .optional(job.version.map { "keys/\($0)/paths" })),
                    ]),
                    .object([
                        ("step", "rotate"), ("state", begun),
                        ("primary", job.successor.map { .number(Int($0.rawValue)) } ?? .null),
                    ]),
                    .object([("step", "compromise"), ("state", begun)]),
                    .object([
                        ("step", "reencrypt"), ("state", .text(job.state.name)),
                        ("done", .number(Int(clamping: job.done))), ("total", .number(Int(clamping: job.total))),
                        ("failed", .number(Int(clamping: job.failed))),
                    ]),
                    .object([("step", "report"), ("state", isDone ? "done" : hasBegun ? "running" : "idle")]),
                ])
            ),
        ])
    }
}
