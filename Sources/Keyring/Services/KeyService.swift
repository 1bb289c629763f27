public import Sodium

/// What seals a keyring's root key: called when a keyring is made or opened, never on the way of a read.
public protocol KeyService: Sendable {
    var kind: KeySlotKind { get }

    /// Seals the root key, bound to the store.
    func seal(_ rootKey: SecretKey, for store: StoreID) throws(KeyringError) -> KeySlot

    /// Opens a slot of its kind.
    ///
    /// - Throws: `.wrongSecret` if it does not open with what this service holds.
    func unseal(_ slot: KeySlot, for store: StoreID) throws(KeyringError) -> SecretKey
}

/// A slot that a key at hand seals: `nonce 24 | tag 16 | ciphertext 32`, bound to store, kind and parameters.
enum LocalSlot {
    static func seal(
        _ rootKey: SecretKey, _ kind: KeySlotKind, _ parameters: [UInt8], _ store: StoreID, under key: SecretKey
    ) -> KeySlot {
        let sealed = [UInt8](unsafeUninitializedCapacity: SealedKey.byteCount) { buffer, count in
            withBinding(kind, parameters, store) { data in
                key.withKey { key in
                    let wrapping = key.bytes
                    rootKey.withKey { rootKey in
                        SealedKey.seal(
                            rootKey.bytes, into: UnsafeMutableRawBufferPointer(buffer), associatedData: data,
                            under: BorrowedKey(wrapping))
                    }
                }
            }
            count = SealedKey.byteCount
        }
        return KeySlot(kind: kind, parameters: parameters, sealedRootKey: sealed)
    }

    static func open(_ slot: KeySlot, _ store: StoreID, under key: SecretKey) throws(KeyringError) -> SecretKey {
        guard slot.sealedRootKey.count == SealedKey.byteCount else { throw .damaged("a key slot is malformed") }
        return try withScratchKey { (rootKey: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
            let isOpen = withBinding(slot.kind, slot.parameters, store) { data in
                slot.sealedRootKey.withUnsafeBytes { sealed in
                    key.withKey { SealedKey.open(sealed, into: rootKey, associatedData: data, under: $0) }
                }
            }
            guard isOpen else { throw .wrongSecret }
            do { return try SecretKey(copying: UnsafeRawBufferPointer(rootKey)) } catch { throw .cannotLock }
        }
    }

    private static func withBinding<R>(
        _ kind: KeySlotKind, _ parameters: [UInt8], _ store: StoreID, _ body: (UnsafeRawBufferPointer) -> R
    ) -> R {
        store.withUnsafeBytes { store in
            withUnsafeBytes(of: kind.rawValue) { kind in
                parameters.withUnsafeBytes { withAssociatedData("letterlock slot 1", [store, kind, $0], body) }
            }
        }
    }
}
