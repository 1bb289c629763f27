internal import Glibc
public import Keyring
internal import Sodium
internal import Storage

/// Reads a backup from a descriptor, from its beginning, once. Nothing is given out that does not authenticate.
public final class BackupReader {
    private let descriptor: Int32
    private let header: [UInt8]
    private let configuration: [UInt8]
    private var chunks: ChunkReader?

    /// Of which backup this one holds the changes; nil if it is a full one. Not authenticated before it is read.
    public let base: BackupID?
    public let id: BackupID

    /// Reads the header.
    ///
    /// - Parameter descriptor: Stays the caller's.
    public init(descriptor: Int32) throws(BackupError) {
        self.descriptor = descriptor
        let prefix = try ChunkReader.read(BackupFormat.prefixByteCount, descriptor)
        guard prefix.count >= 8, prefix.withUnsafeBytes({ $0.number(UInt64.self, at: 0) }) == BackupFormat.magic else {
            throw .notABackup
        }
        guard prefix.count == BackupFormat.prefixByteCount else { throw .cut }
        let (format, count) = prefix.withUnsafeBytes { prefix in
            (prefix.number(UInt32.self, at: 8), prefix.number(UInt32.self, at: prefix.count - 4))
        }
        guard format <= BackupFormat.incremental else { throw .newerFormat(format) }
        guard format >= BackupFormat.full, count <= BackupFormat.configurationLimit else {
            throw .damaged("its header makes no sense")
        }
        var base: [UInt8] = []
        if format == BackupFormat.incremental {
            base = try ChunkReader.read(BackupID.byteCount, descriptor)
            guard base.count == BackupID.byteCount else { throw .cut }
        }
        self.base = base.isEmpty ? nil : BackupID(bytes: base)
        configuration = try ChunkReader.read(Int(count), descriptor)
        guard configuration.count == Int(count) else { throw .cut }
        header = prefix + base + configuration
        id = BackupID(header: header)
    }

    /// What can be told without a key. Not authenticated.
    public func summary() throws(BackupError) -> KeyringSummary {
        let summary = configuration.withUnsafeBytes { bytes in
            Result { () throws(KeyringError) in try KeyringSummary(configuration: bytes) }
        }
        do throws(KeyringError) { return try summary.get() } catch { throw .key(error) }
    }

    /// Opens what follows with what opens the keyring.
    ///
    /// - Throws: `.key(.wrongSecret)`.
    public func unlock(with service: any KeyService) throws(BackupError) -> UnlockedRoot {
        do {
            let root = try configuration.withUnsafeBytes { try UnlockedRoot(configuration: $0, with: service) }
            try unlock(root)
            return root
        } catch { throw (error as? BackupError) ?? .key((error as? KeyringError) ?? .cannotLock) }
    }

    /// Opens what follows with the root key that another backup of the chain has given.
    public func unlock(_ root: UnlockedRoot) throws(BackupError) {
        do {
            let seal = try BackupSeal(header: header, key: try root.deriveKey(Labels.backup))
            chunks = ChunkReader(descriptor: descriptor, seal: seal)
        } catch { throw .key((error as? KeyringError) ?? .cannotLock) }
    }

    /// What stands next in it.
    enum Entry {
        /// The element is that of the record in whose place it is; nil if there was none.
        case record(RecordKey, [UInt8], instead: HashSum?)
        case removal(RecordKey, HashSum)
        case block(UInt64, ArraySlice<UInt8>)
        /// The moment is the base's; nil in a full backup.
        case end(records: UInt64, blocks: UInt64, base: BackupMoment?)
    }

    /// - Precondition: it was unlocked.
    func next() throws(BackupError) -> Entry {
        guard let chunks else { preconditionFailure("a backup is unlocked before it is read") }
        guard let kind = BackupFormat.Entry(rawValue: try chunks.take(1).first ?? 0) else {
            throw .damaged("it holds what is not known")
        }
        switch kind {
        case .record: return .record(try key(chunks), try value(chunks), instead: nil)
        case .change:
            let (key, element) = (try key(chunks), try element(chunks))
            return .record(key, try value(chunks), instead: element)
        case .removal: return .removal(try key(chunks), try element(chunks))
        case .block:
            let number = Array(try chunks.take(8)).withUnsafeBytes { $0.number(UInt64.self, at: 0) }
            guard (1...Self.blockLimit).contains(number) else { throw .damaged("block \(number) makes no sense") }
            return .block(number, try chunks.take(Contents.blockByteCount))
        case .end:
            let numbers = Array(try chunks.take(16))
            let moment = base == nil ? nil : Array(try chunks.take(BackupMoment.byteCount))
            try chunks.checkEnd()
            return numbers.withUnsafeBytes { numbers in
                .end(
                    records: numbers.number(UInt64.self, at: 0), blocks: numbers.number(UInt64.self, at: 8),
                    base: moment?.withUnsafeBytes { BackupMoment($0) })
            }
        }
    }

    private func key(_ chunks: ChunkReader) throws(BackupError) -> RecordKey {
        let bytes = Array(try chunks.take(RecordKey.byteCount))
        guard let key = bytes.withUnsafeBytes({ RecordKey($0) }) else { throw .damaged("a record makes no sense") }
        return key
    }

    private func value(_ chunks: ChunkReader) throws(BackupError) -> [UInt8] {
        let count = Array(try chunks.take(4)).withUnsafeBytes { $0.number(UInt32.self, at: 0) }
        guard count <= BackupFormat.valueLimit else { throw .damaged("a record makes no sense") }
        return Array(try chunks.take(Int(count)))
    }

    /// A full backup has nothing that it could replace.
    private func element(_ chunks: ChunkReader) throws(BackupError) -> HashSum {
        guard base != nil else { throw .damaged("it changes what is not there") }
        return Array(try chunks.take(HashSum.byteCount)).withUnsafeBytes { HashSum($0, at: 0) }
    }

    /// As many blocks as a store's file can have.
    private static let blockLimit: UInt64 = 1 << 33
}
