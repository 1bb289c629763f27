import Keyring
import SecretTree
import Synchronization

/// What is known of a node while the kernel knows it.
struct NodeState {
    /// How often the kernel was told of it (EntryReply) less what it forgot.
    var lookups: UInt64 = 0
    /// Handles open on it, and how many of them use the page cache.
    var openHandles = 0
    var cachedHandles = 0
    /// Writable handles that were not flushed since they last wrote to the file itself.
    var activeWriters = 0
    /// Handles opened for writing alone with which nothing was done yet: a truncation may belong to the opening.
    var freshWriters: [Writer] = []
    /// The value that is being gathered for it.
    var session: ReplaceSession?
    /// Handles that read past the page cache.
    var readers: [Reader] = []
    /// Old values that some of them are still reading, by generation.
    var snapshots: [UInt32: NodeID] = [:]
    /// Grows with every replacement of the value.
    var valueGeneration: UInt32 = 0
    /// The value is being replaced at this moment.
    var isReplacing = false
    /// When the value was last replaced, and the file last opened with the page cache (seconds, CLOCK_MONOTONIC).
    var lastReplaced = -Double.infinity
    var lastCachedOpening = -Double.infinity
    /// It was opened with the page cache, so that the kernel may have pages of it.
    var mayHavePages = false
    /// Grows with every change that the kernel does not see. Pages from before must not be kept at an opening.
    var contentGeneration: UInt32 = 0
    /// The generation that the kernel's pages are of at the oldest.
    var cleanGeneration: UInt32 = 0

    var isUnused: Bool { lookups == 0 && openHandles == 0 }
}

/// The nodes that the kernel knows, in shards so that workers do not wait for each other.
///
/// A shard's lock may be taken under the tree's lock, so nothing of the tree but `hold` is called under it.
final class NodeTable: Sendable {

    /// Arrays hold no noncopyable values: a class around each.
    private final class Shard: Sendable { let nodes = Mutex<[NodeID: NodeState]>([:]) }
    private static let shardCount = 32
    private let shards: [Shard] = (0..<shardCount).map { _ in Shard() }
    private let tree: SecretTree

    init(_ tree: SecretTree) { self.tree = tree }

    private func shard(of id: NodeID) -> Shard { shards[Int(id.rawValue % UInt64(Self.shardCount))] }

    /// Changes the state of a node that is known; nil if it is not.
    func update<R>(_ id: NodeID, _ body: (inout NodeState) -> R) -> R? {
        shard(of: id).nodes.withLock { nodes in
            guard let index = nodes.index(forKey: id) else { return nil }
            return body(&nodes.values[index])
        }
    }

    /// The kernel is told of a node once more.
    func hold(_ id: NodeID) {
        change(id) { $0.lookups += 1 }
    }

    /// Changes the state of a node, which is held from now on if it was not.
    func change<R>(_ id: NodeID, _ body: (inout NodeState) -> R) -> R {
        shard(of: id).nodes.withLock { nodes in
            if nodes[id] == nil {
                tree.hold(id)
                nodes[id] = NodeState()
            }
            return body(&nodes[id]!)
        }
    }

    /// The kernel forgets so many lookups. It may do so of nodes that an earlier server told it of.
    func forget(_ id: NodeID, count: UInt64) {
        end(id) { $0.lookups -= min($0.lookups, count) }
    }

    func closeHandle(_ id: NodeID, _ body: (inout NodeState) -> Void) {
        end(id) { state in
            state.openHandles -= min(1, state.openHandles)
            body(&state)
        }
    }

    private func end(_ id: NodeID, _ body: (inout NodeState) -> Void) {
        let isLast = shard(of: id).nodes.withLock { nodes in
            guard let index = nodes.index(forKey: id) else { return false }
            body(&nodes.values[index])
            guard nodes.values[index].isUnused else { return false }
            nodes.remove(at: index)
            return true
        }
        if isLast { tree.release(id, now: .now()) }
    }

    /// Nodes of which the kernel may have pages.
    func withPages() -> [NodeID] {
        shards.flatMap { shard in
            shard.nodes.withLock { nodes in nodes.filter { $0.value.mayHavePages }.map(\.key) }
        }
    }

    /// Values that are being gathered.
    func sessions() -> [ReplaceSession] {
        shards.flatMap { shard in shard.nodes.withLock { nodes in nodes.values.compactMap(\.session) } }
    }
}
