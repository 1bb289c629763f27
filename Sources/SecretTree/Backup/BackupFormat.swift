public import Keyring
internal import Sodium

/// A backup: a header in the open, then a stream sealed in chunks.
///
///     magic 8 "LLBACKUP" | format 4 | zero 4 | salt 32 | configuration length 4 | base 32, of format 2 | configuration
///
/// and for each chunk
///
///     length 4, the highest bit set in the last one | nonce 24 | tag 16 | ciphertext
///
/// A chunk is bound to the header, its number and its length with the mark, so that none can be left out, repeated, moved or
/// brought from another backup, and the end cannot be cut off. The key is the root key's, and the salt's.
///
/// Format 1 is a full backup, format 2 one of what has changed since another, its base.
enum BackupFormat {
    static let magic: UInt64 = 0x5055_4B43_4142_4C4C
    static let full: UInt32 = 1
    static let incremental: UInt32 = 2
    static let saltByteCount = 32
    static let prefixByteCount = 8 + 4 + 4 + saltByteCount + 4
    static let configurationLimit = 128 * 1024
    static let chunkByteCount = 64 * 1024
    static let chunkHeadByteCount = 4 + Seal.nonceByteCount + Seal.tagByteCount
    static let lastMark: UInt32 = 1 << 31

    /// What stands in the stream, by its first byte.
    enum Entry: UInt8 {
        /// `key 25 | length 4 | value`
        case record = 1
        /// `number 8 | 4096 bytes`: a block of the map before it.
        case block = 2
        /// `records 8 | blocks 8`, and of format 2 what the base was: `epoch 8 | records 8 | sum 32`; nothing follows.
        case end = 3
        /// `key 25 | element 32 | length 4 | value`: of a record in the place of one that had this element. Format 2 alone.
        case change = 4
        /// `key 25 | element 32`: a record that is gone. Format 2 alone.
        case removal = 5
    }

    /// The longest value that a store holds, with room to spare.
    static let valueLimit = 1 << 27

    static func header(configuration: [UInt8], base: BackupID?) -> [UInt8] {
        var header = [UInt8](repeating: 0, count: prefixByteCount)
        header.withUnsafeMutableBytes { header in
            header.put(magic, at: 0)
            header.put(base == nil ? full : incremental, at: 8)
            Randomness.fill(header.part(16, saltByteCount))
            header.put(UInt32(configuration.count), at: 16 + saltByteCount)
        }
        return header + (base?.bytes ?? []) + configuration
    }
}

/// Why a backup cannot be read.
public enum BackupError: Error, Sendable, Equatable {
    /// It does not begin like one.
    case notABackup
    case newerFormat(UInt32)
    /// It ends before its end.
    case cut
    /// It is not what was written: what is wrong with it.
    case damaged(String)
    case key(KeyringError)
    /// The file cannot be read.
    case unreadable(errno: Int32)
    /// It is no backup by itself, or not in this place: see `BackupChain`.
    case chain(BackupChain.Fault)
}

/// Why a backup cannot be made.
public enum BackupMakingError: Error, Sendable {
    /// What the base held is not remembered here.
    case unknownBase(BackupID)
    /// What is remembered of the base cannot be used: it is damaged, or the keyring has another root key since.
    case uselessBase(BackupID)
    case unreadableBase(Int32)
    case tree(TreeError)
}

/// The seal of one backup's chunks.
struct BackupSeal: Sendable {
    private let key: SecretKey
    private let headerHash: [UInt8]

    /// - Parameter key: The root key's subkey for backups.
    init(header: [UInt8], key: SecretKey) throws(SodiumError) {
        let derived = header.withUnsafeBytes { header in
            let salt = header.part(16, BackupFormat.saltByteCount)
            return Result { () throws(SodiumError) -> SecretKey in
                try key.withKey { key throws(SodiumError) in
                    try Derivation.derive("letterlock backup file 1", context: salt, from: key)
                }
            }
        }
        self.key = try derived.get()
        var hash = [UInt8](repeating: 0, count: 32)
        hash.withUnsafeMutableBytes { hash in header.withUnsafeBytes { Checksum.blake2b($0, into: hash) } }
        headerHash = hash
    }

    /// A chunk as it stands in the file.
    func seal(_ plaintext: UnsafeRawBufferPointer, number: UInt64, isLast: Bool) -> [UInt8] {
        let length = UInt32(plaintext.count) | (isLast ? BackupFormat.lastMark : 0)
        let byteCount = BackupFormat.chunkHeadByteCount + plaintext.count
        return [UInt8](unsafeUninitializedCapacity: byteCount) { buffer, count in
            let chunk = UnsafeMutableRawBufferPointer(buffer)
            chunk.put(length, at: 0)
            Randomness.nonce(into: chunk.part(4, Seal.nonceByteCount))
            withBinding(number, length) { data in
                key.withKey { key in
                    Seal.seal(
                        plaintext, into: chunk.part(BackupFormat.chunkHeadByteCount, plaintext.count),
                        tag: chunk.part(4 + Seal.nonceByteCount, Seal.tagByteCount),
                        nonce: chunk.part(4, Seal.nonceByteCount).readOnly, associatedData: data, key: key)
                }
            }
            count = byteCount
        }
    }

    /// The plaintext of a chunk that was read whole; nil if it does not authenticate in this place.
    func open(_ chunk: [UInt8], number: UInt64) -> [UInt8]? {
        chunk.withUnsafeBytes { chunk in
            let count = chunk.count - BackupFormat.chunkHeadByteCount
            var isOpen = false
            let plaintext = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
                isOpen = withBinding(number, chunk.number(UInt32.self, at: 0)) { data in
                    key.withKey { key in
                        Seal.open(
                            chunk.part(BackupFormat.chunkHeadByteCount, count),
                            tag: chunk.part(4 + Seal.nonceByteCount, Seal.tagByteCount),
                            nonce: chunk.part(4, Seal.nonceByteCount), associatedData: data,
                            into: UnsafeMutableRawBufferPointer(
                                rebasing: UnsafeMutableRawBufferPointer(buffer)[..<count]),
                            key: key)
                    }
                }
                filled = count
            }
            return isOpen ? plaintext : nil
        }
    }

    /// `le64(length) part | …`: label, header, number, length.
    private func withBinding<R>(_ number: UInt64, _ length: UInt32, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        let label: StaticString = "letterlock backup chunk 1"
        let byteCount = 8 + label.utf8CodeUnitCount + 8 + headerHash.count + 16 + 12
        return withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { data in
            var place = 0
            func append(_ part: UnsafeRawBufferPointer) {
                data.put(UInt64(part.count), at: place)
                data.put(part, at: place + 8)
                place += 8 + part.count
            }
            append(UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount))
            headerHash.withUnsafeBytes { append($0) }
            withUnsafeBytes(of: number.littleEndian) { append($0) }
            withUnsafeBytes(of: length.littleEndian) { append($0) }
            return body(data.readOnly)
        }
    }
}
