internal import Keyring
internal import Sodium
internal import Storage

/// Seals records under one key: `tag 16 | nonce 24 | ciphertext`, bound to the store and the record's own key,
/// so that no record can be moved to another place or another store.
final class RecordSeal: Sendable {
    static let overheadByteCount = Seal.tagByteCount + Seal.nonceByteCount

    private let key: SecretKey
    private let store: StoreID
    private let label: StaticString

    init(_ label: StaticString, key: SecretKey, store: StoreID) {
        self.label = label
        self.key = key
        self.store = store
    }

    /// The record's value for a plaintext that `fill` writes into scratch memory of `byteCount` bytes.
    func sealed(_ record: RecordKey, byteCount: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.overheadByteCount + byteCount) { buffer, count in
            let value = UnsafeMutableRawBufferPointer(buffer)
            let body = value.part(Self.overheadByteCount, byteCount)
            fill(body)
            // In place: the plaintext is overwritten by its ciphertext before anyone can see the array.
            seal(record, body, tag: value.part(0, 16), nonce: value.part(16, 24))
            count = value.count
        }
    }

    /// Opens a record's value into scratch memory and hands it to `body`; nil if it does not authenticate.
    func open<R>(_ record: RecordKey, _ value: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> R?) -> R? {
        guard value.count >= Self.overheadByteCount else { return nil }
        let byteCount = value.count - Self.overheadByteCount
        return withTemporaryBytes(byteCount) { plaintext in
            defer { Memory.wipe(plaintext) }
            let opened = withAssociatedData(record) { data in
                key.withKey { key in
                    Seal.open(
                        value.part(Self.overheadByteCount, byteCount), tag: value.part(0, 16),
                        nonce: value.part(16, 24),
                        associatedData: data, into: plaintext, key: key)
                }
            }
            return opened ? body(plaintext.readOnly) : nil
        }
    }

    private func seal(
        _ record: RecordKey, _ body: UnsafeMutableRawBufferPointer, tag: UnsafeMutableRawBufferPointer,
        nonce: UnsafeMutableRawBufferPointer
    ) {
        Randomness.nonce(into: nonce)
        withAssociatedData(record) { data in
            key.withKey { key in
                Seal.seal(
                    body.readOnly, into: body, tag: tag, nonce: nonce.readOnly, associatedData: data, key: key)
            }
        }
    }

    private func withAssociatedData<R>(_ record: RecordKey, _ body: (UnsafeRawBufferPointer) -> R) -> R {
        withBinding(label, store: store, record, body)
    }
}

/// `le64(length) label | le64(16) store id | le64(25) record key`: the associated data of a sealed record.
func withBinding<R>(
    _ label: StaticString, store: StoreID, _ record: RecordKey, _ body: (UnsafeRawBufferPointer) -> R
) -> R {
    let labelCount = label.utf8CodeUnitCount
    let byteCount = 24 + labelCount + 16 + RecordKey.byteCount
    return withTemporaryBytes(byteCount) { data in
        data.put(UInt64(labelCount), at: 0)
        data.put(UnsafeRawBufferPointer(start: label.utf8Start, count: labelCount), at: 8)
        data.put(UInt64(16), at: 8 + labelCount)
        store.withUnsafeBytes { data.put($0, at: 16 + labelCount) }
        data.put(UInt64(RecordKey.byteCount), at: 32 + labelCount)
        record.encode(into: data.part(40 + labelCount, RecordKey.byteCount))
        return body(data.readOnly)
    }
}
