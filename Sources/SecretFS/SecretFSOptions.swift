public import Access
public import Fuse
public import Keyring
public import SecretTree

/// How a keyring's tree is shown and what the control directory tells about its server.
public struct SecretFSOptions: Sendable {
    public enum CacheMode: Sendable {
        /// What was read stays in the kernel's page cache until it changes or is revoked.
        case kernel
        /// No plaintext in the page cache: every read comes here.
        case none
    }

    public var cacheMode = CacheMode.kernel
    /// Everything is shown as owned by them (`-o uid=`, `-o gid=`); what is stored stays.
    public var uid: UInt32?
    public var gid: UInt32?
    /// Taken off the modes of what is created, besides the caller's own mask.
    public var umask: UInt32 = 0
    public var isReadOnly = false
    /// Who owns the control directory: the mount's owner.
    public var ownerUID: UInt32
    public var ownerGID: UInt32
    public var mountpoint = ""
    /// The store's directory, and the key file that opens it, if one does.
    public var storePath = ""
    public var keyFilePath: String?
    /// How many servers this mount has had.
    public var generation = 1
    /// Letterlock's version, for `status`.
    public var programVersion = ""
    /// Tells this file system's handles from those of others that this mount has had; grows by one with each.
    public var era = 1
    /// What the guardian knows, for `status`.
    public var guardianReport: (@Sendable () -> GuardianReport)?
    /// The lease of the unsealed keys, for `status` and `metrics`; nil if there is none.
    public var leaseReport: (@Sendable () -> LeaseReport)?
    /// What outlives this server; nil if nothing does.
    public var ledger: Ledger?
    /// What happens is told there; outlives this server where its memory does.
    public let events: EventStream
    /// What runs hooks; nil if nothing does.
    public var hooks: HookStage?
    /// Where accesses are recorded; nil for nowhere.
    public var audit: AuditLog?
    /// What the clocks showed when the mount was made: a server that takes over, or a keyring that is unlocked again, does not
    /// believe a clock that was set ahead since. Nil for now.
    public var clockAtMount: ScheduleClock?
    /// The guardian's process, if there is one.
    public var guardianProcess: Int32?

    /// What was asked of key services, for `metrics`.
    public var keyServiceReport: (@Sendable () -> [KeyServiceCalls])?
    /// When `verify`, for which it is not mounted, has last found nothing wrong; nil if it never did.
    public var lastVerification: Timestamp?
    /// When the keyring was last backed up, and where to remember it; nil if nobody does.
    public var backups: BackupNotes?

    public struct KeyServiceCalls: Sendable {
        public var service: String
        /// It has answered with what was asked for.
        public var isDone: Bool
        /// By how long they took: one more than there are bounds; not summed up.
        public private(set) var counts = [Int](repeating: 0, count: bounds.count + 1)
        /// That they took together.
        public private(set) var seconds = 0.0
        /// Upper bounds, seconds.
        public static let bounds = [0.001, 0.005, 0.025, 0.1, 0.25, 1, 2.5, 10, 30]

        public init(service: String, isDone: Bool) {
            self.service = service
            self.isDone = isDone
        }

        public mutating func add(seconds: Double) {
            counts[Self.bounds.firstIndex { seconds <= $0 } ?? Self.bounds.count] += 1
            self.seconds += seconds
        }
    }

    public struct BackupNotes: Sendable {
        public var last: @Sendable () -> Timestamp?
        /// Told as of when a backup is, and whether a later one can go by it.
        public var note: @Sendable (Timestamp, Bool) -> Void
        /// Where it is remembered what backups held.
        public var catalogues: BackupCatalogues
        /// A recipient who can open one backup, as the command line would be told it.
        public var recipient: @Sendable (String) throws(Errno) -> any KeyService

        public init(
            last: @escaping @Sendable () -> Timestamp?, note: @escaping @Sendable (Timestamp, Bool) -> Void,
            catalogues: BackupCatalogues, recipient: @escaping @Sendable (String) throws(Errno) -> any KeyService
        ) {
            self.last = last
            self.note = note
            self.catalogues = catalogues
            self.recipient = recipient
        }
    }

    public struct GuardianReport: Sendable {
        /// Servers that took the place of one that had died.
        public var restarts: Int
        /// How the last one has ended; empty if none has.
        public var lastEnd: String
        /// Whether the kernel sends again what a dead server had not answered; nil until that was tried.
        public var kernelResends: Bool?
        /// Upgrades tried, and why the last one has failed.
        public var upgrades: Int
        public var upgradeFailure: String?

        public init(
            restarts: Int, lastEnd: String, kernelResends: Bool?, upgrades: Int, upgradeFailure: String?
        ) {
            self.restarts = restarts
            self.lastEnd = lastEnd
            self.kernelResends = kernelResends
            self.upgrades = upgrades
            self.upgradeFailure = upgradeFailure
        }
    }

    public init(ownerUID: UInt32, ownerGID: UInt32, events: EventStream = EventStream()) {
        self.events = events
        self.ownerUID = ownerUID
        self.ownerGID = ownerGID
    }
}
