internal import Glibc
public import Keyring
internal import Sodium
internal import Storage

/// Reads a backup from a descriptor, from its beginning, once. Nothing is given out that does not authenticate.
public final class BackupReader {
    private let descriptor: Int32
    private let header: [UInt8]
    private let configuration: [UInt8]
    private var seal: BackupSeal?
    private var chunkCount: UInt64 = 0
    private var plaintext: [UInt8] = []
    private var place = 0
    private var isLast = false

    /// Reads the header.
    ///
    /// - Parameter descriptor: Stays the caller's.
    public init(descriptor: Int32) throws(BackupError) {
        self.descriptor = descriptor
        let prefix = try Self.read(BackupFormat.prefixByteCount, descriptor)
        guard prefix.count >= 8, prefix.withUnsafeBytes({ $0.number(UInt64.self, at: 0) }) == BackupFormat.magic else {
            throw .notABackup
        }
        guard prefix.count == BackupFormat.prefixByteCount else { throw .cut }
        let (format, count) = prefix.withUnsafeBytes { prefix in
            (prefix.number(UInt32.self, at: 8), prefix.number(UInt32.self, at: prefix.count - 4))
        }
        guard format <= BackupFormat.format else { throw .newerFormat(format) }
        guard format == BackupFormat.format, count <= BackupFormat.configurationLimit else {
            throw .damaged("its header makes no sense")
        }
        configuration = try Self.read(Int(count), descriptor)
        guard configuration.count == Int(count) else { throw .cut }
        header = prefix + configuration
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
            seal = try BackupSeal(header: header, key: try root.deriveKey(Labels.backup))
            return root
        } catch { throw .key((error as? KeyringError) ?? .cannotLock) }
    }

    /// What stands next in it.
    enum Entry {
        case record(RecordKey, [UInt8])
        case block(UInt64, ArraySlice<UInt8>)
        case end(records: UInt64, blocks: UInt64)
    }

    /// - Precondition: it was unlocked.
    func next() throws(BackupError) -> Entry {
        guard let kind = BackupFormat.Entry(rawValue: try take(1).first ?? 0) else {
            throw .damaged("it holds what is not known")
        }
        switch kind {
        case .record:
            let head = Array(try take(RecordKey.byteCount + 4))
            let (key, count) = head.withUnsafeBytes { head in
                (RecordKey(head.part(0, RecordKey.byteCount)), head.number(UInt32.self, at: RecordKey.byteCount))
            }
            guard let key, count <= BackupFormat.valueLimit else { throw .damaged("a record makes no sense") }
            return .record(key, Array(try take(Int(count))))
        case .block:
            let number = Array(try take(8)).withUnsafeBytes { $0.number(UInt64.self, at: 0) }
            guard (1...Self.blockLimit).contains(number) else { throw .damaged("block \(number) makes no sense") }
            return .block(number, try take(Contents.blockByteCount))
        case .end:
            let numbers = Array(try take(16))
            guard isLast, place == plaintext.count else { throw .damaged("it goes on after its end") }
            guard try Self.read(1, descriptor).isEmpty else { throw .damaged("something stands behind its end") }
            return numbers.withUnsafeBytes { numbers in
                .end(records: numbers.number(UInt64.self, at: 0), blocks: numbers.number(UInt64.self, at: 8))
            }
        }
    }

    /// As many blocks as a store's file can have.
    private static let blockLimit: UInt64 = 1 << 33

    private func take(_ count: Int) throws(BackupError) -> ArraySlice<UInt8> {
        while plaintext.count - place < count { try readChunk() }
        defer { place += count }
        return plaintext[place..<place + count]
    }

    private func readChunk() throws(BackupError) {
        guard let seal else { preconditionFailure("a backup is unlocked before it is read") }
        // Its stream has no end of its own, though the last chunk says that it is.
        guard !isLast else { throw .damaged("its last part is too short") }
        let head = try Self.read(BackupFormat.chunkHeadByteCount, descriptor)
        guard head.count == BackupFormat.chunkHeadByteCount else { throw .cut }
        let length = head.withUnsafeBytes { $0.number(UInt32.self, at: 0) }
        let count = Int(length & ~BackupFormat.lastMark)
        guard count > 0, count <= BackupFormat.chunkByteCount else {
            throw .damaged("part \(chunkCount + 1) has no proper length")
        }
        let body = try Self.read(count, descriptor)
        guard body.count == count else { throw .cut }
        guard let opened = seal.open(head + body, number: chunkCount) else {
            throw .damaged("part \(chunkCount + 1) does not authenticate")
        }
        isLast = length & BackupFormat.lastMark != 0
        chunkCount += 1
        plaintext.removeFirst(place)
        place = 0
        plaintext += opened
    }

    /// So many bytes, or fewer at the end of the file.
    private static func read(_ count: Int, _ descriptor: Int32) throws(BackupError) -> [UInt8] {
        var number: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let got = Glibc.read(descriptor, buffer.baseAddress! + filled, count - filled)
                if got < 0, errno == EINTR { continue }
                if got < 0 { number = errno }
                guard got > 0 else { break }
                filled += got
            }
        }
        guard number == 0 else { throw .unreadable(errno: number) }
        return bytes
    }
}
