import Fuse
import Keyring
import SecretTree
import Synchronization

/// A value that is being gathered by one writer, aside from the file that it will be the value of.
///
/// Nothing is stored before the first byte: an opening with O_TRUNC alone costs no transaction, and a descriptor
/// that a shell duplicates and closes before it writes does not empty the file.
final class ReplaceSession: Sendable {
    private enum Stage: Sendable {
        /// Truncated, and nothing written yet.
        case untouched
        /// The new content gathers at a node of its own, and is so long.
        case gathering(NodeID, byteCount: UInt64)
        /// It has become the file's value, or never will.
        case ended
    }

    /// Who writes, and when.
    struct Writing {
        var thread: Int32
        var clearsSetID = false
        var now: Timestamp
    }

    private struct State: Sendable {
        var stage = Stage.untouched
        /// A modification time that was asked for since the last write; the replacement shall not hide it.
        var modificationTime: Timestamp?
        var clearsSetID: Bool
        /// Closed without anything written, or by a bystander; the RELEASE may be under way: see `settle`.
        var isUnsettled = false
        /// The last close was that of a process killed by a signal: what it left is half a value.
        var wasKilled = false
        /// Where a write has failed, as for want of space, that nobody has tried again: what is gathered has a gap there.
        var failedAt: UInt64?
        /// The thread that wrote last, or has begun it.
        var writer: Int32
        /// The row of the writer's handle in the ledger, where all of this is written down.
        var cell: LedgerCell?

        init(clearsSetID: Bool, writer: Int32) {
            self.clearsSetID = clearsSetID
            self.writer = writer
        }

        /// As an earlier server left it.
        init(_ cell: LedgerCell, byteCount: UInt64) {
            stage = cell.stage == .gathering ? .gathering(cell.shadow, byteCount: byteCount) : .untouched
            modificationTime = cell.marks.contains(.hasTime) ? cell.modificationTime : nil
            clearsSetID = cell.marks.contains(.clearsSetID)
            isUnsettled = cell.marks.contains(.unsettled)
            wasKilled = cell.marks.contains(.wasKilled)
            failedAt = cell.marks.contains(.hasFailed) ? 0 : nil
            writer = cell.writer
            self.cell = cell
        }

        mutating func miss(at offset: UInt64) {
            failedAt = min(offset, failedAt ?? .max)
            remember()
        }

        func remember() {
            guard let cell else { return }
            var marks = cell.marks.intersection([.fresh, .active, .cached, .keepsOld])
            if clearsSetID { marks.insert(.clearsSetID) }
            if isUnsettled { marks.insert(.unsettled) }
            if wasKilled { marks.insert(.wasKilled) }
            if failedAt != nil { marks.insert(.hasFailed) }
            if let modificationTime {
                cell.modificationTime = modificationTime
                marks.insert(.hasTime)
            }
            cell.writer = writer
            cell.marks = marks
            switch stage {
            case .untouched: cell.stage = .untouched
            case .gathering(let shadow, _):
                cell.shadow = shadow
                cell.stage = .gathering
            // Its end is written down when all that belongs to it is done.
            case .ended: break
            }
        }
    }

    let node: NodeID
    let tree: SecretTree
    // Held over calls of the tree: the session's writes and its end come one after the other.
    private let state: Mutex<State>
    private let hasEnded = Atomic<Bool>(false)

    /// - Parameter thread: Whose file is empty from now on.
    init(of node: NodeID, in tree: SecretTree, clearsSetID: Bool, by thread: Int32) {
        self.node = node
        self.tree = tree
        state = Mutex(State(clearsSetID: clearsSetID, writer: thread))
    }

    /// A session that an earlier server left.
    init(of node: NodeID, in tree: SecretTree, takingUp cell: LedgerCell, byteCount: UInt64) {
        self.node = node
        self.tree = tree
        state = Mutex(State(cell, byteCount: byteCount))
    }

    /// From now on it is written down in its writer's row.
    func remember(in cell: LedgerCell?) {
        state.withLock { state in
            state.cell = cell
            state.remember()
        }
    }

    /// The row, for who commits.
    var cell: LedgerCell? { state.withLock { $0.cell } }

    var isOpen: Bool { !hasEnded.load(ordering: .acquiring) }

    /// The size as the writer sees it; nil if the session has ended.
    var byteCount: UInt64? {
        state.withLock { state in
            switch state.stage {
            case .untouched: 0
            case .gathering(_, let byteCount): byteCount
            case .ended: nil
            }
        }
    }

    /// True for who has begun it or written to it: stat(2) on its own descriptor comes without the descriptor's handle.
    func isWritten(by thread: Int32) -> Bool {
        thread != 0 && state.withLock { $0.writer == thread }
    }

    /// Changes the new content at the node where it gathers; `body` answers its size afterwards.
    ///
    /// - Parameter offset: Where that begins, if the value lacks something should it fail.
    /// - Returns: that size; nil if the session has ended, and the file itself is meant.
    func gather(_ by: Writing, at offset: UInt64? = nil, _ body: (NodeID) throws(TreeError) -> UInt64) throws(Errno)
        -> UInt64?
    {
        // Before the lock, which whoever asks for the file's size takes as well.
        try answering { () throws(TreeError) in try tree.waitUntilSound() }
        return try state.withLock { state throws(Errno) -> UInt64? in
            let shadow: NodeID
            let byteCount: UInt64
            do throws(TreeError) {
                switch state.stage {
                case .untouched:
                    shadow = try tree.beginReplacement(of: node, now: by.now)
                    state.stage = .gathering(shadow, byteCount: 0)
                    state.remember()
                case .gathering(let node, _): shadow = node
                case .ended: return nil
                }
                byteCount = try body(shadow)
            } catch {
                if let offset { state.miss(at: offset) }
                throw Errno(error)
            }
            if let offset, let failed = state.failedAt, offset <= failed { state.failedAt = nil }
            state.stage = .gathering(shadow, byteCount: byteCount)
            state.modificationTime = nil
            state.isUnsettled = false
            state.wasKilled = false
            state.writer = by.thread
            if by.clearsSetID { state.clearsSetID = true }
            state.remember()
            return byteCount
        }
    }

    /// A write was refused before it came here.
    func miss(at offset: UInt64) { state.withLock { $0.miss(at: offset) } }

    /// Looks at the new content, of which there may be none yet.
    ///
    /// - Returns: nil if the session has ended, and the file itself is meant.
    func look<R: Sendable>(_ body: (NodeID?) throws(TreeError) -> R) throws(Errno) -> R? {
        try state.withLock { state throws(Errno) -> R? in
            switch state.stage {
            case .untouched: try answering { () throws(TreeError) in try body(nil) }
            case .gathering(let shadow, _): try answering { () throws(TreeError) in try body(shadow) }
            case .ended: nil
            }
        }
    }

    /// A modification time set while the value is gathered is the one that the file has afterwards (`cp -p`).
    func keep(modificationTime: Timestamp) {
        state.withLock { state in
            state.modificationTime = modificationTime
            state.remember()
        }
    }

    /// What a close asks for: see `flush` and `release`.
    enum Occasion {
        /// A descriptor is closed; others of the same opening may be left.
        case flush
        case release
        /// FSYNC, a second writer, an unmount.
        case now
    }

    /// Makes what was gathered the file's value, in one transaction; an opening that wrote nothing empties it.
    ///
    /// A FLUSH before anything was written does not end the session: a shell closes one of two descriptors
    /// before its command writes. Neither does one by a process that was killed, or that could not write everything: it left
    /// half a value; nor one of a copy by another process than the opener's.
    ///
    /// - Parameters:
    ///   - byKilled: Says whether the one who closes was killed.
    ///   - byBystander: Says whether it has but a copy of the opener's descriptor.
    ///   - keepsOld: Called just before the value is replaced: whether somebody is reading the old one.
    func commit(
        _ occasion: Occasion, byKilled: () -> Bool, byBystander: () -> Bool, keepsOld: () -> Bool, now: Timestamp
    ) throws(Errno) -> Outcome {
        // Before anybody is told that the value is being replaced, and waits for that.
        try answering { () throws(TreeError) in try tree.waitUntilSound() }
        return try state.withLock { state throws(Errno) -> Outcome in
            if case .ended = state.stage { return .nothing }
            if case .flush = occasion {
                state.wasKilled = byKilled()
                guard case .gathering = state.stage, !state.wasKilled, state.failedAt == nil, !byBystander() else {
                    state.isUnsettled = true
                    state.remember()
                    return .nothing
                }
            } else if state.wasKilled || state.failedAt != nil && occasion == .release {
                abandon(&state, now: now)
                return .abandoned
            }
            let keepsOld = keepsOld()
            if let cell = state.cell {
                if keepsOld { cell.marks.insert(.keepsOld) } else { cell.marks.remove(.keepsOld) }
            }
            let old = try store(state, keepsOld: keepsOld, now: now)
            end(&state)
            return .replaced(old: old)
        }
    }

    /// What became of a session with a call.
    enum Outcome {
        case nothing
        /// The file has its new value; the node that has the old one, held, if it was to be kept.
        case replaced(old: NodeID?)
        /// The file keeps what it has.
        case abandoned
    }

    private func store(_ state: State, keepsOld: Bool, now: Timestamp) throws(Errno) -> NodeID? {
        do throws(TreeError) {
            let shadow: NodeID
            switch state.stage {
            case .gathering(let node, _): shadow = node
            case .untouched where keepsOld:
                shadow = try tree.beginReplacement(of: node, now: now)
                state.cell?.shadow = shadow
            case .untouched, .ended:
                try empty(state, now: now)
                return nil
            }
            try replace(with: shadow, state, keepsOld: keepsOld, now: now)
            return keepsOld ? shadow : nil
        } catch { throw Errno(error) }
    }

    private func empty(_ state: State, now: Timestamp) throws(TreeError) {
        var change = AttributeChange()
        change.size = 0
        change.clearsSetID = state.clearsSetID
        change.modificationTime = state.modificationTime
        _ = try tree.setAttributes(of: node, change, now: now)
    }

    /// In one transaction, by which the next server would know that it has happened.
    private func replace(with shadow: NodeID, _ state: State, keepsOld: Bool, now: Timestamp) throws(TreeError) {
        if keepsOld { tree.hold(shadow) }
        do throws(TreeError) {
            _ = try tree.commitReplacement(
                shadow, of: node, clearsSetID: state.clearsSetID, keepsOld: keepsOld,
                modificationTime: state.modificationTime, now: now)
        } catch {
            if keepsOld { tree.release(shadow, now: now) }
            throw error
        }
    }

    /// Throws away what was gathered.
    ///
    /// - Returns: true if it has ended with this call.
    func abandon(now: Timestamp) -> Bool {
        state.withLock { state in
            if case .ended = state.stage { return false }
            abandon(&state, now: now)
            return true
        }
    }

    private func abandon(_ state: inout State, now: Timestamp) {
        if case .gathering(let shadow, _) = state.stage {
            // What is left of it goes with the other nodes without a name at the next opening.
            try? tree.abandonReplacement(shadow, now: now)
        }
        end(&state)
    }

    private func end(_ state: inout State) {
        state.stage = .ended
        state.isUnsettled = false
        hasEnded.store(true, ordering: .releasing)
    }

    /// True once after a close that did not end the session: if it was the last one, its RELEASE, which does, is under
    /// way already.
    func takeUnsettled() -> Bool {
        state.withLock { state in
            defer { state.isUnsettled = false }
            return state.isUnsettled
        }
    }
}
