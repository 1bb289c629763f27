import Fuse
import Glibc
import Keyring
import SecretTree

/// What the files `rewrap`, `reencrypt` and `revoke` do.
extension SecretFS {
    /// `start`, `start from=N`, `start path=P`, `pause`, `resume`, `cancel`.
    func command(_ kind: JobKind, _ command: ControlCommand) throws(Errno) {
        let now = Timestamp.now()
        if case ("start", let rest) = command.words {
            let (version, scope) = try arguments(of: kind, rest)
            try answering { () throws(TreeError) in try tree.startJob(kind, from: version, below: scope, now: now) }
        } else if try !hold(kind, command) {
            throw .invalid
        }
    }

    /// `pause`, `resume` and `cancel`; false for anything else.
    private func hold(_ kind: JobKind, _ command: ControlCommand) throws(Errno) -> Bool {
        let now = Timestamp.now()
        switch command.text {
        case "pause": try answering { () throws(TreeError) in try tree.pauseJob(kind, now: now) }
        case "resume": try answering { () throws(TreeError) in try tree.resumeJob(kind, now: now) }
        case "cancel": try answering { () throws(TreeError) in try tree.cancelJob(kind, now: now) }
        default: return false
        }
        return true
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
    func node(at path: Substring) throws(Errno) -> NodeID {
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

    /// `N REASON`: its readers are refused when this returns. `pause`, `resume` and `cancel` are about the re-encryption that
    /// is a part of it; whatever becomes of that, the version stays compromised.
    func revoke(_ command: ControlCommand) throws(Errno) {
        guard try !hold(.revoke, command) else { return }
        let (number, text) = command.words
        let version = try ControlCommand.version(number[...])
        guard let text else { throw .invalid }
        let reason = try ControlCommand.reason(text)
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
            ("waits_for", .optional(job.obstacle)), ("failures", failuresDocument(kind)),
        ])
    }

    /// The files that could not be done, the first 256 of them.
    func failuresDocument(_ kind: JobKind) -> JSON {
        .array(
            tree.failures(of: kind).map { failure in
                .object([
                    ("path", .optional(path(of: failure.node))),
                    ("inode", failure.node.map { .number(Int(clamping: $0.rawValue)) } ?? .null),
                    ("reason", .text(failure.reason.name)),
                ])
            })
    }

    private func path(of node: NodeID?) -> String? {
        node.flatMap(gate.paths.path).map { String(decoding: $0, as: UTF8.self) }
    }

    /// Jobs that have been begun, for `status`.
    var jobsDocument: JSON {
        .array(
            JobKind.allCases.map { ($0, tree.job($0)) }.filter { $0.1.state != .idle }.map { kind, job in
                .object([
                    ("kind", .text("\(kind)")), ("state", .text(stateName(of: job))),
                    ("done", .number(Int(clamping: job.done))), ("total", .number(Int(clamping: job.total))),
                    ("failed", .number(Int(clamping: job.failed))), ("waits_for", .optional(obstacle(of: job))),
                ])
            })
    }
}
