import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization
import Threads

/// Says in the stream what accesses and the tree itself bring about.
final class EventTeller: AccessObserver, TreeObserver {
    private let stream: EventStream
    /// Not held: the tree, which has this one told, is held by it.
    private struct Sight: Sendable { weak var gate: Gate? }
    private let sight: Mutex<Sight>

    /// Called at the end of a revocation.
    private let revocationHasEnded: @Sendable () -> Void

    init(_ stream: EventStream, _ gate: Gate, revocationHasEnded: @escaping @Sendable () -> Void) {
        self.stream = stream
        self.revocationHasEnded = revocationHasEnded
        sight = Mutex(Sight(gate: gate))
    }

    func observed(_ event: AccessEvent) {
        if !event.isAllowed { return stream.tell(denied(event)) }
        guard event.errno == 0 else { return }
        switch event.call {
        // What is moved to a name is what there is to read now.
        case .rename: stream.tell(Self.event(.valueChanged, at: event.newPath, event, from: event.path))
        case .unlink: stream.tell(Self.event(.removed, at: event.path, event))
        default: break
        }
    }

    private func denied(_ event: AccessEvent) -> Event {
        var said = Self.event(.denied, at: event.path, event)
        said.add("operation", .text(event.operation.rawValue))
        said.add("rule", .text(event.rule))
        return said
    }

    private static func event(_ kind: Event.Kind, at path: [UInt8]?, _ access: AccessEvent, from old: [UInt8]? = nil)
        -> Event
    {
        var event = Event(kind)
        event.add("path", path: path)
        event.add("moved_from", path: old)
        event.add(access.requester)
        return event
    }

    /// In a thread of its own: the path is found in the tree, whose lock the finder may hold.
    func found(_ problem: Problem) {
        guard problem.isDamage else { return }
        let result = startThread { [self] in
            tell(problem, at: problem.node.flatMap { node in sight.withLock { $0.gate }?.paths.path(of: node) })
        }
        if result != 0 { tell(problem, at: nil) }
    }

    private func tell(_ problem: Problem, at path: [UInt8]?) {
        var event = Event(.tampered)
        event.add("path", path: path)
        event.add("inode", problem.node.map { .number(Int(clamping: $0.rawValue)) })
        event.add("description", .text(problem.description))
        stream.tell(event)
    }

    func ended(_ kind: JobKind) {
        guard kind != .erase, let job = sight.withLock({ $0.gate })?.tree.job(kind) else { return }
        var event = Event(job.state == .done ? .jobDone : .jobFailed)
        event.add("job", .text("\(kind)"))
        event.add("version", job.version.map { .number(Int($0.rawValue)) })
        event.add("done", .number(Int(clamping: job.done)))
        event.add("failed", .number(Int(clamping: job.failed)))
        stream.tell(event)
        if kind == .revoke { revocationHasEnded() }
    }
}

/// What requests tell that change values and keys.
extension SecretFS {
    /// A node has a new value, which everybody reads from now on.
    ///
    /// - Parameter caller: nil if nobody knows any more who it was.
    func tellChanged(_ id: NodeID, by caller: Caller?) {
        guard let path = gate.paths.path(of: id) else { return }
        for path in hooks.isEmpty ? [] : gate.paths.paths(of: id) { hooks.engine?.changed(path) }
        var event = Event(.valueChanged)
        event.add("path", path: path)
        event.add(caller)
        options.events.tell(event)
    }

    /// Each rotation is told once, also if the server that made it has died with it.
    func tellRotations() {
        let lifecycle = tree.keyring.lifecycle
        options.events.tell(upTo: UInt64(lifecycle.latest.rawValue)) { number in
            var event = Event(.rotated)
            event.add("version", .number(Int(number)))
            event.add("primary", .number(Int(lifecycle.primary.rawValue)))
            return event
        }
    }

    func tellStates(_ before: KeyLifecycle, _ after: KeyLifecycle) {
        for record in after.versions {
            guard let old = before.state(of: record.version), old != record.state else { continue }
            var event = Event(.keyState)
            event.add("version", .number(Int(record.version.rawValue)))
            event.add("state", .text(record.state.name))
            event.add("reason", record.reason.map { .text($0) })
            options.events.tell(event)
        }
    }

    func tellRevoked() {
        let job = tree.job(.revoke)
        guard let version = job.version else { return }
        var event = Event(.revoked)
        event.add("version", .number(Int(version.rawValue)))
        event.add("reason", tree.keyring.lifecycle[version]?.reason.map { .text($0) })
        event.add("files", .number(Int(clamping: job.total)))
        options.events.tell(event)
    }
}
