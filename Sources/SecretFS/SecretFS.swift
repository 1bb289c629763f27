public import Fuse
import Glibc
import Keyring
public import SecretTree
import Synchronization

/// A keyring's tree as a mounted file system, with its control directory.
///
/// The calls of `FileSystem` are in the folders: Files (the tree), Replace (whole values), Caching (what the kernel
/// is told to drop), Control (the directory `.letterlock`). Each is one walk: look at the handle, do it in the tree,
/// answer. Access times are kept as they were set: reading a file changes nothing.
public final class SecretFS: FileSystem {
    public let tree: SecretTree
    let options: SecretFSOptions
    let nodes: NodeTable
    let writers: HandleTable<Writer>
    let readers: HandleTable<Reader>
    let controlFiles: HandleTable<OpenControlFile>
    let invalidator = PageInvalidator()
    let keyClock = KeyClock()
    let gate: Gate
    let policyParts = PolicyParts()
    let hookParts = PolicyParts()
    let hooks: HookRules
    /// Who has read what the last revocation concerns, as far as the audit log is read.
    let readership = Mutex<RevocationReadership?>(nil)
    /// The log is longer than the one who asked for that had time to read.
    let isReadershipAsked = Atomic(false)
    /// What a running revocation concerns, as it was listed last.
    let affected = Mutex<AffectedPaths?>(nil)
    let readerTable: ReaderTable
    let meter = Meter()
    /// Changes whose time came, counted.
    let dueChanges = Atomic<Int>(0)
    let clockWatch: Mutex<ClockWatch>
    let started = Timestamp.now()
    /// Sessions that gather a value; most calls find none and look no further.
    let openSessions = Atomic<Int>(0)
    /// The rows of the ledger for old values that somebody is still reading, by the node that has the value.
    let snapshotCells = Mutex<[NodeID: LedgerCell]>([:])
    /// Nodes whose value an earlier server replaced with its last breath: the kernel may have pages of the old one.
    let leftBehind = Mutex<[NodeID]>([])
    /// Values that were replaced; see `attributeValidity`.
    let valueChanges = Atomic<UInt64>(0)

    /// Every change comes through the mount, so the kernel may believe what it knows for long (seconds).
    static let validity: Double = 12 * 3600
    /// How long a command or a close may wait until the kernel has dropped its pages (seconds).
    static let dropLimit: Double = 2

    public init(_ tree: SecretTree, options: SecretFSOptions) {
        self.tree = tree
        self.options = options
        nodes = NodeTable(tree)
        let clock = options.clockAtMount ?? .now
        clockWatch = Mutex(ClockWatch(wall: clock.wall, boot: clock.boot))
        gate = Gate(tree, audit: options.audit)
        readerTable = ReaderTable(tree)
        gate.add(readerTable)
        gate.add(meter)
        let teller = EventTeller(options.events, gate) { [keyClock] in keyClock.wake() }
        gate.add(teller)
        let era = UInt16(truncatingIfNeeded: options.era)
        writers = HandleTable(era: era)
        hooks = HookRules(tree, writers, options)
        readers = HandleTable(era: era)
        controlFiles = HandleTable(era: era)
        options.ledger?.note(policy: gate.guardian.generation)
        // A predecessor has told what it found at the opening.
        if !tree.inheritsHolds { for problem in tree.problems { teller.found(problem) } }
        tree.report(to: teller)
        if let ledger = options.ledger { takeUp(ledger) }
        tellRotations()
    }

    /// Tells this server's handles from those of its predecessors.
    var era: UInt16 { UInt16(truncatingIfNeeded: options.era) }

    /// Has the kernel told of what it must drop; before this, and without it, nothing is.
    public func connect(_ notifier: Notifier) { connect { notifier.invalidateNode($0) } }

    /// - Parameter invalidate: Drops a node's pages; called by a thread that may wait for it.
    public func connect(_ invalidate: @escaping @Sendable (UInt64) -> Void) {
        invalidator.start(invalidate)
        dropWhatPredecessorsLeft()
        if !tree.isReadOnly {
            hooks.engine?.start()
            keyClock.start { [weak self] in
                self?.doWhatIsDue(at: .now)
                self?.reportRevocations()
                self?.readOn()
            }
        }
        tree.startJobs()
    }

    /// Ends this server's part and leaves what is being gathered to the next one. When no request is served any more.
    public func leave() {
        keyClock.stop()
        hooks.engine?.stop()
        invalidator.stop()
    }

    /// Commits what is still being gathered. For a clean unmount: when no request is served any more.
    public func drain() {
        keyClock.stop()
        for session in nodes.sessions() { finish(session) }
        hooks.engine?.stop()
        invalidator.stop()
    }
}
