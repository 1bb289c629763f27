import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// The policy that holds, and what it said lately to whom.
final class PolicyGuard: Sendable {
    struct Current: Sendable {
        var policy: Policy
        /// As it was written; nil if none ever was, or it cannot be trusted.
        var document: Document?
    }

    private let tree: SecretTree
    private let current: Mutex<Current>
    private let number: Atomic<UInt32>
    /// One replacement at a time.
    private let replacing = Mutex<Void>(())
    let decisions = DecisionCache()

    init(_ tree: SecretTree) {
        self.tree = tree
        let found = Self.load(from: tree)
        number = Atomic(found.document?.generation ?? 0)
        current = Mutex(found)
    }

    /// Whoever cannot trust it allows nothing: not what was tampered with, and not what a newer version wrote.
    private static func load(from tree: SecretTree) -> Current {
        do throws(TreeError) {
            guard let document = try tree.document(.policy) else { return Current(policy: .none) }
            let text = String(decoding: document.bytes, as: UTF8.self)
            do throws(PolicyMistakes) {
                let policy = try Policy.parse(text, accounts: .ofThisMachine(), isNew: false)
                return Current(policy: policy, document: document)
            } catch {
                tree.report(
                    Problem(
                        node: nil, description: "the policy is not understood, so that nothing is allowed",
                        isDamage: false))
                return Current(policy: .damaged(), document: document)
            }
        } catch { return Current(policy: .damaged()) }
    }

    var policy: Policy { current.withLock { $0.policy } }

    /// Counts the policies that this keyring has had. A number that was read before a decision is never newer than it.
    var generation: UInt32 { number.load(ordering: .sequentiallyConsistent) }

    /// The document as it was written, for `policy`.
    ///
    /// - Throws: EBADMSG if it cannot be trusted.
    func text() throws(Errno) -> String {
        let current = current.withLock { $0 }
        guard let document = current.document else {
            guard !current.policy.isDamaged else { throw Errno(EBADMSG) }
            return "default = \"modes\"\n"
        }
        return String(decoding: document.bytes, as: UTF8.self) + "\n"
    }

    /// Takes another policy instead, in one transaction. It holds when this returns.
    ///
    /// - Throws: EINVAL if there is any mistake in it, and the old one stays.
    func replace(_ text: String) throws(Errno) {
        let policy: Policy
        do throws(PolicyMistakes) { policy = try Policy.parse(text, accounts: .ofThisMachine(), isNew: true) } catch {
            throw .invalid
        }
        try replacing.withLock { _ throws(Errno) in
            let document = try answering { () throws(TreeError) in
                try tree.replace(.policy, with: Array(text.utf8), now: .now())
            }
            current.withLock { $0 = Current(policy: policy, document: document) }
            number.store(document.generation, ordering: .sequentiallyConsistent)
        }
    }
}

/// Decisions by process, so that an opening that is like an earlier one costs a look.
final class DecisionCache: Sendable {
    struct Key: Hashable {
        var pid: Int32
        var uid: UInt32
        var gid: UInt32
        var operations: UInt8
        var node: NodeID
    }

    private struct Known: Sendable {
        var decision: Decision
        /// Kept, so that no other one can be taken for it.
        var process: ProcessIdentity
        var policy: UInt32
        var paths: UInt64
    }

    private final class Shard: Sendable { let known = Mutex<[Key: Known]>([:]) }
    private static let shardCount = 16
    private static let shardLimit = 2048
    private let shards = (0..<shardCount).map { _ in Shard() }
    let use = CacheUse()

    private func shard(of key: Key) -> Shard {
        shards[
            Int(truncatingIfNeeded: key.node.rawValue &+ UInt64(UInt32(bitPattern: key.pid))) & (Self.shardCount - 1)]
    }

    func decision(for key: Key, _ process: ProcessIdentity, policy: UInt32, paths: UInt64) -> Decision? {
        let decision = shard(of: key).known.withLock { known -> Decision? in
            guard let found = known[key], found.process === process, found.policy == policy, found.paths == paths else {
                return nil
            }
            return found.decision
        }
        use.count(hit: decision != nil)
        return decision
    }

    func keep(_ decision: Decision, for key: Key, _ process: ProcessIdentity, policy: UInt32, paths: UInt64) {
        shard(of: key).known.withLock { known in
            if known.count >= Self.shardLimit { known.removeAll(keepingCapacity: true) }
            known[key] = Known(decision: decision, process: process, policy: policy, paths: paths)
        }
    }
}
