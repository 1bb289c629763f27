public import Keyring
internal import Sodium
public import Storage

/// What a backup was found to hold.
public struct BackupReport: Sendable {
    public let keyring: UnlockedKeyring
    public var epoch: UInt64
    public var fileCount: UInt64
    public var recordCount: UInt64
    public var blockCount: UInt64
}

/// Going through a backup whole: every part is opened, and what is in it is held against its root record.
public enum Restoring {
    /// Why a restore fails.
    public enum Failed: Error {
        case backup(BackupError)
        case storage(StorageError)
    }

    /// Checks a backup.
    ///
    /// - Parameter reader: One whose header was read and nothing more.
    public static func check(_ reader: BackupReader, _ root: UnlockedRoot) throws(BackupError) -> BackupReport {
        var passage = Passage(root)
        do throws(Failed) { return try passage.run(reader, into: nil) } catch {
            switch error {
            case .backup(let error): throw error
            case .storage: preconditionFailure("internal error: a check has no store")
            }
        }
    }

    /// Puts what a backup holds into a store that was just made. Only with the last change does it become a keyring.
    ///
    /// On return all is folded and durable. When it throws, what is in the store is to be thrown away.
    public static func restore(_ reader: BackupReader, _ root: UnlockedRoot, into store: any RecordStore) throws(Failed)
        -> BackupReport
    {
        var passage = Passage(root)
        let report = try passage.run(reader, into: store)
        do throws(StorageError) {
            try store.fold()
            try store.sync()
        } catch { throw .storage(error) }
        return report
    }
}

/// One way through a backup.
private struct Passage {
    private let root: UnlockedRoot
    private var batch = RecordBatch()
    private var batchByteCount = 0
    /// What makes a store a keyring: written last.
    private var own: [RecordKey: [UInt8]] = [:]
    private var sum = HashSum()
    /// Names what is tampered with in the store that is made, from its first opening on.
    private var localizer = Localizer()
    private var recordCount: UInt64 = 0
    private var blockCount: UInt64 = 0
    private let freshness: Result<FreshnessHash, KeyringError>

    /// A batch is committed when it has grown to this.
    private static let batchLimit = 1 << 20
    private static let ownKinds: Set<UInt8> = [
        RecordKind.configuration.rawValue, RecordKind.root.rawValue, RecordKind.lifecycle.rawValue,
        RecordKind.treeKey.rawValue,
    ]

    init(_ root: UnlockedRoot) {
        self.root = root
        freshness = Result { () throws(KeyringError) in FreshnessHash(key: try root.deriveKey(Labels.freshness)) }
    }

    mutating func run(_ reader: BackupReader, into store: (any RecordStore)?) throws(Restoring.Failed) -> BackupReport {
        var last: RecordKey?
        while true {
            switch try next(reader) {
            case .record(let key, let value):
                guard last.map({ $0 < key }) ?? true else { throw .backup(.damaged("its records are in no order")) }
                last = key
                try take(key, value, into: store)
            case .block(let number, let bytes):
                blockCount += 1
                guard let store else { continue }
                let result = bytes.withUnsafeBytes { bytes in
                    Result { () throws(StorageError) in try store.writeBlocks(at: number, bytes) }
                }
                do throws(StorageError) { try result.get() } catch { throw .storage(error) }
            case .end(let records, let blocks):
                guard records == recordCount, blocks == blockCount else {
                    throw .backup(.damaged("it counts other records than it holds"))
                }
                let report = try finish()
                if let store { try commit(into: store, isLast: true) }
                return report
            }
        }
    }

    private func next(_ reader: BackupReader) throws(Restoring.Failed) -> BackupReader.Entry {
        do throws(BackupError) { return try reader.next() } catch { throw .backup(error) }
    }

    private mutating func take(_ key: RecordKey, _ value: [UInt8], into store: (any RecordStore)?) throws(Restoring
        .Failed)
    {
        recordCount += 1
        if RecordKind(rawValue: key.kind)?.isCounted != false {
            do throws(KeyringError) {
                let freshness = try freshness.get()
                let element = value.withUnsafeBytes { freshness.element(key, value: $0) }
                sum += element
                localizer.add(key, element)
            } catch { throw .backup(.key(error)) }
        }
        if Self.ownKinds.contains(key.kind) {
            own[key] = value
            return
        }
        guard let store else { return }
        batch.put(key, value)
        batchByteCount += value.count + RecordKey.byteCount
        if batchByteCount >= Self.batchLimit { try commit(into: store, isLast: false) }
    }

    private mutating func commit(into store: any RecordStore, isLast: Bool) throws(Restoring.Failed) {
        if isLast { for (key, value) in own { batch.put(key, value) } }
        do throws(StorageError) { try store.commit(batch) } catch { throw .storage(error) }
        batch = RecordBatch()
        batchByteCount = 0
    }

    /// Holds what was read against the root record, and opens the keys.
    private mutating func finish() throws(Restoring.Failed) -> BackupReport {
        do throws(KeyringError) {
            guard let lifecycle = own[RecordKey(.lifecycle)], let treeKey = own[RecordKey(.treeKey)],
                let rootRecord = own[RecordKey(.root)], own[RecordKey(.configuration)] != nil
            else { throw KeyringError.damaged("a record of the keyring's own is missing") }
            let opened = lifecycle.withUnsafeBytes { lifecycle in
                Result { () throws(KeyringError) in try root.keyring(lifecycle) }
            }
            let keyring = try opened.get()
            let seals = try TreeSeals(treeKey, keyring)
            let found = rootRecord.withUnsafeBytes { seals.root.open(RecordKey(.root), $0) { Root($0) } }
            guard let found, found.sum == sum, found.recordCount == recordCount - 1 else {
                throw KeyringError.damaged("its root record does not stand for what is in it")
            }
            let record = RecordKey(.localizer)
            own[record] = seals.root.sealed(record, byteCount: Localizer.byteCount) { localizer.put(into: $0) }
            return BackupReport(
                keyring: keyring, epoch: found.epoch, fileCount: found.fileCount, recordCount: recordCount,
                blockCount: blockCount)
        } catch {
            if case .damaged(let what) = error { throw .backup(.damaged(what)) }
            throw .backup(.key(error))
        }
    }
}
