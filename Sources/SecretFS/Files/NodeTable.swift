import Keyring
import SecretTree
import Synchronization

/// What is known of a node that was opened, or written to, while the kernel knows it. There may be very many of them.
struct NodeState {
    /// Handles open on it, and how many of them use the page cache.
    var openHandles: Int32 = 0
    var cachedHandles: Int32 = 0
    /// Those with the page cache that an earlier policy than `policy` let pass.
    var staleHandles: Int32 = 0
    var policy: UInt32 = 0
    /// Writable handles that were not flushed since they last wrote to the file itself.
    var activeWriters: Int32 = 0
    /// Grows with every replacement of the value.
    var valueGeneration: UInt32 = 0
    /// Grows with every change that the kernel does not see. Pages from before must not be kept at an opening.
    var contentGeneration: UInt32 = 0
    /// The generation that the kernel's pages are of at the oldest.
    var cleanGeneration: UInt32 = 0
    /// When the value was last replaced, and the file last opened with the page cache (seconds, CLOCK_MONOTONIC).
    var lastReplaced = -Double.infinity
    var lastCachedOpening = -Double.infinity
    /// The value is being replaced at this moment.
    var isReplacing = false
    /// It was opened, so that the kernel may have pages of it.
    var mayHavePages = false
    /// An earlier server may have opened it: the kernel may have descriptors and pages that are not counted here.
    var isInherited = false
    /// The kernel has forgotten it, though handles of it are still to be closed.
    var isForgotten = false

    /// What few nodes have at any moment.
    private struct Rarities {
        var freshWriters: [Writer] = []
        var session: ReplaceSession?
        var readers: [Reader] = []
        var snapshots: [UInt32: NodeID] = [:]

        var isEmpty: Bool { freshWriters.isEmpty && session == nil && readers.isEmpty && snapshots.isEmpty }
    }

    /// One or none: a pointer where the rarities themselves would take four.
    private var boxed: [Rarities] = []

    private var rarities: Rarities {
        get { boxed.first ?? Rarities() }
        _modify {
            if boxed.isEmpty { boxed.append(Rarities()) }
            defer { if boxed[0].isEmpty { boxed = [] } }
            yield &boxed[0]
        }
    }

    /// Handles opened for writing alone with which nothing was done yet: a truncation may belong to the opening.
    var freshWriters: [Writer] {
        get { rarities.freshWriters }
        _modify { yield &rarities.freshWriters }
    }
    /// The value that is being gathered for it.
    var session: ReplaceSession? {
        get { rarities.session }
        _modify { yield &rarities.session }
    }
    /// Handles that read past the page cache.
    var readers: [Reader] {
        get { rarities.readers }
        _modify { yield &rarities.readers }
    }
    /// Old values that some of them are still reading, by generation.
    var snapshots: [UInt32: NodeID] {
        get { rarities.snapshots }
        _modify { yield &rarities.snapshots }
    }
}

/// The nodes that the kernel knows, in shards so that workers do not wait for each other.
///
/// A shard's lock may be taken under the tree's lock, so nothing of the tree but `hold` is called under it.
final class NodeTable: Sendable {

    private struct Contents {
        /// How often the kernel was told of a node (EntryReply) less what it forgot. A listing tells it of very many, so
        /// what is known of opened ones is kept apart.
        var lookups: [NodeID: UInt64] = [:]
        var states: [NodeID: NodeState] = [:]

        func knows(_ id: NodeID) -> Bool { lookups[id] != nil || states[id] != nil }

        /// Forgets what nobody refers to any more; true if there was something.
        mutating func drop(_ id: NodeID) -> Bool {
            guard lookups[id] == nil, states[id]?.openHandles ?? 0 == 0 else { return false }
            states[id] = nil
            return true
        }
    }

    /// Arrays hold no noncopyable values: a class around each.
    private final class Shard: Sendable { let contents = Mutex(Contents()) }
    private static let shardCount = 32
    private let shards: [Shard] = (0..<shardCount).map { _ in Shard() }
    private let tree: SecretTree

    private let inherits: Bool
    /// What is known of a node at its first opening.
    private let initialState: NodeState

    init(_ tree: SecretTree) {
        self.tree = tree
        inherits = tree.inheritsHolds
        var state = NodeState()
        if inherits {
            state.isInherited = true
            state.mayHavePages = true
            // Pages that the kernel has may be older than the last change.
            state.contentGeneration = 1
            state.lastReplaced = SecretFS.monotonicTime
        }
        initialState = state
    }

    private func shard(of id: NodeID) -> Shard { shards[Int(id.rawValue % UInt64(Self.shardCount))] }

    /// Changes the state of a node that was opened; nil if there is none.
    func update<R>(_ id: NodeID, _ body: (inout NodeState) -> R) -> R? {
        shard(of: id).contents.withLock { contents in
            guard let index = contents.states.index(forKey: id) else { return nil }
            return body(&contents.states.values[index])
        }
    }

    /// The kernel is told of a node once more.
    func hold(_ id: NodeID) {
        shard(of: id).contents.withLock { contents in
            if !contents.knows(id) { tree.hold(id) }
            contents.lookups[id, default: 0] += 1
        }
    }

    /// Changes the state of a node, which is held from now on if it was not.
    func change<R>(_ id: NodeID, _ body: (inout NodeState) -> R) -> R {
        shard(of: id).contents.withLock { contents in
            if !contents.knows(id) { tree.hold(id) }
            return body(&contents.states[id, default: initialState])
        }
    }

    /// The kernel forgets so many lookups. It may do so of nodes that an earlier server told it of.
    func forget(_ id: NodeID, count: UInt64) {
        let isLast = shard(of: id).contents.withLock { contents in
            guard let known = contents.lookups[id] else {
                guard inherits else { return false }
                contents.states[id]?.isForgotten = true
                return contents.drop(id)
            }
            contents.lookups[id] = known > count ? known - count : nil
            if inherits, contents.lookups[id] == nil { contents.states[id]?.isForgotten = true }
            return contents.drop(id)
        }
        if isLast { tree.release(id, now: .now()) }
    }

    func closeHandle(_ id: NodeID, _ body: (inout NodeState) -> Void) {
        let isLast = shard(of: id).contents.withLock { contents in
            guard let index = contents.states.index(forKey: id) else { return false }
            contents.states.values[index].openHandles -= min(1, contents.states.values[index].openHandles)
            body(&contents.states.values[index])
            // What an earlier server told the kernel of is not known here: the kernel says when it is done with it.
            if inherits, !contents.states.values[index].isForgotten { return false }
            return contents.drop(id)
        }
        if isLast { tree.release(id, now: .now()) }
    }

    /// Nodes of which the kernel may have pages.
    func withPages() -> [NodeID] {
        shards.flatMap { shard in
            shard.contents.withLock { $0.states.filter { $0.value.mayHavePages }.map(\.key) }
        }
    }

    /// Values that are being gathered.
    func sessions() -> [ReplaceSession] {
        shards.flatMap { shard in shard.contents.withLock { $0.states.values.compactMap(\.session) } }
    }
}
