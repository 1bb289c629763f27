package import Sodium

/// A slot that a key at hand seals: `nonce 24 | tag 16 | ciphertext 32`, bound to what it belongs to.
package enum LocalSlot {
    static func seal(
        _ key: SecretKey, _ kind: KeySlotKind, _ parameters: [UInt8], _ context: SlotContext, under slotKey: SecretKey
    ) -> KeySlot {
        KeySlot(kind: kind, parameters: parameters, sealedKey: sealed(key, kind, parameters, context, slotKey))
    }

    package static func sealed(
        _ key: SecretKey, _ kind: KeySlotKind, _ parameters: [UInt8], _ context: SlotContext, _ slotKey: SecretKey
    ) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: SealedKey.byteCount) { buffer, count in
            withBinding(kind, parameters, context) { data in
                slotKey.withKey { slotKey in
                    let wrapping = slotKey.bytes
                    key.withKey { key in
                        SealedKey.seal(
                            key.bytes, into: UnsafeMutableRawBufferPointer(buffer), associatedData: data,
                            under: BorrowedKey(wrapping))
                    }
                }
            }
            count = SealedKey.byteCount
        }
    }

    static func open(_ slot: KeySlot, _ context: SlotContext, under slotKey: SecretKey) throws(KeyringError)
        -> SecretKey
    {
        try open(slot.sealedKey[...], slot.kind, slot.parameters, context, slotKey)
    }

    package static func open(
        _ sealed: ArraySlice<UInt8>, _ kind: KeySlotKind, _ parameters: [UInt8], _ context: SlotContext,
        _ slotKey: SecretKey
    ) throws(KeyringError) -> SecretKey {
        guard sealed.count == SealedKey.byteCount else { throw .damaged("a key slot is malformed") }
        return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
            let isOpen = withBinding(kind, parameters, context) { data in
                sealed.withUnsafeBytes { sealed in
                    slotKey.withKey { SealedKey.open(sealed, into: key, associatedData: data, under: $0) }
                }
            }
            guard isOpen else { throw .wrongSecret }
            do { return try SecretKey(copying: UnsafeRawBufferPointer(key)) } catch { throw .cannotLock }
        }
    }

    /// The root key's slots of passphrases and key files came first, and are bound to less.
    private static func withBinding<R>(
        _ kind: KeySlotKind, _ parameters: [UInt8], _ context: SlotContext, _ body: (UnsafeRawBufferPointer) -> R
    ) -> R {
        let isFirst = context.purpose == .rootKey && (kind == .passphrase || kind == .keyfile)
        let purpose = Array(context.purpose.rawValue.utf8)
        let keyring = Array(context.keyring.utf8)
        return context.store.withUnsafeBytes { store in
            withUnsafeBytes(of: kind.rawValue) { kind in
                parameters.withUnsafeBytes { parameters in
                    purpose.withUnsafeBytes { purpose in
                        keyring.withUnsafeBytes { keyring in
                            isFirst
                                ? withAssociatedData("letterlock slot 1", [store, kind, parameters], body)
                                : withAssociatedData(
                                    "letterlock slot 2", [store, kind, parameters, purpose, keyring], body)
                        }
                    }
                }
            }
        }
    }
}
