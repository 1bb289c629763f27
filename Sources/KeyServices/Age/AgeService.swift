internal import Glibc
internal import Keyring
internal import Sodium

/// An X25519 key of age's: whoever has the recipient can seal, and only its identity opens, which may lie in a safe.
///
/// A slot is `length 2 | age file 232 | slot's key 72`, its parameter the recipient: the file, which the program `age` opens as well,
/// holds 32 random bytes, and under those the slot's key is sealed and bound.
final class AgeService: RemoteKeyService {
    let kind = KeySlotKind.age
    private let recipients: [AgeRecipient]
    private let identities: [AgeIdentity]

    /// - Parameter text: A recipient, `age1…`, or the path of a file of identities.
    /// - Throws: `.service(.malformedAddress)`, and what reading a file of identities throws.
    init(_ text: String, _ variable: (String) -> String?) throws(KeyringError) {
        guard text.hasPrefix("age1") else {
            guard text.contains("/") else {
                throw .service(
                    KeyServiceFault(
                        .malformedAddress, "'\(text)' is no recipient of age's",
                        hint: "write age:age1…, or the path of a file of identities, with a slash in it"))
            }
            identities = try AgeIdentityFile.read(text)
            recipients = identities.map(\.recipient)
            return
        }
        guard let recipient = AgeRecipient(text) else {
            throw .service(
                KeyServiceFault(
                    .malformedAddress, "'\(text)' is no recipient of age's", hint: "a character is wrong or missing"))
        }
        recipients = [recipient]
        var identities: [AgeIdentity] = []
        if let path = variable("AGE_IDENTITY_FILE") {
            identities = try AgeIdentityFile.read(path)
        } else if let directory = variable("CREDENTIALS_DIRECTORY"), access(directory + "/age-identity", F_OK) == 0 {
            identities = try AgeIdentityFile.read(directory + "/age-identity")
        }
        self.identities = identities.filter { $0.recipient == recipient }
    }

    static let fileVariables = ["AGE_IDENTITY_FILE"]

    /// A safe may hold the one identity that opens every keyring, should all else be lost.
    func keyName() -> String? { nil }

    var canUnseal: Bool { !identities.isEmpty }

    func opens(_ slot: KeySlot) -> Bool {
        slot.kind == kind && recipients.contains { Array($0.text.utf8) == slot.parameters }
    }

    func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let wrapping: SecretKey
        do { wrapping = try SecretKey.random() } catch { throw .cannotLock }
        let file = try wrapping.withKey { wrapping throws(KeyringError) in
            try AgeFile.seal(wrapping.bytes, for: recipients[0])
        }
        let parameters = Array(recipients[0].text.utf8)
        return KeySlot(
            kind: kind, parameters: parameters,
            sealedKey: RemoteSlot(file, LocalSlot.sealed(key, kind, parameters, context, wrapping)).bytes)
    }

    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let parts = try RemoteSlot(slot)
        guard canUnseal else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "age:\(recipients[0].text): its identity is not here",
                    hint: "name its file: age:/PATH/OF/IDENTITY, or AGE_IDENTITY_FILE in the environment"))
        }
        let result = parts.ciphertext.withUnsafeBytes { file in
            Result { () throws(KeyringError) -> SecretKey in
                let key = try AgeFile.open(file, with: identities)
                return try key.withUnsafeBytes { key throws(KeyringError) in
                    guard key.count == SecretKey.byteCount else { throw .damaged("a key slot is malformed") }
                    do { return try SecretKey(copying: key) } catch { throw .cannotLock }
                }
            }
        }
        return try LocalSlot.open(parts.local[...], kind, slot.parameters, context, try result.get())
    }
}
