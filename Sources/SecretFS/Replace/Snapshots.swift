import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// A descriptor that is open for reading past the page cache.
final class Reader: Sendable {
    let node: NodeID
    /// The thread that opened it.
    let opener: Int32
    /// Which of the file's values it reads. Changed under the node's lock.
    let generation: Atomic<UInt32>
    /// The generation of the policy that let it pass.
    let policy: UInt32
    /// Its row in the ledger.
    let cell: LedgerCell?

    init(_ node: NodeID, opener: Int32, generation: UInt32, policy: UInt32, cell: LedgerCell? = nil) {
        self.cell = cell
        self.policy = policy
        self.node = node
        self.opener = opener
        self.generation = Atomic(generation)
    }
}

/// Whoever has begun to read a value reads it to its end, also if it is replaced meanwhile: a replacement leaves the
/// old value at a node of its own for as long as somebody is at it. Who begins again at the start gets the new one.
///
/// That holds for readers past the page cache. So while a value is gathered, and for a while after it was replaced,
/// files are opened past it; and a replacement waits a moment for those who have just opened the file with it.
extension SecretFS {
    /// Seconds after a replacement in which the kernel may yet be told old sizes.
    static let restlessTime: Double = 1
    /// Seconds that a replacement waits at most for a reader, from its opening on.
    static let readersTime: Double = 0.25
    /// How many looks there are at most at whether somebody is done: some 20 seconds, in which a disk that is very busy has
    /// taken a value. Whoever gave up earlier would read half of two.
    private static let attemptLimit = 11_000

    /// Between two of them.
    private static func pause(after attempt: Int) { usleep(attempt < 1000 ? 100 : 2000) }

    static var monotonicTime: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    func openForReading(_ id: NodeID, _ policy: UInt32, _ caller: Caller) -> OpenReply {
        var attempt = 0
        while true {
            if let reply = tryToOpenForReading(id, policy, caller, isLast: attempt >= Self.attemptLimit) {
                return reply
            }
            Self.pause(after: attempt)
            attempt += 1
        }
    }

    /// Nil if the value is just being replaced: a moment later it is either the old or the new.
    private func tryToOpenForReading(_ id: NodeID, _ policy: UInt32, _ caller: Caller, isLast: Bool) -> OpenReply? {
        let now = Self.monotonicTime
        let usesPageCache = options.cacheMode == .kernel
        return nodes.change(id) { state in
            if state.isReplacing, !isLast { return nil }
            var reply = OpenReply(handle: 0)
            // Nothing is held back for a reader: close need not ask.
            reply.noFlush = true
            if usesPageCache, state.isCalm(at: now), mayShareCache(&state) {
                state.lastCachedOpening = now
                options.ledger?.noteOpening(of: id, at: now)
                let (generation, keepsCache) = state.openHandle(isCached: true, under: policy)
                reply.handle = Handle.reader(generation: generation, era: era, policy: policy).rawValue
                reply.keepCache = keepsCache
            } else {
                _ = state.openHandle(isCached: false, under: policy)
                let reader = Reader(
                    id, opener: caller.pid, generation: state.valueGeneration, policy: policy,
                    cell: options.ledger?.take())
                state.readers.append(reader)
                let number = readers.add(reader)
                reader.cell?.begin(reader, number, caller)
                reply.handle = Handle.directReader(number).rawValue
                reply.directIO = true
            }
            return reply
        }
    }

    /// Reads the value that a reader has begun with, or the file's own if it begins now.
    func read(_ number: UInt64, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        guard let reader = readers[number] else { throw Errno(EBADF) }
        var attempt = 0
        while true {
            attempt += 1
            let isLast = attempt >= Self.attemptLimit
            guard let place = place(of: reader, begins: offset == 0, isLast: isLast) else {
                Self.pause(after: attempt)
                continue
            }
            let count = try answering { () throws(TreeError) in try tree.read(place.node, at: offset, into: buffer) }
            // If the value was replaced while it was read at the file itself, it may be either, and is read again.
            if place.node != reader.node || isLast || self.place(of: reader) == place { return count }
        }
    }

    private struct Place: Equatable {
        var node: NodeID
        var generation: UInt32
    }

    /// Where the value is that a reader reads; nil if it is just being replaced.
    ///
    /// - Parameter begins: It reads the file's own value from now on. Not while that is being replaced: the replacement
    ///   has looked already at who reads it, and would leave this one with half of two.
    private func place(of reader: Reader, begins: Bool = false, isLast: Bool = false) -> Place? {
        var unused: [NodeID] = []
        let found = nodes.update(reader.node) { state -> Place? in
            if state.isReplacing, !isLast { return nil }
            if begins, reader.generation.load(ordering: .relaxed) != state.valueGeneration {
                reader.generation.store(state.valueGeneration, ordering: .relaxed)
                reader.cell?.generation = state.valueGeneration
                unused = state.takeUnusedSnapshots()
            }
            let node = state.snapshots[reader.generation.load(ordering: .relaxed)] ?? reader.node
            return Place(node: node, generation: state.valueGeneration)
        }
        release(unused)
        return found ?? Place(node: reader.node, generation: 0)
    }

    func close(reader number: UInt64, _ id: NodeID) {
        guard let reader = readers.remove(number) else { return }
        if let cell = reader.cell { options.ledger?.giveBack(cell) }
        var unused: [NodeID] = []
        nodes.closeHandle(id) { state in
            state.readers.removeAll { $0 === reader }
            unused = state.takeUnusedSnapshots()
        }
        release(unused)
    }

    private func release(_ snapshots: [NodeID]) {
        for node in snapshots {
            tree.release(node, now: .now())
            if let cell = snapshotCells.withLock({ $0.removeValue(forKey: node) }) { options.ledger?.giveBack(cell) }
        }
    }

    /// The size of the value that a reader reads, if it is not the file's any more. stat(2) on a descriptor comes
    /// without its handle: then it is told by the thread.
    func oldSize(of id: NodeID, handle: UInt64?, _ caller: Caller) -> UInt64? {
        var known: Reader?
        if let handle, case .directReader(let number) = Handle(handle) { known = readers[number] }
        let byHandle = known
        let snapshot = nodes.update(id) { state -> NodeID? in
            guard !state.snapshots.isEmpty else { return nil }
            let reader = handle != nil ? byHandle : state.readers.last { $0.opener == caller.pid }
            return reader.flatMap { state.snapshots[$0.generation.load(ordering: .relaxed)] }
        }
        guard let node = snapshot ?? nil else { return nil }
        return try? tree.attributes(of: node).size
    }

    // MARK: What a replacement does

    /// Gives those who have just opened the file with the page cache the time to read it.
    func waitForReaders(of id: NodeID) {
        // Let in by this server, or by one that died meanwhile.
        let isInherited = nodes.update(id) { $0.isInherited } == true
        let inheritedOpening = isInherited ? options.ledger?.lastOpening(of: id) : nil
        for attempt in 0..<Self.attemptLimit {
            let now = Self.monotonicTime
            let opening = nodes.update(id) { $0.cachedHandles > 0 ? $0.lastCachedOpening : nil } ?? nil
            let isWorthIt = [opening, inheritedOpening].contains { now < ($0 ?? 0) + Self.readersTime }
            guard isWorthIt else { return }
            Self.pause(after: attempt)
        }
    }

    /// From now on and until `endReplacement` nobody begins to read.
    ///
    /// - Returns: true if somebody is reading the value that there is.
    func beginReplacement(of id: NodeID, cell: LedgerCell? = nil) -> Bool {
        nodes.update(id) { state in
            state.isReplacing = true
            cell?.generation = state.valueGeneration
            return state.readers.contains { $0.generation.load(ordering: .relaxed) == state.valueGeneration }
        } ?? false
    }

    /// - Parameter old: The node that has the old value now, if it was kept.
    func endReplacement(of id: NodeID, hasReplaced: Bool, old: NodeID? = nil) {
        let now = Self.monotonicTime
        let unused = nodes.update(id) { state -> [NodeID] in
            state.isReplacing = false
            guard hasReplaced else { return [] }
            if let old {
                state.snapshots[state.valueGeneration] = old
                rememberSnapshot(old, of: id, generation: state.valueGeneration)
            }
            state.valueGeneration &+= 1
            state.contentGeneration &+= 1
            state.lastReplaced = now
            return state.takeUnusedSnapshots()
        }
        release(unused ?? (old.map { [$0] } ?? []))
    }
}

extension SecretFS {
    func rememberSnapshot(_ old: NodeID, of id: NodeID, generation: UInt32) {
        guard let cell = options.ledger?.take() else { return }
        cell.node = id
        cell.shadow = old
        cell.generation = generation
        cell.kind = .snapshot
        snapshotCells.withLock { $0[old] = cell }
    }
}

extension NodeState {
    /// Nothing has happened lately that the kernel might not know the size after.
    func isCalm(at now: Double) -> Bool {
        session == nil && snapshots.isEmpty && now > lastReplaced + SecretFS.restlessTime
    }

    /// Old values that nobody reads any more; they are forgotten here.
    mutating func takeUnusedSnapshots() -> [NodeID] {
        guard !snapshots.isEmpty else { return [] }
        let used = Set(readers.map { $0.generation.load(ordering: .relaxed) })
        let unused = snapshots.filter { !used.contains($0.key) }
        for generation in unused.keys { snapshots[generation] = nil }
        return Array(unused.values)
    }
}
