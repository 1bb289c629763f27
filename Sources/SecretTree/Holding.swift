public import Keyring
internal import Storage
internal import Synchronization
internal import Threads

/// Nodes that the kernel still knows stay, even if their last name is gone.
extension SecretTree {
    /// One holder more.
    public func hold(_ id: NodeID) {
        holds.withLock { $0[id, default: 0] += 1 }
    }

    /// `count` holders fewer. With the last one a node without a name goes. Never more than were there: the kernel
    /// may forget what an earlier server was asked for.
    public func release(_ id: NodeID, count: Int = 1, now: Timestamp) {
        let isLast = holds.withLock { holds in
            guard let held = holds[id] else { return true }
            holds[id] = held > count ? held - count : nil
            return held <= count
        }
        guard isLast, !isReadOnly, lock.reading({ state.orphans.contains(id) }) else { return }
        // What fails now is tried again at the next opening.
        try? reap(id, now: now)
    }

    func isHeld(_ id: NodeID) -> Bool { holds.withLock { $0[id] != nil } }

    /// Removes a node without a name, unless it is held again.
    func reap(_ id: NodeID, now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard state.orphans.contains(id), !isHeld(id) else { return }
            transaction.freesSpace = true
            transaction.isAside = true
            transaction.endOrphan(id)
            do throws(TreeError) {
                var node = try transaction.node(id)
                // Something else could only have given it a name through a replayed record.
                guard node.attributes.linkCount == 0 else { return }
                try transaction.erase(&node)
            } catch {
                switch error {
                case .notFound, .tampered: return
                default: throw error
                }
            }
        }
    }
}
