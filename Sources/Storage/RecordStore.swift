/// An ordered, transactional map of byte strings, and 4 KiB blocks beside it. It knows nothing of what they mean.
///
/// Safe to use from several threads at once. A `body` is called without a lock held, so it may call the store
/// again; `publish`, `then` and the fold hook are called inside the critical section and may not.
public protocol RecordStore: AnyObject, Sendable {
    /// Calls `body` with the record's bytes, valid in the call only, or with nil if there is no such record.
    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R

    /// Begins to read many records in a row.
    func session() throws(StorageError) -> any ReadingSession

    /// Waits until there is room for more changes, so that no commit has to: for those who write much, between two batches.
    func relieve() throws(StorageError)

    /// Visits the records of a range in key order, all as of one moment, until `body` answers false.
    ///
    /// - Parameter prefix: how many bytes of each value are wanted at most; `Int.max` for all.
    func scan(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError)

    /// All records and blocks as they are now, to be gone through beside those who change them.
    func snapshot() throws(StorageError) -> any StoreSnapshot

    /// Makes the batch's changes, all or none; on return they are safe from the death of this process.
    ///
    /// - Parameter publish: runs once, when nothing can fail any more, and has to call what it is given, with which the
    ///   batch takes effect for readers. It may wait for these; no fold can begin before it is back.
    func commit(_ batch: RecordBatch, publish: (() -> Void) -> Void) throws(StorageError)

    /// On return everything committed before survives the loss of power.
    func sync() throws(StorageError)

    // MARK: Blocks, numbered from 1

    /// Numbers of blocks that nobody uses, contiguous if that is possible; kept for the caller until released.
    func allocateBlocks(_ count: Int) throws(StorageError) -> [UInt64]

    /// Writes whole blocks, contiguous from `first`.
    func writeBlocks(at first: UInt64, _ bytes: UnsafeRawBufferPointer) throws(StorageError)

    /// Reads whole blocks, contiguous from `first`. What was never written reads as zeros or throws `.corrupt`.
    func readBlocks(at first: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError)

    /// Gives blocks back, after the batch that dropped them was committed. They are used again once that batch is
    /// durable, and erased before.
    func releaseBlocks(_ blocks: [UInt64])

    /// After opening: tells which blocks are in use. Until `finishMarking` no old block is used again.
    func markBlocksUsed(_ blocks: [UInt64])

    /// After opening: every block not marked is free, and erased.
    func finishMarking()

    // MARK: Folding: committed changes gather in a journal and are folded into the record table in the background

    /// Sets what is called when a fold begins: the records it gives are written with that fold, and no other change
    /// comes between. It is not called for a fold with nothing to do.
    func setFoldHooks(willFold: @escaping @Sendable () -> [(RecordKey, [UInt8])])

    /// Folds from now on in the background, until `close`.
    func startFolding()

    /// Folds everything committed so far.
    func fold() throws(StorageError)

    /// On return nothing is left, in any of the store's files, of what was changed, deleted or released before: no old
    /// value in a journal, a log or the unused part of a page.
    ///
    /// - Throws: `.io(EBUSY)` if somebody walks through the records all the time; nothing is lost by trying again.
    func eraseRemains() throws(StorageError)

    /// As `scan`, of the records as the last fold left them.
    func scanFolded(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError)

    /// The records changed since the last fold, in key order.
    var overlayKeys: [RecordKey] { get }

    // MARK: Keeping

    /// What is wrong with the store's own files; empty if nothing is.
    func integrityCheck() throws(StorageError) -> [String]

    func statistics() throws(StorageError) -> StoreStatistics

    /// Folds and closes. A second call does nothing.
    func close() throws(StorageError)
}

extension RecordStore {
    public static var blockByteCount: Int { storeBlockByteCount }

    public func commit(_ batch: RecordBatch) throws(StorageError) { try commit(batch, then: {}) }

    /// - Parameter then: runs once, directly after the batch took effect and before any fold can begin.
    public func commit(_ batch: RecordBatch, then: () -> Void) throws(StorageError) {
        try commit(batch) { takeEffect in
            takeEffect()
            then()
        }
    }

    public func session() throws(StorageError) -> any ReadingSession { PlainSession(of: self) }

    public func relieve() throws(StorageError) {}
}

/// Of a store in which reads in a row cost no less than single ones.
private final class PlainSession<Store: RecordStore>: ReadingSession {
    private let store: Store

    init(of store: Store) { self.store = store }

    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        try store.read(key, body)
    }
}

/// The size of a block.
public let storeBlockByteCount = 4096

/// How much room there is and what is used of it.
public struct StoreStatistics: Sendable, Equatable {
    /// Of the file system that the store lies on.
    public var diskByteCount: UInt64 = 0
    /// What of it the store's user may still fill.
    public var freeByteCount: UInt64 = 0
    public var usedBlockCount: UInt64 = 0
    public var journalByteCount: UInt64 = 0
    /// The file of the record table.
    public var tableByteCount: UInt64 = 0

    public init() {}
}
