public import Access
import Fuse
import Glibc
public import Keyring
public import SecretTree
import Sodium
import Synchronization

/// What the audit log is told of requests.
extension SecretFS {
    /// Does what changes nothing before it is answered: its records are written in one go when it is done, and it is undone
    /// if they cannot be.
    func recordingAfterwards<R>(
        _ passage: Passage, _ decision: Decision, _ audit: AuditLog, undo: (R) -> Void, _ body: () throws(Errno) -> R
    ) throws(Errno) -> R {
        let entry = passage.entry(decision, audit)
        let result: R
        do throws(Errno) { result = try body() } catch {
            try record(entry, errno: error.rawValue, nil, in: audit)
            throw error
        }
        do throws(Errno) {
            try record(entry, errno: 0, version(of: passage), in: audit)
        } catch {
            undo(result)
            throw error
        }
        return result
    }

    /// Does what changes something: the request is recorded before, the response after.
    func recordingBefore<R>(
        _ passage: Passage, _ decision: Decision, _ audit: AuditLog, _ body: () throws(Errno) -> R
    ) throws(Errno) -> R {
        let entry = passage.entry(decision, audit)
        do throws(AuditFailure) { try audit.record(entry) } catch { throw Errno(EIO) }
        do throws(Errno) {
            let result = try body()
            audit.respond(entry, errno: 0, kekVersion: version(of: passage))
            return result
        } catch {
            audit.respond(entry, errno: error.rawValue, kekVersion: nil)
            throw error
        }
    }

    private func record(_ entry: AuditEntry, errno: Int32, _ version: UInt32?, in audit: AuditLog) throws(Errno) {
        let response = AuditEntry.Response(errno: errno, kekVersion: version)
        do throws(AuditFailure) { try audit.record(entry, response: response) } catch { throw Errno(EIO) }
    }

    /// What was refused, or failed, though nobody has asked for it to be opened just now.
    func record(_ passage: Passage, _ decision: Decision, errno: Int32) throws(Errno) {
        guard let audit = gate.audit else { return }
        try record(passage.entry(decision, audit), errno: errno, nil, in: audit)
    }

    /// The KEK version that guards what was opened.
    private func version(of passage: Passage) -> UInt32? {
        guard let node = passage.request.node else { return nil }
        return (try? tree.kekVersion(of: node))??.rawValue
    }

    /// Has every read recorded that reaches this server past the page cache, and those that fail everywhere.
    func recordingRead<R>(_ id: NodeID, _ caller: Caller, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        guard let audit = gate.audit else { return try body() }
        let request = AccessRequest(.read, .read, .node(id))
        if options.cacheMode == .none {
            let passage = Passage(request, caller, gate)
            let decision = gate.decide(request, passage.requester, isOpening: false)
            return try recordingAfterwards(passage, decision, audit, undo: { _ in }, body)
        }
        do throws(Errno) { return try body() } catch {
            let passage = Passage(request, caller, gate)
            try record(passage, gate.decide(request, passage.requester, isOpening: false), errno: error.rawValue)
            throw error
        }
    }

    /// A change that nobody asks for, as its time has come: not made if it cannot be recorded.
    func recordingDue(_ action: LifecycleAction, _ body: () throws(Errno) -> Void) throws(Errno) {
        guard let audit = gate.audit else { return try body() }
        let number = dueChanges.add(1, ordering: .relaxed).newValue
        let entry = AuditEntry(
            id: .text("\(audit.mount)-due-\(getpid())-\(number)"), call: "schedule", operation: .control,
            path: Array(action.controlPath.utf8), newPath: nil,
            requester: gate.requester(
                Caller(uid: getuid(), gid: getgid(), pid: getpid(), umask: 0, unique: 0, isResend: false)),
            isAllowed: true, rule: Decision.unopposed.rule)
        try audit.recording(entry, body)
    }

    /// An earlier server has done what is asked for once more, and did not come to say so.
    func recordDone(_ caller: Caller) {
        guard let audit = gate.audit else { return }
        audit.respond(again: Passage.id(caller.unique, audit))
    }

    var auditDocument: JSON {
        guard let audit = gate.audit else { return .object([("mode", "off")]) }
        let failure = audit.failure
        return .object([
            ("mode", .text(audit.options.mode.rawValue)), ("log", .optional(audit.options.path)),
            ("syslog", .number(audit.options.usesSyslog ? 1 : 0)),
            ("state", failure == 0 ? "ok" : "failing"),
            ("reason", failure == 0 ? .null : .text(String(cString: strerror(failure)))),
        ])
    }

    /// What `problems` says of it.
    var auditProblems: [JSON] {
        guard let audit = gate.audit, audit.failure != 0 else { return [] }
        return [.text("the audit log cannot be written: \(String(cString: strerror(audit.failure)))")]
    }
}

extension Passage {
    /// The request's number, the same when the kernel sends it again.
    static func id(_ unique: UInt64, _ audit: AuditLog) -> String { audit.mount + "-" + String(unique, radix: 16) }

    func entry(_ decision: Decision, _ audit: AuditLog) -> AuditEntry {
        AuditEntry(
            id: .request(unique), call: request.call.rawValue, operation: request.operations.principal,
            path: paths.first, newPath: newPaths.first, requester: requester, isAllowed: decision.isAllowed,
            rule: decision.rule)
    }
}

extension AuditLog.Keys {
    /// The keys that a keyring has for its log: the same under another root key, so that the log goes on.
    public init(of tree: SecretTree) throws(KeyringError) {
        let (seed, paths) = (
            try tree.deriveKey("letterlock audit signature 1"), try tree.deriveKey("letterlock audit paths 1")
        )
        do { self.init(signing: try SigningKey(seed: seed), paths: paths) } catch { throw .cannotLock }
    }
}

extension LifecycleAction {
    /// The control file by which it could have been asked for.
    fileprivate var controlPath: String {
        switch self {
        case .rotate: "/.letterlock/keys/rotate"
        case .disable(let version): "/.letterlock/keys/\(version)/state"
        case .scheduleDestruction(let version), .destroy(let version): "/.letterlock/keys/\(version)/destroy"
        }
    }
}

extension AuditLog {
    /// Records what is about to be done, which is not done if it cannot be recorded, and then what came of it.
    func recording(_ entry: AuditEntry, _ body: () throws(Errno) -> Void) throws(Errno) {
        do throws(AuditFailure) { try record(entry) } catch { throw Errno(EIO) }
        do throws(Errno) { try body() } catch {
            respond(entry, errno: error.rawValue, kekVersion: nil)
            throw error
        }
        respond(entry, errno: 0, kekVersion: nil)
    }
}
