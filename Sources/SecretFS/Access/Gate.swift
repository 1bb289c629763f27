import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// What every access passes through: who asks is found out, policy decides, the audit log records, observers are told.
final class Gate: Sendable {
    let paths: NodePaths
    let processes = ProcessTable()
    private let observers = Mutex<[any AccessObserver]>([])
    /// False while there is nobody to decide, record or observe: then nothing is looked up.
    private let active = Atomic(false)

    init(_ tree: SecretTree) {
        paths = NodePaths(tree)
    }

    var isActive: Bool { active.load(ordering: .acquiring) }

    /// Before the first request.
    func add(_ observer: any AccessObserver) {
        observers.withLock { $0.append(observer) }
        active.store(true, ordering: .releasing)
    }

    func requester(_ caller: Caller) -> Requester {
        Requester(
            uid: caller.uid, gid: caller.gid,
            process: processes.identify(thread: caller.pid, uid: caller.uid, gid: caller.gid))
    }

    func tell(_ event: AccessEvent) {
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
    /// Does something that changes nothing before it is answered: it is recorded when it is done, request and response
    /// in one go, and undone if they cannot be.
    func guardedOpening<R>(
        _ request: AccessRequest, _ caller: Caller, undo: (R) -> Void, _ body: () throws(Errno) -> R
    ) throws(Errno) -> R {
        guard gate.isActive else { return try body() }
        let passage = Passage(request, caller, gate)
        return try passage.finish(in: self, body)
    }

    /// Does something that changes the tree: the request is recorded before, the response after.
    func guarded<R>(_ request: AccessRequest, _ caller: Caller, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        guard gate.isActive else { return try body() }
        let passage = Passage(request, caller, gate)
        return try passage.finish(in: self, body)
    }
}

/// One access on its way through the gate.
struct Passage {
    let request: AccessRequest
    let requester: Requester
    let paths: [NodePaths.Path]
    let newPaths: [NodePaths.Path]
    let began = Gate.nanoseconds

    init(_ request: AccessRequest, _ caller: Caller, _ gate: Gate) {
        self.request = request
        requester = gate.requester(caller)
        paths = gate.paths(of: request.subject)
        newPaths = request.newSubject.map(gate.paths) ?? []
    }

    func finish<R>(in fileSystem: SecretFS, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        do throws(Errno) {
            let result = try body()
            fileSystem.gate.tell(event(errno: 0, in: fileSystem))
            return result
        } catch {
            fileSystem.gate.tell(event(errno: error.rawValue, in: fileSystem))
            throw error
        }
    }

    private func event(errno: Int32, in fileSystem: SecretFS) -> AccessEvent {
        AccessEvent(
            call: request.call, operation: request.operations.principal, node: request.node, path: paths.first,
            newPath: newPaths.first, requester: requester, isAllowed: true, rule: "default", errno: errno,
            kekVersion: nil, nanoseconds: Gate.nanoseconds - began)
    }
}
