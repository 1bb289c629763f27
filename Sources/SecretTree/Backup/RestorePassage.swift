internal import Keyring
internal import Sodium
internal import Storage

/// One way through a backup, or through several that are one chain.
struct RestorePassage {
    /// Of the backup that is gone through, for errors.
    var place = 0
    private let root: UnlockedRoot
    private let store: (any RecordStore)?
    private var batch = RecordBatch()
    private var batchByteCount = 0
    /// What makes a store a keyring: written last.
    private var own: [RecordKey: [UInt8]] = [:]
    private var sum = HashSum()
    private var countedRecords: UInt64 = 0
    /// Names what is tampered with in the store that is made, from its first opening on.
    private var localizer = Localizer()
    private var recordCount: UInt64 = 0
    private var blockCount: UInt64 = 0
    /// Of the backup that was gone through last.
    private var found: Root?
    private let freshness: FreshnessHash
    private let rootSeal: RecordSeal

    /// A batch is committed when it has grown to this.
    private static let batchLimit = 1 << 20
    private static let ownKinds: Set<UInt8> = [
        RecordKind.configuration.rawValue, RecordKind.root.rawValue, RecordKind.lifecycle.rawValue,
        RecordKind.treeKey.rawValue,
    ]

    init(_ root: UnlockedRoot, into store: (any RecordStore)?) throws(Restoring.Failed) {
        self.root = root
        self.store = store
        do throws(KeyringError) {
            freshness = FreshnessHash(key: try root.deriveKey(Labels.freshness))
            rootSeal = RecordSeal(Labels.root, key: try root.deriveKey(Labels.root), store: root.storeID)
        } catch { throw .backup(0, .key(error)) }
    }

    var report: BackupReport {
        BackupReport(
            epoch: found?.epoch ?? 0, fileCount: found?.fileCount ?? 0, recordCount: recordCount,
            blockCount: blockCount)
    }

    // MARK: One backup

    /// Takes what a backup holds, and holds it against its root record.
    ///
    /// - Parameter believesBase: What it says of its base is what there was before.
    mutating func follow(_ reader: BackupReader, believesBase: Bool) throws(Restoring.Failed) {
        var last: RecordKey?
        var (records, blocks): (UInt64, UInt64) = (0, 0)
        func note(_ key: RecordKey) throws(Restoring.Failed) {
            guard last.map({ $0 < key }) ?? true else { throw damaged("its records are in no order") }
            last = key
            records += 1
        }
        while true {
            switch try next(reader) {
            case .record(let key, let value, let instead):
                try note(key)
                count(key, value, instead)
                try take(key, value)
            case .removal(let key, let element):
                try note(key)
                guard !Self.ownKinds.contains(key.kind) else {
                    throw damaged("it takes away the keyring's own records")
                }
                drop(key, element)
                batch.delete(key)
                try grow(by: 0)
            case .block(let number, let bytes):
                blocks += 1
                guard let store else { continue }
                let result = bytes.withUnsafeBytes { bytes in
                    Result { () throws(StorageError) in try store.writeBlocks(at: number, bytes) }
                }
                do throws(StorageError) { try result.get() } catch { throw .storage(error) }
            case .end(records, blocks, let base):
                recordCount += records
                blockCount += blocks
                return try compare(base, believesBase)
            case .end: throw damaged("it counts other records than it holds")
            }
        }
    }

    private func next(_ reader: BackupReader) throws(Restoring.Failed) -> BackupReader.Entry {
        do throws(BackupError) { return try reader.next() } catch { throw .backup(place, error) }
    }

    private func damaged(_ what: String) -> Restoring.Failed { .backup(place, .damaged(what)) }

    private mutating func count(_ key: RecordKey, _ value: [UInt8], _ instead: HashSum?) {
        guard RecordKind(rawValue: key.kind)?.isCounted != false else { return }
        if let instead { drop(key, instead) }
        let element = value.withUnsafeBytes { freshness.element(key, value: $0) }
        sum += element
        localizer.add(key, element)
        countedRecords &+= 1
    }

    private mutating func drop(_ key: RecordKey, _ element: HashSum) {
        sum -= element
        localizer.drop(key, element)
        // Of what a base is only said to hold nothing was counted.
        countedRecords &-= 1
    }

    private mutating func take(_ key: RecordKey, _ value: [UInt8]) throws(Restoring.Failed) {
        if Self.ownKinds.contains(key.kind) {
            own[key] = value
            return
        }
        guard store != nil else { return }
        batch.put(key, value)
        try grow(by: value.count)
    }

    private mutating func grow(by count: Int) throws(Restoring.Failed) {
        batchByteCount += count + RecordKey.byteCount
        if batchByteCount >= Self.batchLimit { try commit() }
    }

    private mutating func commit() throws(Restoring.Failed) {
        if let store {
            do throws(StorageError) { try store.commit(batch) } catch { throw .storage(error) }
        }
        batch = RecordBatch()
        batchByteCount = 0
    }

    /// What there is now must be what the root record says, and what there was what the backup says of its base.
    private mutating func compare(_ base: BackupMoment?, _ believesBase: Bool) throws(Restoring.Failed) {
        if let base {
            if believesBase {
                sum += base.sum
                countedRecords &+= base.recordCount
            } else {
                guard let found, BackupMoment(found) == base else {
                    throw damaged("it does not follow the one before it")
                }
            }
        }
        let record = RecordKey(.root)
        guard let bytes = own[record] else { throw damaged("a record of the keyring's own is missing") }
        found = bytes.withUnsafeBytes { rootSeal.open(record, $0) { Root($0) } }
        guard let found, found.sum == sum, found.recordCount == countedRecords else {
            throw damaged("its root record does not stand for what is in it")
        }
        // The next one brings its own.
        own[record] = nil
        lastRoot = bytes
    }

    private var lastRoot: [UInt8]?

    // MARK: The end of a chain

    /// Opens the keys.
    func keyring() throws(Restoring.Failed) -> UnlockedKeyring {
        do throws(KeyringError) {
            guard let configuration = own[RecordKey(.configuration)], let lifecycle = own[RecordKey(.lifecycle)],
                let treeKey = own[RecordKey(.treeKey)]
            else { throw KeyringError.damaged("a record of the keyring's own is missing") }
            let keyring = try root.keyring(stored: configuration, lifecycle: lifecycle)
            _ = try TreeSeals(treeKey, keyring)
            return keyring
        } catch {
            if case .damaged(let what) = error { throw damaged(what) }
            throw .backup(place, .key(error))
        }
    }

    /// Makes a keyring of the store.
    mutating func finish(_ keyring: UnlockedKeyring) throws(Restoring.Failed) {
        for (key, value) in own { batch.put(key, value) }
        if let lastRoot { batch.put(RecordKey(.root), lastRoot) }
        let record = RecordKey(.localizer)
        batch.put(record, rootSeal.sealed(record, byteCount: Localizer.byteCount) { localizer.put(into: $0) })
        try commit()
    }
}
