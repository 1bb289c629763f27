import Glibc
import Storage
import Synchronization

/// A store whose process dies at a chosen commit: before it takes effect, or right after. From then on nothing works.
final class CrashingStore: RecordStore {
    let store: MemoryStore
    /// Commits left; below 0: never.
    private let left: Mutex<Int>
    private let diesAfter: Bool
    private let isDead = Atomic<Bool>(false)
    /// The disk is full: what needs space fails.
    let isFull = Atomic<Bool>(false)
    /// Somebody walks through the records all the time: nothing can be erased.
    let isWalked = Atomic<Bool>(false)
    /// A walk through all records does not get on.
    let holdsWalks = Atomic<Bool>(false)
    let committed = Atomic<Int>(0)
    /// Called once, after the next walk through envelopes.
    let afterEnvelopes = Mutex<(@Sendable () -> Void)?>(nil)

    /// - Parameter commits: How many commits go well.
    init(_ store: MemoryStore, commits: Int, diesAfter: Bool) {
        self.store = store
        left = Mutex(commits)
        self.diesAfter = diesAfter
    }

    var hasDied: Bool { isDead.load(ordering: .relaxed) }

    private func live() throws(StorageError) { if hasDied { throw .closed } }

    func commit(_ batch: RecordBatch, publish: (() -> Void) -> Void) throws(StorageError) {
        try live()
        if isFull.load(ordering: .relaxed), !batch.freesSpace { throw .full }
        committed.add(1, ordering: .relaxed)
        let isLast = left.withLock { left in
            defer { left -= 1 }
            return left == 0
        }
        if isLast { isDead.store(true, ordering: .relaxed) }
        if !isLast || diesAfter { try store.commit(batch, publish: publish) }
        if isLast { throw .closed }
    }

    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        try live()
        return try store.read(key, body)
    }
    func scan(_ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool)
        throws(StorageError)
    {
        try live()
        let isWhole = range.lowerBound.kind == 0 && range.upperBound.kind == .max
        while isWhole, holdsWalks.load(ordering: .acquiring) { usleep(1000) }
        try store.scan(range, prefix: prefix, body)
        guard range.lowerBound.kind == 8, range.upperBound.kind == 8 else { return }
        afterEnvelopes.withLock { work in
            defer { work = nil }
            return work
        }?()
    }
    func scanFolded(_ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool)
        throws(StorageError)
    {
        try live()
        try store.scanFolded(range, prefix: prefix, body)
    }
    func snapshot() throws(StorageError) -> any StoreSnapshot {
        try live()
        return try store.snapshot()
    }
    func sync() throws(StorageError) {
        try live()
        try store.sync()
    }
    func allocateBlocks(_ count: Int) throws(StorageError) -> [UInt64] {
        try live()
        return try store.allocateBlocks(count)
    }
    func writeBlocks(at first: UInt64, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        try live()
        try store.writeBlocks(at: first, bytes)
    }
    func readBlocks(at first: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        try live()
        try store.readBlocks(at: first, into: bytes)
    }
    func releaseBlocks(_ blocks: [UInt64]) { if !hasDied { store.releaseBlocks(blocks) } }
    func markBlocksUsed(_ blocks: [UInt64]) { store.markBlocksUsed(blocks) }
    func finishMarking() { store.finishMarking() }
    func setFoldHooks(willFold: @escaping @Sendable () -> [(RecordKey, [UInt8])]) {
        store.setFoldHooks(willFold: willFold)
    }
    func startFolding() {}
    func fold() throws(StorageError) {
        try live()
        try store.fold()
    }
    func eraseRemains() throws(StorageError) {
        try live()
        if isWalked.load(ordering: .relaxed) { throw .io(EBUSY, "it is being read") }
        try store.eraseRemains()
    }
    var overlayKeys: [RecordKey] { store.overlayKeys }
    func integrityCheck() throws(StorageError) -> [String] { try store.integrityCheck() }
    func statistics() throws(StorageError) -> StoreStatistics { try store.statistics() }
    func close() throws(StorageError) {}
}
