internal import Threads

/// A store that lives and dies with its process: for tests.
public final class MemoryStore: RecordStore, @unchecked Sendable {
    /// Held by the one who commits or folds, before `lock`.
    private let committing = Monitor()
    // Everything mutable is guarded by `lock`.
    private let lock = Monitor()
    private var records = OrderedRecords()
    private var folded = OrderedRecords()
    private var changed = OrderedRecords()
    private var allocator = BlockAllocator(blockCount: 0, isMarking: false)
    private var blocks: [UInt64: [UInt8]] = [:]
    private var lastWrittenBlock: UInt64 = 0
    private var sequence: UInt64 = 0
    private var willFold: (@Sendable () -> [(RecordKey, [UInt8])])?
    private var isClosed = false

    public init() {}

    public func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        let found = try open { records.value(of: key) }
        guard case .some(.some(let value)) = found else { return body(nil) }
        return value.withUnsafeBytes { body($0) }
    }

    public func scan(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError) {
        Self.visit(try open { records }, range, prefix, body)
    }

    public func scanFolded(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError) {
        Self.visit(try open { folded }, range, prefix, body)
    }

    public func snapshot() throws(StorageError) -> any StoreSnapshot {
        try open {
            let all = records.records(in: RecordKey.first...RecordKey.last)
            return MemorySnapshot(records: all.compactMap { record in record.value.map { (record.key, $0) } }, blocks)
        }
    }

    public func commit(_ batch: RecordBatch, publish: (() -> Void) -> Void) throws(StorageError) {
        try committing.locked { () throws(StorageError) in
            try open { () throws(StorageError) in
                for (key, expected) in batch.expectations where (records.value(of: key) ?? nil) != expected {
                    throw .conflict
                }
            }
            // Readers whom it waits for need the other lock.
            publish {
                lock.locked {
                    for (key, value) in batch.changes {
                        if let value { records.set(key, value) } else { records.forget(key) }
                        changed.set(key, nil)
                    }
                    sequence += 1
                }
            }
        }
    }

    public func sync() throws(StorageError) { try open { erase() } }

    public func allocateBlocks(_ count: Int) throws(StorageError) -> [UInt64] {
        try open { allocator.allocate(count) }
    }

    public func writeBlocks(at first: UInt64, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        precondition(first > 0 && bytes.count % storeBlockByteCount == 0)
        try open {
            for index in 0..<bytes.count / storeBlockByteCount {
                let place = index * storeBlockByteCount
                blocks[first + UInt64(index)] = Array(bytes[place..<place + storeBlockByteCount])
                lastWrittenBlock = max(lastWrittenBlock, first + UInt64(index))
            }
        }
    }

    public func readBlocks(at first: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        precondition(bytes.count % storeBlockByteCount == 0)
        try open { () throws(StorageError) in
            for index in 0..<bytes.count / storeBlockByteCount {
                let number = first &+ UInt64(index)
                guard number > 0, number <= lastWrittenBlock else {
                    throw .corrupt("block \(number) is missing")
                }
                let place = index * storeBlockByteCount
                let target = UnsafeMutableRawBufferPointer(
                    rebasing: bytes[place..<place + storeBlockByteCount])
                if let block = blocks[number] {
                    target.copyBytes(from: block)
                } else {
                    target.initializeMemory(as: UInt8.self, repeating: 0)
                }
            }
        }
    }

    public func releaseBlocks(_ blocks: [UInt64]) {
        lock.locked { allocator.release(blocks, after: sequence) }
    }

    public func markBlocksUsed(_ blocks: [UInt64]) { lock.locked { allocator.mark(blocks) } }

    public func finishMarking() {
        lock.locked {
            allocator.finishMarking(after: sequence)
            erase()
        }
    }

    public func setFoldHooks(willFold: @escaping @Sendable () -> [(RecordKey, [UInt8])]) {
        lock.locked { self.willFold = willFold }
    }

    public func startFolding() {}

    public func fold() throws(StorageError) {
        try committing.locked { () throws(StorageError) in
            try open {
                guard !changed.isEmpty else { return }
                for (key, value) in willFold?() ?? [] { records.set(key, value) }
                folded = records
                changed = OrderedRecords()
                erase()
            }
        }
    }

    public func eraseRemains() throws(StorageError) { try fold() }

    public var overlayKeys: [RecordKey] { lock.locked { changed.keys } }

    public func integrityCheck() throws(StorageError) -> [String] { try open { [] } }

    public func statistics() throws(StorageError) -> StoreStatistics {
        try open {
            var statistics = StoreStatistics()
            statistics.usedBlockCount = allocator.usedCount
            statistics.diskByteCount = 1 << 40
            statistics.freeByteCount = statistics.diskByteCount - UInt64(blocks.count * storeBlockByteCount)
            return statistics
        }
    }

    public func close() throws(StorageError) {
        guard !lock.locked({ isClosed }) else { return }
        try fold()
        lock.locked { isClosed = true }
    }

    // MARK: Inside

    private func open<R>(_ body: () throws(StorageError) -> R) throws(StorageError) -> R {
        try lock.locked { () throws(StorageError) -> R in
            guard !isClosed else { throw .closed }
            return try body()
        }
    }

    /// Frees what was released. Only when locked.
    private func erase() {
        let runs = allocator.takeErasable(durable: sequence)
        for run in runs { for block in run { blocks[block] = nil } }
        allocator.free(runs)
    }

    private static func visit(
        _ records: OrderedRecords, _ range: ClosedRange<RecordKey>, _ prefix: Int,
        _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) {
        records.visit(range) { key, value in
            guard let value else { return true }
            return value.withUnsafeBytes { bytes in
                body(key, UnsafeRawBufferPointer(rebasing: bytes.prefix(prefix)))
            }
        }
    }
}

private final class MemorySnapshot: StoreSnapshot {
    private var records: ArraySlice<(key: RecordKey, value: [UInt8])>
    private let blocks: [UInt64: [UInt8]]

    init(records: [(key: RecordKey, value: [UInt8])], _ blocks: [UInt64: [UInt8]]) {
        self.records = records[...]
        self.blocks = blocks
    }

    func next() -> (key: RecordKey, value: [UInt8])? { records.popFirst() }

    func readBlock(_ number: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        guard let block = blocks[number] else { throw .corrupt("block \(number) is missing") }
        bytes.copyBytes(from: block)
    }
}
