import SecretTree
import Synchronization

/// Brings a served keyring to disk every few seconds, and remembers outside of it how far it has come.
final class EpochKeeper: Sendable {
    private struct State {
        var isClosed = false
        var recorded: UInt64?
        var hasWarned = false
    }

    private let tree: SecretTree
    private let memory: EpochMemory
    private let log: ServerLog
    // Guards the tree's closing against a remembering that goes on.
    private let state = Mutex(State())

    init(_ keyring: OpenKeyring, log: ServerLog) {
        tree = keyring.tree
        memory = keyring.memory
        self.log = log
    }

    /// Remembers the epoch if it has grown. The store goes first: an epoch that power loss takes back must not be known.
    func remember() {
        state.withLock { state in
            guard !state.isClosed else { return }
            record(&state)
        }
    }

    /// Folds and closes the store; on return everything is on disk.
    func close() throws(Failure) {
        try state.withLock { state throws(Failure) in
            guard !state.isClosed else { return }
            state.isClosed = true
            record(&state)
            do {
                try tree.close()
            } catch {
                throw Messages.failure(for: error)
            }
        }
    }

    private func record(_ state: inout State) {
        let epoch = tree.epoch
        guard !tree.isReadOnly, state.recorded != epoch else { return }
        do {
            try tree.sync()
            try memory.record(epoch)
            state.recorded = epoch
        } catch {
            guard !state.hasWarned else { return }
            state.hasWarned = true
            log.warn("cannot remember the epoch of the store: \(Messages.failure(for: error).message)")
        }
    }
}
