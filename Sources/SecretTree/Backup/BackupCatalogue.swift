internal import Glibc
internal import Keyring
internal import Sodium
internal import Storage

/// Where it is kept what backups held, sealed, so that a later one need hold only what has changed since: a file each, beside
/// what else is remembered of the store.
///
///     magic 8 "LLCATALG" | format 4 | zero 4 | salt 32 | backup 32
///
/// and chunks as a backup has them, of
///
///     1 | key 25 | element 32        for each record that the root's sum counts, in the order of keys
///     2 | epoch 8 | records 8 | sum 32
public struct BackupCatalogues: Sendable {
    private let directory: String
    private let history: String

    /// So many are kept: those that were made, or gone by, last.
    private static let limit = 16
    private static let suffix = ".catalogue"

    /// - Parameter history: Of the keyring: a restored one has none of its past.
    public init(directory: String, history: String) {
        self.directory = directory
        self.history = history
    }

    func path(_ id: BackupID) -> String { "\(directory)/\(history).\(id.description.prefix(32))\(Self.suffix)" }

    /// Drops the oldest, and what somebody who died over it has left.
    func prune() {
        guard let stream = opendir(directory) else { return }
        defer { closedir(stream) }
        var found: [(time: timespec, path: String)] = []
        let yesterday = time(nil) - 86_400
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { name in
                String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
            }
            var status = stat()
            let path = "\(directory)/\(name)"
            guard name.hasPrefix(history + "."), lstat(path, &status) == 0 else { continue }
            // The id has no dot: a lineage has its own.
            let parts = name.dropFirst(history.count + 1).split(separator: ".", omittingEmptySubsequences: false)
            guard parts.count >= 2, parts[1] == Self.suffix.dropFirst() else { continue }
            if parts.count == 2 {
                found.append((status.st_mtim, path))
            } else if status.st_mtim.tv_sec < yesterday {
                unlink(path)
            }
        }
        found.sort { ($0.time.tv_sec, $0.time.tv_nsec) > ($1.time.tv_sec, $1.time.tv_nsec) }
        for old in found.dropFirst(Self.limit) { unlink(old.path) }
    }
}

enum CatalogueFormat {
    static let magic: UInt64 = 0x474C_4154_4143_4C4C
    static let format: UInt32 = 1
    static let headerByteCount = 16 + BackupFormat.saltByteCount + BackupID.byteCount
    static let recordByteCount = RecordKey.byteCount + HashSum.byteCount

    enum Entry: UInt8 {
        case record = 1
        case end = 2
    }
}

/// Writes a catalogue while a backup is made. One that cannot be written is none: no later backup goes by it.
final class CatalogueWriter {
    private let catalogues: BackupCatalogues
    private let path: String
    private let temporary: String
    private let descriptor: Int32
    private let seal: BackupSeal
    private var plaintext: [UInt8] = []
    private var chunkCount: UInt64 = 0
    private var isWhole = true

    /// - Parameter key: The root key's subkey for catalogues.
    init?(_ catalogues: BackupCatalogues, of id: BackupID, key: SecretKey) throws(SodiumError) {
        var header = [UInt8](repeating: 0, count: CatalogueFormat.headerByteCount)
        header.withUnsafeMutableBytes { header in
            header.put(CatalogueFormat.magic, at: 0)
            header.put(CatalogueFormat.format, at: 8)
            Randomness.fill(header.part(16, BackupFormat.saltByteCount))
            id.bytes.withUnsafeBytes { header.put($0, at: 16 + BackupFormat.saltByteCount) }
        }
        seal = try BackupSeal(header: header, key: key)
        self.catalogues = catalogues
        path = catalogues.path(id)
        temporary = "\(path).\(getpid())"
        descriptor = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        guard descriptor >= 0 else { return nil }
        write(header)
        plaintext.reserveCapacity(2 * BackupFormat.chunkByteCount)
    }

    deinit {
        guard descriptor >= 0 else { return }
        close(descriptor)
        unlink(temporary)
    }

    func add(_ key: RecordKey, _ element: HashSum) {
        guard isWhole else { return }
        plaintext.append(CatalogueFormat.Entry.record.rawValue)
        withUnsafeTemporaryAllocation(byteCount: CatalogueFormat.recordByteCount, alignment: 8) { bytes in
            key.encode(into: bytes)
            element.put(into: bytes, at: RecordKey.byteCount)
            plaintext.append(contentsOf: bytes)
        }
        if plaintext.count > BackupFormat.chunkByteCount { writeChunk(BackupFormat.chunkByteCount, isLast: false) }
    }

    /// - Returns: false if there is no catalogue.
    func finish(_ moment: BackupMoment) -> Bool {
        guard isWhole else { return false }
        plaintext.append(CatalogueFormat.Entry.end.rawValue)
        plaintext += moment.bytes
        while plaintext.count > BackupFormat.chunkByteCount { writeChunk(BackupFormat.chunkByteCount, isLast: false) }
        writeChunk(plaintext.count, isLast: true)
        guard isWhole, fdatasync(descriptor) == 0, rename(temporary, path) == 0 else { return false }
        catalogues.prune()
        return true
    }

    private func writeChunk(_ count: Int, isLast: Bool) {
        write(plaintext.withUnsafeBytes { seal.seal($0.part(0, count), number: chunkCount, isLast: isLast) })
        chunkCount += 1
        plaintext.removeFirst(count)
    }

    private func write(_ bytes: [UInt8]) {
        var done = 0
        while isWhole, done < bytes.count {
            let count = bytes.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress! + done, $0.count - done) }
            if count < 0, errno == EINTR { continue }
            if count <= 0 { isWhole = false } else { done += count }
        }
    }
}

/// Reads a catalogue in order, once.
final class CatalogueReader {
    private let descriptor: Int32
    private let chunks: ChunkReader
    /// The next record; nil after the last one.
    private(set) var current: (key: RecordKey, element: HashSum)?
    /// Known after the last one.
    private(set) var moment: BackupMoment?

    /// - Parameter key: The root key's subkey for catalogues.
    init(_ catalogues: BackupCatalogues, of id: BackupID, key: SecretKey) throws(BackupMakingError) {
        let path = catalogues.path(id)
        let opened = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW)
        guard opened >= 0 else { throw errno == ENOENT ? .unknownBase(id) : .unreadableBase(errno) }
        do {
            let header = try ChunkReader.read(CatalogueFormat.headerByteCount, opened)
            let isRight =
                header.count == CatalogueFormat.headerByteCount
                && header.withUnsafeBytes {
                    $0.number(UInt64.self, at: 0) == CatalogueFormat.magic
                        && $0.number(UInt32.self, at: 8) == CatalogueFormat.format
                        && $0.part(16 + BackupFormat.saltByteCount, BackupID.byteCount).elementsEqual(id.bytes)
                }
            guard isRight else { throw BackupError.damaged("it does not begin like one") }
            chunks = ChunkReader(descriptor: opened, seal: try BackupSeal(header: header, key: key))
            descriptor = opened
            try advance()
        } catch {
            // Another root key does not open it, nor does it open what is damaged.
            if (error as? SodiumError) != nil { throw .tree(.key(.cannotLock)) }
            if case .unreadable(let number)? = error as? BackupError { throw .unreadableBase(number) }
            throw .uselessBase(id)
        }
        // So that it is kept longer than those that nobody goes by.
        _ = futimens(opened, nil)
    }

    deinit { close(descriptor) }

    func advance() throws(BackupError) {
        let kind = try chunks.take(1).first.flatMap { CatalogueFormat.Entry(rawValue: $0) }
        switch kind {
        case .record:
            let bytes = Array(try chunks.take(CatalogueFormat.recordByteCount))
            let next = bytes.withUnsafeBytes { bytes in
                RecordKey(bytes.part(0, RecordKey.byteCount)).map {
                    (key: $0, element: HashSum(bytes, at: RecordKey.byteCount))
                }
            }
            guard let next, current.map({ $0.key < next.key }) ?? true else { throw .damaged("it is in no order") }
            current = next
        case .end:
            let bytes = Array(try chunks.take(BackupMoment.byteCount))
            moment = bytes.withUnsafeBytes { BackupMoment($0) }
            try chunks.checkEnd()
            current = nil
        case nil: throw .damaged("it holds what is not known")
        }
    }
}
