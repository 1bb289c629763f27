internal import Keyring
internal import Sodium
internal import Storage

/// A tree's backup, made as it is read: all records and blocks as of one moment, while the tree goes on changing.
///
/// Used by one thread at a time.
public final class BackupStream {
    private let tree: SecretTree
    private let snapshot: any StoreSnapshot
    private let seal: BackupSeal
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
    private var recordCount: UInt64 = 0
    private var blockCount: UInt64 = 0

    public init(_ tree: SecretTree) throws(TreeError) {
        self.tree = tree
        do throws(StorageError) { snapshot = try tree.store.snapshot() } catch { throw TreeError(error) }
        // What opens the keyring opens its backup.
        ready = BackupFormat.header(configuration: tree.keyring.configurationBytes)
        do {
            seal = try BackupSeal(header: ready, key: try tree.keyring.deriveKey(Labels.backup))
        } catch { throw .key((error as? KeyringError) ?? .cannotLock) }
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
        ready = plaintext.withUnsafeBytes { seal.seal($0.part(0, count), number: chunkCount, isLast: isComplete) }
        readyPlace = 0
        chunkCount += 1
        plaintext.removeFirst(count)
    }

    private func addEntry() throws(TreeError) {
        let next: (key: RecordKey, value: [UInt8])?
        do throws(StorageError) { next = try snapshot.next() } catch { throw TreeError(error) }
        guard let (key, value) = next else {
            try checkSum()
            append(.end, [recordCount, blockCount], [])
            hasEnded = true
            return
        }
        // The localizer speaks of the table as it was folded last; what is restored gets one of its own.
        guard key.kind != RecordKind.localizer.rawValue else { return }
        try note(key, value)
        plaintext.append(BackupFormat.Entry.record.rawValue)
        withUnsafeTemporaryAllocation(byteCount: RecordKey.byteCount, alignment: 8) { bytes in
            key.encode(into: bytes)
            plaintext.append(contentsOf: bytes)
        }
        withUnsafeBytes(of: UInt32(value.count).littleEndian) { plaintext.append(contentsOf: $0) }
        plaintext += value
        recordCount += 1
        if key.kind == RecordKind.map.rawValue { try addBlocks(key, value) }
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

    private func note(_ key: RecordKey, _ value: [UInt8]) throws(TreeError) {
        if key.kind == RecordKind.root.rawValue {
            root = value.withUnsafeBytes { tree.seals.root.open(key, $0) { Root($0) } }
        } else {
            sum += value.withUnsafeBytes { tree.seals.freshness.element(key, value: $0) }
        }
    }

    private func checkSum() throws(TreeError) {
        guard let root, root.sum == sum, root.recordCount == recordCount - 1 else {
            throw tree.tampered(RecordKey(.root), .root, "does not stand for what is there")
        }
    }
}
