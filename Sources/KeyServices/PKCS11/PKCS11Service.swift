internal import Keyring
internal import Sodium

/// A key in a token (a smart card, an HSM) that never leaves it seals what seals a slot's key.
///
/// The token binds the context as associated data. A slot is `length 2 | nonce 12 | ciphertext 32 | tag 16 | slot's key 72`, its parameter
/// what names token and key in the URI.
final class PKCS11Service: RemoteKeyService {
    let kind = KeySlotKind.pkcs11
    private let token: PKCS11Token

    /// - Parameters:
    ///   - text: What stands behind `pkcs11:`.
    ///   - patience: Seconds that the token may take.
    /// - Throws: `.service(.malformedAddress)`.
    init(_ text: String, _ variable: (String) -> String?, patience: Int = PKCS11Token.patience) throws(KeyringError) {
        token = try PKCS11Token(try PKCS11URI(text), variable, patience: patience)
    }

    static let fileVariables = ["PKCS11_MODULE_PATH"]

    private var parameters: [UInt8] { Array(token.uri.name.utf8) }

    func keyName() -> String? { token.service }

    func opens(_ slot: KeySlot) -> Bool { slot.kind == kind && slot.parameters == parameters }

    func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let wrapping: SecretKey
        do { wrapping = try SecretKey.random() } catch { throw .cannotLock }
        var nonce = [UInt8](repeating: 0, count: PKCS11Token.nonceByteCount)
        nonce.withUnsafeMutableBytes { Randomness.fill($0) }
        var sealed = [UInt8](repeating: 0, count: SecretKey.byteCount + PKCS11Token.tagByteCount)
        let data = context.bytes
        let result = sealed.withUnsafeMutableBytes { sealed in
            Result { () throws(KeyringError) in
                try wrapping.withKey { key throws(KeyringError) in
                    try token.perform(
                        seals: true, nonce: nonce, associatedData: data, key.bytes, into: sealed, count: sealed.count)
                }
            }
        }
        try result.get()
        return KeySlot(
            kind: kind, parameters: parameters,
            sealedKey: RemoteSlot(nonce + sealed, LocalSlot.sealed(key, kind, parameters, context, wrapping)).bytes)
    }

    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let parts = try RemoteSlot(slot)
        let nonce = Array(parts.ciphertext.prefix(PKCS11Token.nonceByteCount))
        let sealed = Array(parts.ciphertext.dropFirst(PKCS11Token.nonceByteCount))
        guard sealed.count == SecretKey.byteCount + PKCS11Token.tagByteCount else {
            throw .damaged("a key slot is malformed")
        }
        let data = context.bytes
        // Modules want as much room for what they open as it has sealed.
        var room: SecretBytes
        do { room = try SecretBytes(byteCount: sealed.count) } catch { throw .cannotLock }
        let wrapping = try room.withUnsafeMutableBytes {
            (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
            let result = sealed.withUnsafeBytes { sealed in
                Result { () throws(KeyringError) in
                    try token.perform(
                        seals: false, nonce: nonce, associatedData: data, sealed, into: key, count: SecretKey.byteCount)
                }
            }
            try result.get()
            let bytes = UnsafeRawBufferPointer(rebasing: key[..<SecretKey.byteCount])
            do { return try SecretKey(copying: bytes) } catch { throw .cannotLock }
        }
        return try LocalSlot.open(parts.local[...], kind, slot.parameters, context, wrapping)
    }
}
