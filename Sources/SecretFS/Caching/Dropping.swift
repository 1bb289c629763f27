import Keyring
import SecretTree

extension SecretFS {
    /// Has the kernel drop its pages of nodes, and waits until it has, though not for ever.
    func dropPages(of ids: [NodeID]) {
        let generations = ids.map { id in nodes.update(id) { $0.contentGeneration } }
        guard invalidator.drop(ids.map(\.rawValue), limit: Self.dropLimit) else { return }
        for (id, generation) in zip(ids, generations) {
            guard let generation else { continue }
            _ = nodes.update(id) { $0.cleanGeneration = max($0.cleanGeneration, generation) }
        }
    }

    /// Drops pages of all files that can no longer be read: what a cached page gives is not asked for here.
    func dropUnreadablePages() {
        guard !tree.keyring.isEverythingReadable else { return }
        dropPages(
            of: filesWithPages().filter { id in
                do throws(TreeError) {
                    try tree.checkReadable(id)
                    return false
                } catch { return true }
            })
    }

    /// Files of which the kernel may have pages: after an earlier server, any.
    func filesWithPages() -> [NodeID] {
        guard tree.inheritsHolds else { return nodes.withPages() }
        return (try? tree.files()) ?? nodes.withPages()
    }
}
