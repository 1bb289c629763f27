internal import CLinux
internal import Glibc
internal import Synchronization
internal import Threads

/// Folding: the changes of one journal go to the record table in one transaction, while commits go to the other.
extension JournaledStore {
    public func setFoldHooks(willFold: @escaping @Sendable () -> [(RecordKey, [UInt8])]) {
        commitLock.locked { self.willFold = willFold }
    }

    public func fold() throws(StorageError) { try fold(isBusy: false) }

    /// - Parameter isBusy: More changes are made meanwhile.
    func fold(isBusy: Bool) throws(StorageError) {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        guard !isReadOnly else { return }
        try foldLock.locked { () throws(StorageError) in
            // After a sync that failed nothing can be told to be durable.
            if let failure = commitLock.locked({ failure }) { throw failure }
            // One that met a full disk comes first.
            if overlayLock.locked({ frozen != nil }) { try writeFrozen() }
            let isWhole = try commitLock.locked { () throws(StorageError) -> Bool in
                guard bothHoldBatches else { return false }
                try foldInPlace()
                return true
            }
            if !isWhole, commitLock.locked({ freeze() }) { try writeFrozen() }
        }
        tidy(isBusy: isBusy)
    }

    /// Takes the changes out of the way of commits; false if there are none. With `commitLock` held.
    private func freeze() -> Bool {
        guard overlayLock.locked({ !overlay.isEmpty }) else { return false }
        let extra = willFold?() ?? []
        overlayLock.locked {
            var changes = overlay
            overlay = OrderedRecords()
            for (key, value) in extra { changes.set(key, value) }
            frozen = changes
            frozenSequence = committed.load(ordering: .relaxed)
        }
        if !bothHoldBatches {
            current = 1 - current
            journalLength.store(0, ordering: .relaxed)
        }
        return true
    }

    /// Folds what a crash has left in both journals. Commits wait, for there is no journal free to take them.
    private func foldInPlace() throws(StorageError) {
        let before = overlayLock.locked { overlay }
        guard freeze() else { return }
        do {
            try writeToTable()
        } catch {
            overlayLock.locked {
                overlay = before
                frozen = nil
            }
            throw error
        }
        endFold()
        for journal in journals { journal.clear() }
        bothHoldBatches = false
        journalLength.store(0, ordering: .relaxed)
    }

    private func writeFrozen() throws(StorageError) {
        try syncBlocks()
        try writeToTable()
        endFold()
        commitLock.locked { journals[1 - current].clear() }
    }

    private func writeToTable() throws(StorageError) {
        let (changes, sequence) = overlayLock.locked { (frozen ?? OrderedRecords(), frozenSequence) }
        do {
            try table.fold(changes, sequence: sequence)
        } catch .full {
            guard mayUseReserve.load(ordering: .relaxed), reserve.giveUp() else { throw .full }
            try table.fold(changes, sequence: sequence)
        }
    }

    private func endFold() {
        // Given back when no reader waits for the lock any more: they are many.
        let folded = overlayLock.locked {
            defer { frozen = nil }
            generation += 1
            if overlay.isEmpty { mayUseReserve.store(false, ordering: .relaxed) }
            return frozen
        }
        defer { withExtendedLifetime(folded) {} }
        Self.raise(durable, to: frozenSequence)
    }

    /// What follows a fold and may fail without harm.
    private func tidy(isBusy: Bool) {
        foldLock.locked {
            try? table.checkpoint()
            table.forgetPages()
        }
        blocks.reclaim(durable: durable.load(ordering: .acquiring), leavesShort: isBusy)
        reserve.restore()
    }

    // MARK: In the background

    public func startFolding() {
        guard !isReadOnly, !isClosed.load(ordering: .relaxed) else { return }
        let activity = { [self] in committed.load(ordering: .relaxed) }
        folder.start(watching: activity) { [self] isQuiet in
            // None is kept for longer than a round: what was done to the table from outside is seen soon.
            try? table.withoutKeptTransactions { () throws(StorageError) in }
            let isLong = journalLength.load(ordering: .relaxed) >= Self.foldByteCount
            if isLong || (isQuiet && overlayLock.locked { !overlay.isEmpty || frozen != nil }) {
                // What cannot be folded stays in the journal: the next round tries again.
                try? fold(isBusy: !isQuiet)
            } else {
                blocks.reclaim(durable: durable.load(ordering: .acquiring), leavesShort: !isQuiet)
            }
        }
    }
}

/// The thread that folds in the background.
final class Folder: @unchecked Sendable {
    /// How often it looks whether something was committed since it looked last.
    private static let period = 1000
    /// A store that is never quiet is folded after so many looks all the same.
    private static let patience = 30

    /// Guards what follows.
    private let lock = Monitor()
    private var isRunning = false
    private var isStopping = false
    private var isAsked = false
    private var work: (activity: () -> UInt64, round: (Bool) -> Void)?

    /// - Parameters:
    ///   - activity: a number that changes with each commit.
    ///   - round: told whether it is time to fold.
    func start(watching activity: @escaping () -> UInt64, round: @escaping (_ isQuiet: Bool) -> Void) {
        lock.locked {
            guard !isRunning, !isStopping else { return }
            work = (activity, round)
            // Without a thread the journal is folded by the commit that finds it long, and by `close`.
            isRunning = startThread { self.run() } == 0
        }
    }

    /// Asks for a round now.
    func ask() {
        lock.locked {
            isAsked = true
            lock.wake()
        }
    }

    /// Ends the thread, after the round it is in.
    func stop() {
        lock.locked {
            isStopping = true
            lock.wake()
            while isRunning { lock.wait() }
            work = nil
        }
    }

    private func run() {
        ll_give_way()
        var last: UInt64?
        var busy = 0
        while let work = next() {
            let seen = work.activity()
            let isQuiet = last == seen || busy >= Self.patience
            busy = isQuiet ? 0 : busy + 1
            last = seen
            work.round(isQuiet)
        }
        lock.locked {
            isRunning = false
            lock.wake()
        }
    }

    private func next() -> (activity: () -> UInt64, round: (Bool) -> Void)? {
        lock.locked {
            if !isStopping, !isAsked { lock.wait(milliseconds: Self.period) }
            isAsked = false
            return isStopping ? nil : work
        }
    }
}
