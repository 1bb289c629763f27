import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// What every access passes through: who asks is found out, policy decides, observers are told.
final class Gate: Sendable {
    let tree: SecretTree
    let paths: NodePaths
    let processes = ProcessTable()
    let guardian: PolicyGuard
    /// Nil if nothing is recorded.
    let audit: AuditLog?
    /// Directories that the kernel may have a listing of.
    let listed = Mutex<Set<NodeID>>([])
    private let observers = Mutex<[any AccessObserver]>([])
    /// False while there is nobody to decide or observe: then nothing is looked up.
    private let active = Atomic(false)
    private let isObserved = Atomic(false)

    init(_ tree: SecretTree, audit: AuditLog? = nil) {
        self.tree = tree
        self.audit = audit
        paths = NodePaths(tree)
        guardian = PolicyGuard(tree)
        reconsider()
    }

    var isActive: Bool { active.load(ordering: .acquiring) }

    /// Somebody is told of paths.
    var wantsPaths: Bool { audit != nil || isObserved.load(ordering: .acquiring) }

    /// After a change of the policy.
    func reconsider() {
        let isNeeded = wantsPaths || !guardian.policy.isEmpty
        active.store(isNeeded, ordering: .releasing)
    }

    /// Before the first request.
    func add(_ observer: any AccessObserver) {
        observers.withLock { $0.append(observer) }
        isObserved.store(true, ordering: .releasing)
        reconsider()
    }

    func requester(_ caller: Caller) -> Requester {
        Requester(
            uid: caller.uid, gid: caller.gid,
            process: processes.identify(thread: caller.pid, uid: caller.uid, gid: caller.gid))
    }

    func tell(_ event: @autoclosure () -> AccessEvent) {
        guard isObserved.load(ordering: .acquiring) else { return }
        let event = event()
        for observer in observers.withLock({ $0 }) { observer.observed(event) }
    }

    /// The paths that a request is about; none for a file without a name.
    func paths(of subject: AccessRequest.Subject) -> [NodePaths.Path] {
        switch subject {
        case .node(let id): paths.paths(of: id)
        case .name(let name, let parent): paths.path(of: name, in: NodeID(rawValue: parent)).map { [$0] } ?? []
        case .control(let node): [NodePaths.Path(node.path.utf8)]
        }
    }

    static var nanoseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
    }
}

extension SecretFS {
    /// Does something that policy has to allow, and the audit log has to know of.
    ///
    /// - Parameter undo: Of what changes nothing before it is answered: takes it back.
    func guarded<R>(
        _ request: AccessRequest, _ caller: Caller, undo: ((R) -> Void)? = nil, _ body: () throws(Errno) -> R
    ) throws(Errno) -> R {
        guard gate.isActive else { return try body() }
        let passage = Passage(request, caller, gate)
        let isOpening = request.call == .open || request.call == .create
        let decision = gate.decide(request, passage.requester, isOpening: isOpening)
        guard decision.isAllowed else { try refuse(passage, decision) }
        do throws(Errno) {
            let result: R
            if let audit = gate.audit {
                if let undo {
                    result = try recordingAfterwards(passage, decision, audit, undo: undo, body)
                } else {
                    result = try recordingBefore(passage, decision, audit, body)
                }
            } else {
                result = try body()
            }
            gate.tell(passage.event(decision, errno: 0))
            return result
        } catch {
            gate.tell(passage.event(decision, errno: error.rawValue))
            throw error
        }
    }
}

/// One access on its way through the gate.
struct Passage {
    let request: AccessRequest
    let requester: Requester
    let paths: [NodePaths.Path]
    let newPaths: [NodePaths.Path]
    /// The kernel's number of the request.
    let unique: UInt64
    let began = Gate.nanoseconds

    init(_ request: AccessRequest, _ caller: Caller, _ gate: Gate) {
        self.request = request
        unique = caller.unique
        requester = gate.requester(caller)
        // As they are before anything happens.
        let isNeeded = gate.wantsPaths
        paths = isNeeded ? gate.paths(of: request.subject) : []
        newPaths = isNeeded ? request.newSubject.map(gate.paths) ?? [] : []
    }

    func event(_ decision: Decision, errno: Int32) -> AccessEvent {
        AccessEvent(
            call: request.call, operation: request.operations.principal,
            reads: request.operations.contains(.read), node: request.node, path: paths.first,
            newPath: newPaths.first, requester: requester, isAllowed: decision.isAllowed, rule: decision.rule,
            errno: errno, nanoseconds: Gate.nanoseconds - began)
    }
}
