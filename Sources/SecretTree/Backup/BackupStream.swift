public import Keyring
internal import Sodium
internal import Storage

/// A tree's backup, made as it is read: all records and blocks as of one moment, or what of them has changed since an earlier
/// backup, while the tree goes on changing.
///
/// Used by one thread at a time.
public final class BackupStream {
    private let tree: SecretTree
    private let snapshot: any StoreSnapshot
    private let seal: BackupSeal
    /// What the base held; nil for a full backup.
    private let base: CatalogueReader?
    private let catalogue: CatalogueWriter?
    /// False if no later backup can go by this one. Known at its end.
    public private(set) var isRemembered = false
    /// Made and not given out yet.
    private var ready: [UInt8]
    private var readyPlace = 0
    private var plaintext: [UInt8] = []
    private var chunkCount: UInt64 = 0
    /// The last entry is made, the last chunk is.
    private var hasEnded = false
    private var isComplete = false

    private var sum = HashSum()
    private var root: Root?
    /// Of the tree, without those that nobody counts.
    private var countedRecords: UInt64 = 0
    /// In the backup.
    private var recordCount: UInt64 = 0
    private var blockCount: UInt64 = 0

    /// - Parameters:
    ///   - base: An earlier backup, what has changed since which is wanted; nil for everything.
    ///   - recipient: What opens this backup besides what opens the keyring.
    ///   - catalogues: Where it is remembered what backups held.
    public init(
        _ tree: SecretTree, since base: BackupID? = nil, recipient: (any KeyService)? = nil,
        catalogues: BackupCatalogues? = nil
    ) throws(BackupMakingError) {
        self.tree = tree
        // What opens the keyring opens its backup.
        var configuration = tree.keyring.configurationBytes
        do {
            if let recipient { configuration = try tree.keyring.addingSlot(recipient) }
            let header = BackupFormat.header(configuration: configuration, base: base)
            seal = try BackupSeal(header: header, key: try tree.keyring.deriveKey(Labels.backup))
            ready = header
            let key = try tree.keyring.deriveKey(Labels.catalogue)
            catalogue = try catalogues.flatMap { catalogues throws(SodiumError) in
                try CatalogueWriter(catalogues, of: BackupID(header: header), key: key)
            }
            if let base {
                guard let catalogues else { throw BackupMakingError.unknownBase(base) }
                self.base = try CatalogueReader(catalogues, of: base, key: key)
            } else {
                self.base = nil
            }
        } catch {
            throw (error as? BackupMakingError) ?? .tree(.key((error as? KeyringError) ?? .cannotLock))
        }
        do throws(StorageError) { snapshot = try tree.store.snapshot() } catch { throw .tree(TreeError(error)) }
        plaintext.reserveCapacity(2 * BackupFormat.chunkByteCount)
    }

    /// The next bytes; 0 at the end.
    ///
    /// - Throws: `.tampered` if the store is not what its root says: what is damaged is not backed up as if it were sound.
    public func read(into buffer: UnsafeMutableRawBufferPointer) throws(TreeError) -> Int {
        while readyPlace == ready.count {
            guard !isComplete else { return 0 }
            try makeChunk()
        }
        let count = min(buffer.count, ready.count - readyPlace)
        ready.withUnsafeBytes { buffer.part(0, count).copyMemory(from: $0.part(readyPlace, count)) }
        readyPlace += count
        return count
    }

    private func makeChunk() throws(TreeError) {
        // More than a chunk: the last one is known by its mark, and must not be given out before it is known to be.
        while !hasEnded, plaintext.count <= BackupFormat.chunkByteCount { try addEntry() }
        let count = min(plaintext.count, BackupFormat.chunkByteCount)
        isComplete = hasEnded && count == plaintext.count
        if isComplete, let root { isRemembered = catalogue?.finish(BackupMoment(root)) ?? false }
        ready = plaintext.withUnsafeBytes { seal.seal($0.part(0, count), number: chunkCount, isLast: isComplete) }
        readyPlace = 0
        chunkCount += 1
        plaintext.removeFirst(count)
    }

    private func addEntry() throws(TreeError) {
        let next: (key: RecordKey, value: [UInt8])?
        do throws(StorageError) { next = try snapshot.next() } catch { throw TreeError(error) }
        try addRemovals(before: next?.key)
        guard let (key, value) = next else {
            try checkSum()
            append(.end, [recordCount, blockCount], base?.moment?.bytes ?? [])
            hasEnded = true
            return
        }
        // The localizer speaks of the table as it was folded last; what is restored gets one of its own.
        guard key.kind != RecordKind.localizer.rawValue else { return }
        let element = note(key, value)
        if let element { catalogue?.add(key, element) }
        let old = try elementInBase(of: key)
        guard element == nil || element != old || Self.alwaysThere.contains(key.kind) else { return }
        append(old == nil ? .record : .change, key)
        if let old { append(old) }
        withUnsafeBytes(of: UInt32(value.count).littleEndian) { plaintext.append(contentsOf: $0) }
        plaintext += value
        recordCount += 1
        if key.kind == RecordKind.map.rawValue { try addBlocks(key, value) }
    }

    /// Short, and elements do not cover the longest of them whole.
    private static let alwaysThere: Set<UInt8> = [
        RecordKind.configuration.rawValue, RecordKind.lifecycle.rawValue, RecordKind.treeKey.rawValue,
    ]

    // MARK: What the base held

    /// What the base held up to there and is not there any more.
    private func addRemovals(before key: RecordKey?) throws(TreeError) {
        guard let base else { return }
        while let gone = base.current, key.map({ gone.key < $0 }) ?? true {
            append(.removal, gone.key)
            append(gone.element)
            recordCount += 1
            try advance(base)
        }
    }

    private func elementInBase(of key: RecordKey) throws(TreeError) -> HashSum? {
        guard let base, let current = base.current, current.key == key else { return nil }
        try advance(base)
        return current.element
    }

    private func advance(_ base: CatalogueReader) throws(TreeError) {
        do throws(BackupError) { try base.advance() } catch {
            throw .storage(description: "what is remembered of the earlier backup is damaged: \(error)")
        }
    }

    // MARK: Parts

    private func append(_ entry: BackupFormat.Entry, _ key: RecordKey) {
        plaintext.append(entry.rawValue)
        withUnsafeTemporaryAllocation(byteCount: RecordKey.byteCount, alignment: 8) { bytes in
            key.encode(into: bytes)
            plaintext.append(contentsOf: bytes)
        }
    }

    private func append(_ element: HashSum) {
        withUnsafeTemporaryAllocation(byteCount: HashSum.byteCount, alignment: 8) { bytes in
            element.put(into: bytes, at: 0)
            plaintext.append(contentsOf: bytes)
        }
    }

    private func append(_ entry: BackupFormat.Entry, _ numbers: [UInt64], _ bytes: [UInt8]) {
        plaintext.append(entry.rawValue)
        for number in numbers { withUnsafeBytes(of: number.littleEndian) { plaintext.append(contentsOf: $0) } }
        plaintext += bytes
    }

    private func addBlocks(_ record: RecordKey, _ value: [UInt8]) throws(TreeError) {
        let map = value.withUnsafeBytes { tree.seals.records.open(record, $0) { BlockMap($0, index: record.high) } }
        guard let map else { throw tree.tampered(record, NodeID(rawValue: 0), "does not authenticate") }
        var block = [UInt8](repeating: 0, count: Contents.blockByteCount)
        for number in map.blocks {
            let result = block.withUnsafeMutableBytes { block in
                Result { () throws(StorageError) in try snapshot.readBlock(number, into: block) }
            }
            do throws(StorageError) { try result.get() } catch { throw TreeError(error) }
            append(.block, [number], block)
            blockCount += 1
        }
    }

    // MARK: Is it what the root says?

    /// - Returns: The record's element; nil for the root.
    private func note(_ key: RecordKey, _ value: [UInt8]) -> HashSum? {
        guard key.kind != RecordKind.root.rawValue else {
            root = value.withUnsafeBytes { tree.seals.root.open(key, $0) { Root($0) } }
            return nil
        }
        let element = value.withUnsafeBytes { tree.seals.freshness.element(key, value: $0) }
        sum += element
        countedRecords += 1
        return element
    }

    private func checkSum() throws(TreeError) {
        guard let root, root.sum == sum, root.recordCount == countedRecords else {
            throw tree.tampered(RecordKey(.root), .root, "does not stand for what is there")
        }
    }
}
