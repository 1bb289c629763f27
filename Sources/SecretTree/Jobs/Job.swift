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
    /// Erases from the store's files what a destroyed key or a cancelled job has left there.
    case erase = 4

    /// Whichever runs and comes first here is carried on, the others wait.
    static let byUrgency: [JobKind] = [.revoke, .erase, .reencrypt, .rewrap]
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
    /// Of a revocation that has ended: its report is in the audit log.
    public var isReported = false
    /// What a running job waits for at the moment; it goes on by itself. Not stored.
    public var obstacle: String?

    public init(kind: JobKind) { self.kind = kind }
}

/// A job as its record holds it: written with each batch, so that a crash loses no more than one.
///
///     kind 1 | state 1 | flags 2 | version 4 | successor 4 | cursor 8 | end 8 | scope 8 |
///     done 8 | total 8 | failed 8 | started 12 | ended 12 | new contents 8 | done before 8
///
/// Flags: 1 looks again, 2 is erasing, 4 is reported.
struct JobRecord: Sendable, Equatable {
    var progress: JobProgress
    /// Something came to lie behind the cursor that is the job's to do: it goes through everything once more.
    var looksAgain = false
    /// All is gone through; what that has left in the store's files is still to be erased.
    var isErasing = false
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
        let flags = bytes.number(UInt16.self, at: 2)
        looksAgain = flags & 1 != 0
        isErasing = flags & 2 != 0
        progress.isReported = flags & 4 != 0
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
        let flags: UInt32 = (looksAgain ? 1 : 0) | (isErasing ? 2 : 0) | (progress.isReported ? 4 : 0)
        bytes.put(UInt32(progress.kind.rawValue) | UInt32(progress.state.rawValue) << 8 | flags << 16, at: 0)
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
