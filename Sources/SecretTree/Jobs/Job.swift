public import Keyring
internal import Storage

/// Work over all contents that goes on in the background while everyone reads and writes.
public enum JobKind: UInt8, Sendable, CaseIterable {
    /// Wraps every DEK under the primary KEK version; contents are not touched.
    case rewrap = 1
    /// Gives every content a new DEK and new ciphertext.
    case reencrypt = 2
    /// Re-encrypts what a compromised KEK version guarded.
    case revoke = 3
}

public enum JobState: UInt8, Sendable {
    case idle = 0
    case running = 1
    case paused = 2
    case done = 3
    case failed = 4
    case cancelled = 5

    /// As control files call it.
    public var name: String {
        switch self {
        case .idle: "idle"
        case .running: "running"
        case .paused: "paused"
        case .done: "done"
        case .failed: "failed"
        case .cancelled: "cancelled"
        }
    }

    /// Whether there is something to be gone on with.
    public var isUnfinished: Bool { self == .running || self == .paused }
}

/// How far a job is.
public struct JobProgress: Sendable, Equatable {
    public var kind: JobKind
    public var state = JobState.idle
    /// Files done, failed ones not among them.
    public var done: UInt64 = 0
    /// Files to do, as it was counted at the start.
    public var total: UInt64 = 0
    /// Files that could not be done; `problems` names them.
    public var failed: UInt64 = 0
    public var started: Timestamp?
    public var ended: Timestamp?
    /// The one KEK version whose files are done; nil for all.
    public var version: KEKVersion?
    /// For a revocation: the version that became primary for it, or was.
    public var successor: KEKVersion?

    public init(kind: JobKind) { self.kind = kind }
}

/// A job as its record holds it: written with each batch, so that a crash loses no more than one.
///
///     kind 1 | state 1 | reserved 2 | version 4 | successor 4 | cursor 8 | end 8 | scope 8 |
///     done 8 | total 8 | failed 8 | started 12 | ended 12 | new contents 8 | done before 8
struct JobRecord: Sendable, Equatable {
    var progress: JobProgress
    /// The last content or node that is done: they are gone through in the order of their numbers.
    var cursor: UInt64 = 0
    /// What got its number later needs no work: it is new.
    var end: UInt64 = .max
    /// Only what lies below this node; 0 for everything.
    var scope: UInt64 = 0
    /// Contents from this number on were made after the start. (Their times would tell that too, if nobody set clocks.)
    var newContents: UInt64 = .max
    /// What was done when this pass over everything began.
    var doneBefore: UInt64 = 0

    static let byteCount = 100

    init(_ progress: JobProgress) { self.progress = progress }

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount, let kind = JobKind(rawValue: bytes[0]),
            let state = JobState(rawValue: bytes[1])
        else { return nil }
        progress = JobProgress(kind: kind)
        progress.state = state
        let version = bytes.number(UInt32.self, at: 4)
        progress.version = version == 0 ? nil : KEKVersion(rawValue: version)
        let successor = bytes.number(UInt32.self, at: 8)
        progress.successor = successor == 0 ? nil : KEKVersion(rawValue: successor)
        cursor = bytes.number(UInt64.self, at: 12)
        end = bytes.number(UInt64.self, at: 20)
        scope = bytes.number(UInt64.self, at: 28)
        progress.done = bytes.number(UInt64.self, at: 36)
        progress.total = bytes.number(UInt64.self, at: 44)
        progress.failed = bytes.number(UInt64.self, at: 52)
        progress.started = bytes.timestamp(at: 60)
        let ended = bytes.timestamp(at: 72)
        newContents = bytes.number(UInt64.self, at: 84)
        doneBefore = bytes.number(UInt64.self, at: 92)
        progress.ended = ended == Timestamp(seconds: 0, nanoseconds: 0) ? nil : ended
    }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        let none = Timestamp(seconds: 0, nanoseconds: 0)
        bytes.put(UInt32(progress.kind.rawValue) | UInt32(progress.state.rawValue) << 8, at: 0)
        bytes.put(progress.version?.rawValue ?? 0, at: 4)
        bytes.put(progress.successor?.rawValue ?? 0, at: 8)
        bytes.put(cursor, at: 12)
        bytes.put(end, at: 20)
        bytes.put(scope, at: 28)
        bytes.put(progress.done, at: 36)
        bytes.put(progress.total, at: 44)
        bytes.put(progress.failed, at: 52)
        bytes.put(progress.started ?? none, at: 60)
        bytes.put(progress.ended ?? none, at: 72)
        bytes.put(newContents, at: 84)
        bytes.put(doneBefore, at: 92)
    }
}

extension Transaction {
    mutating func set(_ job: JobRecord) {
        seal(RecordKey(.job, UInt64(job.progress.kind.rawValue)), byteCount: JobRecord.byteCount) { job.put(into: $0) }
        jobs[job.progress.kind] = job
    }

    /// The job as this transaction will leave it, if it is running.
    func running(_ kind: JobKind) -> JobRecord? {
        guard let job = jobs[kind] ?? tree.state.jobs[kind], job.progress.state == .running else { return nil }
        return job
    }
}

/// Beginning, holding and ending jobs.
extension SecretTree {
    public func job(_ kind: JobKind) -> JobProgress {
        lock.reading { state.jobs[kind]?.progress } ?? JobProgress(kind: kind)
    }

    /// Begins a job. It goes on in the background, also over the end of this process, until it is done.
    ///
    /// - Parameters:
    ///   - version: Only what this KEK version guards; nil for all.
    ///   - scope: Only what lies below this node, or it alone; nil for everything. For `reencrypt`.
    /// - Throws: `.busy` if one of its kind is unfinished; `.key` if there is no such version.
    public func startJob(
        _ kind: JobKind, from version: KEKVersion? = nil, below scope: NodeID? = nil, now: Timestamp
    ) throws(TreeError) {
        let files = try scope.map { scope throws(TreeError) in try nodes(below: scope).count }
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard state.jobs[kind]?.progress.state.isUnfinished != true else { throw .busy }
            if let version, keyring.lifecycle.state(of: version) == nil { throw .key(.noSuchVersion) }
            if let scope { _ = try transaction.node(scope) }
            var job = newJob(kind, version, scope, now)
            if let files { job.progress.total = UInt64(files) }
            transaction.set(job)
        }
        jobsRunner.wake()
    }

    func newJob(_ kind: JobKind, _ version: KEKVersion?, _ scope: NodeID?, _ now: Timestamp) -> JobRecord {
        var job = JobRecord(JobProgress(kind: kind))
        job.progress.state = .running
        job.progress.version = version
        job.progress.started = now
        job.progress.total = UInt64(
            state.versionCounts.reduce(0) { sum, count in
                isSource(count.key, of: kind, from: version) ? sum + max(0, count.value) : sum
            })
        job.end = kind == .rewrap ? state.root.nextContent : state.root.nextNode
        job.scope = scope?.rawValue ?? 0
        job.newContents = state.root.nextContent
        return job
    }

    /// Whether a job takes what this version guards.
    func isSource(_ version: KEKVersion, of kind: JobKind, from wanted: KEKVersion?) -> Bool {
        guard wanted == nil || wanted == version else { return false }
        let lifecycle = keyring.lifecycle
        guard lifecycle.refusal(of: version, forReencryption: true) == nil else { return false }
        return kind != .rewrap || version != lifecycle.primary
    }

    /// - Throws: `.notPermitted` unless it is running.
    public func pauseJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .paused, from: [.running], now)
    }

    /// - Throws: `.notPermitted` unless it is paused.
    public func resumeJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .running, from: [.paused], now)
        jobsRunner.wake()
    }

    /// What is done stays done.
    ///
    /// - Throws: `.notPermitted` unless it is running or paused.
    public func cancelJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .cancelled, from: [.running, .paused], now)
    }

    private func setState(of kind: JobKind, _ new: JobState, from old: [JobState], _ now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard var job = state.jobs[kind], old.contains(job.progress.state) else { throw .notPermitted }
            job.progress.state = new
            if new == .cancelled { job.progress.ended = now }
            transaction.set(job)
        }
    }

    /// Marks a KEK version compromised, which refuses its files at once, and begins to re-encrypt what it guarded; those
    /// files read again as they are done, flagged `needsRegeneration`. If it is the primary, a new one is made first.
    ///
    /// - Throws: `.busy` if a revocation is unfinished; `.key` with what the state machine refuses.
    public func revoke(_ version: KEKVersion, reason: String, now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard state.jobs[.revoke]?.progress.state.isUnfinished != true else { throw .busy }
            do throws(KeyringError) {
                let prepared = try keyring.prepare { lifecycle throws(LifecycleError) in
                    if lifecycle.primary == version { _ = try lifecycle.rotate(now: now) }
                    try lifecycle.compromise(version, reason: reason, now: now)
                }
                transaction.put(RecordKey(.lifecycle), prepared.lifecycleBytes)
                transaction.prepared = prepared
                var job = newJob(.revoke, version, nil, now)
                // Counted by hand: the version is not compromised before this transaction is.
                job.progress.total = UInt64(max(0, state.versionCounts[version] ?? 0))
                job.progress.successor = prepared.lifecycle.primary
                transaction.set(job)
            } catch { throw .key(error) }
        }
        try wrapTreeKey(now: now)
        jobsRunner.wake()
    }
}
