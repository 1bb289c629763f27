internal import Glibc
internal import Synchronization
internal import Threads

/// The store on a disk: a directory (0700) of these files.
///
/// - `lock`: who has it open.
/// - `journal.0`, `journal.1`: committed batches, the newest in one while those of the other are folded.
/// - `records.sqlite`: the records as of the last fold.
/// - `blocks`: blocks of 4 KiB.
/// - `reserve`: space given up when the disk is full, so that something can be removed.
///
/// A commit is one write to a journal, which the kernel keeps when the process dies, and a change to the overlay in
/// memory, where readers look first. Lock order: `foldLock`, `syncLock`, `commitLock`, `overlayLock`, the block file's.
public final class JournaledStore: RecordStore, @unchecked Sendable {
    /// A fold begins when the journal has grown to this, or nothing was committed for a while.
    static let foldByteCount = 8 << 20
    /// A commit that finds the journal this long waits for a fold, and fails if there is no room for one.
    static let journalLimit = 32 << 20

    public let isReadOnly: Bool
    /// Whoever had the store open before has handed over its lock: nothing can have come between, such as the loss of its disk.
    let isHandedOver: Bool
    let path: String
    let directory: File
    let table: RecordTable
    let blocks: BlockFile
    let reserve: Reserve
    let lockFile: StoreLock

    /// One fold at a time. Guards `table`'s writing.
    let foldLock = Monitor()
    /// One sync at a time, so that those who wait for it need none of their own.
    let syncLock = Monitor()
    /// Guards what follows: the order of changes.
    let commitLock = Monitor()
    var journals: [Journal] = []
    /// The journal that is appended to.
    var current = 0
    /// After a crash in the middle of a fold, unfolded batches lie in both journals.
    var bothHoldBatches = false
    var willFold: (@Sendable () -> [(RecordKey, [UInt8])])?
    /// Set once what was written may be lost: nothing more is acknowledged.
    var failure: StorageError?
    /// The last batch whose blocks are known to be durable, as the journals say.
    var blocksDurable: UInt64 = 0
    /// The last batch that tells of blocks.
    var sumsSequence: UInt64 = 0
    private var writer = FrameWriter()

    /// Guards what follows: what readers look at first. Written with `commitLock` held besides.
    let overlayLock = Monitor()
    /// Changes since the last fold began.
    var overlay = OrderedRecords()
    /// Changes that are being folded.
    var frozen: OrderedRecords?
    /// The last change in `frozen`.
    var frozenSequence: UInt64 = 0
    /// How many folds have ended.
    var generation = 0

    /// The last batch committed.
    let committed = Atomic<UInt64>(0)
    /// The last batch that survives the loss of power.
    let durable = Atomic<UInt64>(0)
    /// Of the journal that is appended to.
    let journalLength = Atomic<Int>(0)
    let isClosed = Atomic<Bool>(false)
    let leavesLock = Atomic<Bool>(false)
    /// True while a batch that frees space is not folded: the fold may use the reserve.
    let mayUseReserve = Atomic<Bool>(false)
    let folder = Folder()

    init(
        _ path: String, _ directory: File, readOnly: Bool, isNew: Bool, reserve: Reserve?, inheritedLock: Int32? = nil
    ) throws(StorageError) {
        self.path = path
        self.directory = directory
        isReadOnly = readOnly
        isHandedOver = inheritedLock != nil
        lockFile = try StoreLock(in: directory, exclusive: !readOnly, inherited: inheritedLock)
        table = try RecordTable(in: path, readOnly: readOnly)
        blocks = try BlockFile(in: directory, readOnly ? O_RDONLY : O_RDWR, isNew: isNew)
        self.reserve = reserve ?? Reserve(in: directory)
        try replay()
    }

    // MARK: Reading

    public func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        let (change, now) = overlayLock.locked {
            (overlay.value(of: key) ?? frozen?.value(of: key), generation)
        }
        switch change {
        case nil: return try table.read(key, asOf: now, body)
        case .some(nil): return body(nil)
        case .some(.some(let value)): return value.withUnsafeBytes { body($0) }
        }
    }

    // MARK: Changing

    public func commit(_ batch: RecordBatch, publish: (() -> Void) -> Void) throws(StorageError) {
        guard !isReadOnly else { throw .readOnly }
        try boundJournal(for: batch)
        if case .done = try attempt(batch, publish) { return }
        // The disk is full. Blocks released lately may give room, and what frees space may use the reserve.
        if try reclaim(), case .done = try attempt(batch, publish) { return }
        if batch.freesSpace, reserve.giveUp(), case .done = try attempt(batch, publish) { return }
        throw .full
    }

    private enum Attempt { case done, full }

    private func attempt(_ batch: RecordBatch, _ publish: (() -> Void) -> Void) throws(StorageError) -> Attempt {
        try commitLock.locked { () throws(StorageError) -> Attempt in
            guard !isClosed.load(ordering: .relaxed) else { throw .closed }
            if let failure { throw failure }
            for (key, expected) in batch.expectations {
                let holds = try read(key) { found in
                    guard let found, let expected else { return found == nil && expected == nil }
                    return found.elementsEqual(expected)
                }
                guard holds else { throw .conflict }
            }
            let sequence = committed.load(ordering: .relaxed) + 1
            let sums = blocks.takeSums()
            let frame = writer.frame(batch, sequence: sequence, blockSums: sums)
            do throws(StorageError) {
                try journals[current].append(frame, blocksDurable: blocksDurable)
            } catch {
                blocks.restore(sums)
                if case .full = error { return .full }
                failure = error
                throw error
            }
            if !sums.isEmpty { sumsSequence = sequence }
            let length = journals[current].byteCount
            journalLength.store(length, ordering: .relaxed)
            if length >= Self.foldByteCount, length - frame.count < Self.foldByteCount { folder.ask() }
            publish {
                overlayLock.locked { for (key, value) in batch.changes { overlay.set(key, value) } }
                committed.store(sequence, ordering: .releasing)
                if batch.freesSpace { mayUseReserve.store(true, ordering: .relaxed) }
            }
            return .done
        }
    }

    /// Makes released blocks free at once; false if there are none.
    private func reclaim() throws(StorageError) -> Bool {
        guard blocks.hasReleased || blocks.hasStale else { return false }
        try sync()
        blocks.reclaim(durable: durable.load(ordering: .acquiring), leavesShort: false)
        return true
    }

    /// Keeps the journal from growing without bounds when it cannot be folded.
    private func boundJournal(for batch: RecordBatch) throws(StorageError) {
        let length = journalLength.load(ordering: .relaxed)
        guard length > Self.journalLimit else { return }
        do {
            try fold(isBusy: true)
        } catch .full where batch.freesSpace && length < Self.journalLimit + Reserve.byteCount / 2 {
            return
        }
    }

    public func sync() throws(StorageError) {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        guard !isReadOnly else { return }
        let wanted = committed.load(ordering: .acquiring)
        try syncLock.locked { () throws(StorageError) in
            // Whoever had the lock before may have synced for us.
            if durable.load(ordering: .acquiring) < wanted { try syncNow() }
        }
        blocks.reclaim(durable: durable.load(ordering: .acquiring), leavesShort: true)
    }

    /// With `syncLock` held.
    private func syncNow() throws(StorageError) {
        if let failure = commitLock.locked({ failure }) { throw failure }
        let reached = committed.load(ordering: .acquiring)
        try syncBlocks()
        let dirty = try commitLock.locked { () throws(StorageError) -> [Journal] in
            if sumsSequence > blocksDurable {
                for journal in journals { try journal.note(blocksDurable: reached) }
                blocksDurable = reached
            }
            return journals.filter { journal in
                defer { journal.needsSync = false }
                return journal.needsSync
            }
        }
        for journal in dirty { try orFail { () throws(StorageError) in try journal.file.sync() } }
        Self.raise(durable, to: reached)
    }

    func syncBlocks() throws(StorageError) { try orFail { () throws(StorageError) in try blocks.sync() } }

    /// A sync that failed is not tried again: the kernel may have dropped what it could not write, and a second try
    /// would succeed and prove nothing.
    private func orFail(_ sync: () throws(StorageError) -> Void) throws(StorageError) {
        do { try sync() } catch {
            commitLock.locked { failure = error }
            throw error
        }
    }

    static func raise(_ value: borrowing Atomic<UInt64>, to target: UInt64) {
        _ = value.max(target, ordering: .acquiringAndReleasing)
    }

    // MARK: Blocks

    public func allocateBlocks(_ count: Int) throws(StorageError) -> [UInt64] {
        guard !isReadOnly else { throw .readOnly }
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        return blocks.allocate(count)
    }

    public func writeBlocks(at first: UInt64, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        guard !isReadOnly else { throw .readOnly }
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        do {
            try blocks.write(at: first, bytes)
        } catch .full {
            guard try reclaim() else { throw .full }
            try blocks.write(at: first, bytes)
        }
    }

    public func readBlocks(at first: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        try blocks.read(at: first, into: bytes)
    }

    public func releaseBlocks(_ numbers: [UInt64]) {
        guard !isReadOnly else { return }
        blocks.release(numbers, after: committed.load(ordering: .acquiring))
    }

    public func markBlocksUsed(_ numbers: [UInt64]) { blocks.mark(numbers) }

    public func finishMarking() {
        guard !isReadOnly else { return }
        // What an unfolded batch dropped is needed until that batch is durable, as if it were released now.
        blocks.finishMarking(after: committed.load(ordering: .acquiring))
    }
}
