internal import Glibc
internal import Keyring
internal import Sodium

/// A TPM 2.0 seals what seals a slot's key: it opens on this machine alone, while the chosen PCRs are as they were, and with the PIN
/// if there is one.
///
/// The TPM keeps nothing. A slot is `length 2 | TPM2B_PUBLIC | TPM2B_PRIVATE | TPM2B_NAME of the storage key | slot's key 72`, its
/// parameter the policy's spelling; the context is bound by the sealing of the slot's key.
final class TPM2Service: RemoteKeyService {
    let kind = KeySlotKind.tpm2
    private let chip: TPM2Chip

    /// - Parameters:
    ///   - text: What stands behind `tpm2:`.
    ///   - patience: Seconds that the TPM may take.
    /// - Throws: `.service(.malformedAddress)`.
    init(_ text: String, _ variable: (String) -> String?, patience: Int = TPM2Chip.patience) throws(KeyringError) {
        chip = TPM2Chip(spec: try TPM2Spec(text, variable) { access($0, F_OK) == 0 }, patience: patience)
    }

    private var parameters: [UInt8] { Array(chip.spec.policy.utf8) }

    /// A machine's TPM is there for all that run on it.
    func keyName() -> String? { nil }

    func opens(_ slot: KeySlot) -> Bool { slot.kind == kind && slot.parameters == parameters }

    func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let wrapping: SecretKey
        do { wrapping = try SecretKey.random() } catch { throw .cannotLock }
        let blob = try chip.seal(wrapping)
        return KeySlot(
            kind: kind, parameters: parameters,
            sealedKey: RemoteSlot(blob, LocalSlot.sealed(key, kind, parameters, context, wrapping)).bytes)
    }

    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let parts = try RemoteSlot(slot)
        let wrapping = try chip.unseal(parts.ciphertext)
        return try LocalSlot.open(parts.local[...], kind, slot.parameters, context, wrapping)
    }
}
