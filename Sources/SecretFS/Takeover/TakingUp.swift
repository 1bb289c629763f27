import Fuse
import Keyring
import SecretTree
import Synchronization

extension LedgerCell {
    func begin(_ writer: Writer, _ number: UInt64, _ caller: Caller) {
        begin(number, writer.node, caller)
        var marks: Marks = []
        if writer.isFresh.load(ordering: .relaxed) { marks.insert(.fresh) }
        if writer.isCached { marks.insert(.cached) }
        policy = writer.policy
        self.marks = marks
        kind = .writer
    }

    func begin(_ reader: Reader, _ number: UInt64, _ caller: Caller) {
        begin(number, reader.node, caller)
        generation = reader.generation.load(ordering: .relaxed)
        policy = reader.policy
        kind = .reader
    }

    private func begin(_ number: UInt64, _ node: NodeID, _ caller: Caller) {
        handle = number
        self.node = node
        opener = caller.pid
        opening = caller.unique
    }
}

/// What a server finds in the ledger of the one before it.
extension SecretFS {
    /// Makes the handles that applications hold good again. Before anything is served or committed.
    func takeUp(_ ledger: Ledger) {
        let epoch = tree.openedEpoch
        ledger.takeUp(epoch: epoch)
        tree.report(commitsTo: ledger)
        let cells = ledger.cells()
        for cell in cells where cell.kind == .writer { settleCommit(of: cell, epoch: epoch, ledger) }
        for cell in ledger.cells() {
            switch cell.kind {
            case .writer: takeUpWriter(cell)
            case .reader: takeUpReader(cell)
            case .snapshot: takeUpSnapshot(cell)
            case .free: ledger.giveBack(cell)
            }
        }
        for cell in cells where cell.kind == .reader { settleGeneration(of: cell) }
    }

    /// A value whose commit had begun is the file's now, or is still to be committed.
    private func settleCommit(of cell: LedgerCell, epoch: UInt64, _ ledger: Ledger) {
        let (made, marks) = (cell.commitEpoch, cell.marks)
        cell.commitEpoch = 0
        guard made != 0, made <= epoch, cell.stage != .none else { return }
        if marks.contains(.keepsOld) {
            let isKnown = ledger.cells().contains { $0.kind == .snapshot && $0.shadow == cell.shadow }
            if !isKnown, let snapshot = ledger.take() {
                snapshot.node = cell.node
                snapshot.shadow = cell.shadow
                snapshot.generation = cell.generation
                snapshot.kind = .snapshot
            }
        }
        let isTold = ledger.request(thatMade: made).map { options.events.hasTold($0) } ?? false
        if !isTold { tellChanged(cell.node, by: nil) }
        cell.stage = .none
        let node = cell.node
        leftBehind.withLock { $0.append(node) }
    }

    private func takeUpWriter(_ cell: LedgerCell) {
        let marks = cell.marks
        let writer = Writer(
            cell.node, opener: cell.opener, isFresh: marks.contains(.fresh), isCached: marks.contains(.cached),
            // Closing it says nothing about the pages of this server's time.
            generation: 0, policy: cell.policy, cell: cell)
        if marks.contains(.active) { writer.isActive.store(true, ordering: .relaxed) }
        var session: ReplaceSession?
        if cell.stage != .none, let size = sizeGathered(in: cell) {
            session = ReplaceSession(of: cell.node, in: tree, takingUp: cell, byteCount: size)
            openSessions.add(1, ordering: .sequentiallyConsistent)
        }
        writer.session = session
        writers.insert(writer, at: cell.handle)
        nodes.change(cell.node) { state in
            state.adopt(gate.guardian.generation)
            _ = state.openHandle(isCached: writer.isCached, under: writer.policy)
            if marks.contains(.active) { state.activeWriters += 1 }
            if marks.contains(.fresh) { state.freshWriters.append(writer) }
            if let session { state.session = session }
        }
    }

    /// Nil if what was gathered is gone.
    private func sizeGathered(in cell: LedgerCell) -> UInt64? {
        guard cell.stage == .gathering else { return 0 }
        return try? tree.attributes(of: cell.shadow).size
    }

    private func takeUpReader(_ cell: LedgerCell) {
        let reader = Reader(
            cell.node, opener: cell.opener, generation: cell.generation, policy: cell.policy, cell: cell)
        readers.insert(reader, at: cell.handle)
        nodes.change(cell.node) { state in
            _ = state.openHandle(isCached: false, under: reader.policy)
            state.readers.append(reader)
            state.valueGeneration = max(state.valueGeneration, cell.generation)
        }
    }

    private func takeUpSnapshot(_ cell: LedgerCell) {
        let (node, shadow, generation) = (cell.node, cell.shadow, cell.generation)
        tree.hold(shadow)
        snapshotCells.withLock { $0[shadow] = cell }
        nodes.change(node) { state in
            state.snapshots[generation] = shadow
            state.valueGeneration = max(state.valueGeneration, generation &+ 1)
        }
    }

    /// A reader of a value that was not kept reads the one that there is.
    private func settleGeneration(of cell: LedgerCell) {
        guard let reader = readers[cell.handle] else { return }
        nodes.change(cell.node) { state in
            guard state.snapshots[reader.generation.load(ordering: .relaxed)] == nil else { return }
            reader.generation.store(state.valueGeneration, ordering: .relaxed)
            cell.generation = state.valueGeneration
        }
    }

    /// The file that an opening without a name has made goes with its handle. One whose maker died before it wrote
    /// the handle down goes with the others without a name, at the next mount.
    func forgetTemporary(_ caller: Caller) {
        let made =
            options.ledger?.cells().filter { $0.kind == .writer && $0.opening == caller.unique }.map(\.node) ?? []
        forgetOpening(caller)
        for node in made { nodes.forget(node, count: 1) }
    }

    /// An opening comes again: its first answer did not come through, and nobody has that handle.
    func forgetOpening(_ caller: Caller) {
        guard let ledger = options.ledger else { return }
        for cell in ledger.cells() where cell.opening == caller.unique {
            switch cell.kind {
            case .writer: release(cell.node.rawValue, handle: Handle.writer(cell.handle).rawValue, flags: 0)
            case .reader: release(cell.node.rawValue, handle: Handle.directReader(cell.handle).rawValue, flags: 0)
            case .snapshot, .free: break
            }
        }
    }

    /// Has the kernel drop the pages of values that were replaced, or refused, when the last server died.
    func dropWhatPredecessorsLeft() {
        guard tree.inheritsHolds else { return }
        let replaced = leftBehind.withLock { nodes in
            defer { nodes = [] }
            return nodes
        }
        dropPages(of: replaced)
        dropUnreadablePages()
        guard let ledger = options.ledger, ledger.droppedPolicy != gate.guardian.generation else { return }
        dropPagesOfOldPolicy()
    }
}
