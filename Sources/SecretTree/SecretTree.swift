public import Keyring
public import Sodium
internal import Storage
internal import Synchronization
internal import Threads

/// A keyring's secrets as a tree of nodes over a store of sealed records.
///
/// Every call is one walk: take the lock, open the records it needs, and for a change stage what shall be written
/// and commit it as one transaction together with the new root. What returned is safe from the death of the
/// process; `sync` makes it safe from the loss of power.
///
/// Lock order: `changing`, then `lock`, then the store's own, then the small mutexes of `cache`, `holds` and `problemList`. A
/// change that is made beside readers takes `lock` within the store's commit; nobody else holds one of these two and waits
/// for the other then, as readers have no need of what a commit holds.
public final class SecretTree: Sendable {
    /// The unlocked keys that open this tree.
    public let keyring: UnlockedKeyring
    /// True if nothing may be changed.
    public let isReadOnly: Bool

    let store: any RecordStore
    /// Guards `state`; never held over a reply to the kernel.
    let lock = ReadWriteLock()
    /// Held by the one who changes records.
    let changing = Monitor()
    let seals: TreeSeals
    let state: TreeState
    let soundness = Soundness()
    let cache = NodeCache()
    let holds = Mutex<[NodeID: Int]>([:])
    let problemList = Mutex<[Problem]>([])
    /// Held by the one who collects garbage.
    let collecting = Mutex<Void>(())
    let jobsRunner = JobsRunner()
    let demand = Demand()
    /// The thread of the jobs has begun to put in order what the last process left.
    let isInOrder = Atomic(false)
    /// What a job over a part of the tree found there.
    let jobScope = Mutex<JobScope?>(nil)
    private let synced = Mutex<UInt64>(0)
    /// Told of each transaction; set before the first one that it shall be told of.
    let witness = Mutex<(any CommitWitness)?>(nil)
    /// Told of damage and of the ends of jobs; it lives as long as this does.
    let observer = Mutex<(any TreeObserver)?>(nil)
    /// The tree is served to a kernel that knows nodes from an earlier server.
    public let inheritsHolds: Bool

    init(
        store: any RecordStore, keyring: UnlockedKeyring, seals: TreeSeals, state: TreeState, isReadOnly: Bool,
        inheritsHolds: Bool = false
    ) {
        self.store = store
        self.keyring = keyring
        self.seals = seals
        self.state = state
        self.isReadOnly = isReadOnly
        self.inheritsHolds = inheritsHolds
        openedEpoch = state.root.epoch
    }

    /// A key for a purpose outside of the tree: the same for as long as the store lives, also under another root key.
    public func deriveKey(_ label: StaticString) throws(KeyringError) -> SecretKey {
        do {
            return try seals.others.withKey { (key: borrowing BorrowedKey) throws(SodiumError) -> SecretKey in
                try Derivation.derive(label, context: UnsafeRawBufferPointer(start: nil, count: 0), from: key)
            }
        } catch { throw .cannotLock }
    }

    /// The epoch that was found when the tree was opened, before anything was put in order.
    public let openedEpoch: UInt64

    /// Has `witness` told of every transaction from now on.
    public func report(commitsTo witness: any CommitWitness) { self.witness.withLock { $0 = witness } }

    /// Has `observer` told of what is found and finished from now on.
    public func report(to observer: any TreeObserver) { self.observer.withLock { $0 = observer } }

    /// Waits until a tree that is being inspected beside its readers may be changed; see `open`. Changes do so by
    /// themselves, with what their caller holds meanwhile.
    ///
    /// - Throws: `.tampered` if it may not.
    public func waitUntilSound() throws(TreeError) { try soundness.wait() }

    /// The number of transactions this store has seen; to be remembered outside it.
    public var epoch: UInt64 { lock.reading { state.root.epoch } }

    /// The last epoch that `sync` has made safe from power loss: what may be remembered outside the store. 0 before
    /// the first.
    public var durableEpoch: UInt64 { synced.withLock { $0 } }

    /// Regular files with a name.
    public var fileCount: Int { lock.reading { Int(clamping: state.root.fileCount) } }

    /// What was found damaged since the tree was opened, at most `problemLimit` of it.
    public var problems: [Problem] { problemList.withLock { $0 } }

    static let problemLimit = 256

    /// Remembers a damaged thing for `status`.
    public func report(_ problem: Problem) {
        let isNew = problemList.withLock { list in
            let isKnown = list.contains {
                $0.description == problem.description && (problem.node == nil || $0.node == problem.node)
            }
            guard list.count < Self.problemLimit, !isKnown else { return false }
            list.append(problem)
            return true
        }
        if isNew { observer.withLock { $0 }?.found(problem) }
    }

    /// On return everything done before survives the loss of power.
    public func sync() throws(TreeError) {
        guard !isReadOnly else { return }
        let reached = epoch
        do { try store.sync() } catch { throw TreeError(error) }
        synced.withLock { $0 = max($0, reached) }
    }

    /// Folds and closes the store. The tree cannot be used afterwards.
    public func close() throws(TreeError) {
        jobsRunner.stop()
        // Nothing was changed, and folded without its localizer the store would say nothing of what was tampered with.
        guard (try? soundness.wait()) != nil else { return }
        do { try store.close() } catch { throw TreeError(error) }
    }
}

/// Who notes, outside the store, what a transaction stands for, so that after a crash its epoch tells whether it has
/// happened.
public protocol CommitWitness: AnyObject, Sendable {
    /// The calling thread is about to commit the transaction that makes `epoch`. Nothing else is committed meanwhile.
    func willCommit(epoch: UInt64)
    /// It has not happened; the next transaction will have this epoch.
    func didNotCommit(epoch: UInt64)
}

/// The keys that seal a tree's records, each derived for one purpose.
struct TreeSeals: Sendable {
    /// Nodes, entries, attributes, targets, maps.
    let records: RecordSeal
    /// The root and the localizer: under the keyring's root key, so that they are checked first.
    let root: RecordSeal
    let freshness: FreshnessHash
    /// Hashes names to entry keys.
    let names: SecretKey
    /// What keys are derived from that stay when the root key changes.
    let others: SecretKey
    let store: StoreID
}

/// What changes with transactions. Guarded by the tree's lock.
final class TreeState: @unchecked Sendable {
    // Written under the tree's write lock alone, read under either; but `localizer` and its seal are written inside the
    // store's commit, and read by a fold alone, which finds them in step with the records.
    var root: Root
    var localizer: Localizer
    /// What the localizer is sealed with if no longer with the seal that the tree was opened with.
    var localizerSeal: RecordSeal?
    /// Records that are not what the root says: their key, and the element that the root's sum holds for it.
    var suspects: [RecordKey: HashSum?] = [:]
    /// How many contents each KEK version guards.
    var versionCounts: [KEKVersion: Int] = [:]
    /// The one that guards them all; nil if there are several.
    var onlyVersion: KEKVersion? {
        var only: KEKVersion?
        for (version, count) in versionCounts where count > 0 {
            guard only == nil else { return nil }
            only = version
        }
        return only
    }
    /// Nodes without a name that are still held open, and replacements that are being gathered.
    var orphans: Set<NodeID> = []
    /// Those of them that an earlier process's job had begun to copy a content to.
    var copies: Set<NodeID> = []
    var jobs: [JobKind: JobRecord] = [:]
    /// What they could not do.
    var jobFailures: [JobKind: JobFailures] = [:]
    /// Revocations before the last one, by their places among them.
    var earlierRevocations: [UInt64: JobRecord] = [:]
    /// The records that were changed since a change began to be rehearsed; nil if none is, or its keys are not these any more.
    var touched: Set<RecordKey>?
    /// The large content that a job copies at the moment.
    var copy: ContentCopy?
    /// Contents whose maps are still to be collected.
    var garbage: Set<UInt64> = []

    init(root: Root, localizer: Localizer) {
        self.root = root
        self.localizer = localizer
    }
}

/// Nodes that were opened lately: a place for each number modulo the size, the later one stays. Holds attributes,
/// never names, targets or contents.
final class NodeCache: Sendable {
    private static let capacity: UInt64 = 16_384
    /// Numbers are given in turn, so that a small keyring needs few of them.
    private static let chunkLength = 64

    private typealias Chunk = ContiguousArray<NodeRecord?>
    private let chunks = Mutex<[Chunk]>(Array(repeating: Chunk(), count: Int(capacity) / chunkLength))

    private static func place(of id: NodeID) -> (chunk: Int, index: Int) {
        let (chunk, index) = Int(id.rawValue % capacity).quotientAndRemainder(dividingBy: chunkLength)
        return (chunk, index)
    }

    subscript(id: NodeID) -> NodeRecord? {
        get {
            let (chunk, index) = Self.place(of: id)
            return chunks.withLock { chunks in
                guard !chunks[chunk].isEmpty, let node = chunks[chunk][index], node.attributes.id == id else {
                    return nil
                }
                return node
            }
        }
        set {
            let (chunk, index) = Self.place(of: id)
            chunks.withLock { chunks in
                if chunks[chunk].isEmpty {
                    guard newValue != nil else { return }
                    chunks[chunk] = Chunk(repeating: nil, count: Self.chunkLength)
                }
                if newValue != nil || chunks[chunk][index]?.attributes.id == id { chunks[chunk][index] = newValue }
            }
        }
    }
}
