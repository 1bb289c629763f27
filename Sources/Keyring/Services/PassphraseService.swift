public import Sodium

/// A passphrase, made into a key by Argon2id with parameters and a salt of the slot's own.
public final class PassphraseService: KeyService {
    public let kind = KeySlotKind.passphrase
    private let passphrase: SecretBytes
    private let parameters: PasswordHash.Parameters

    /// - Parameter parameters: For a new slot; an old one has its own.
    public init(passphrase: consuming SecretBytes, parameters: PasswordHash.Parameters = .standard) {
        self.passphrase = passphrase
        self.parameters = parameters
    }

    /// `passes 8 | memory in bytes 8 | salt 16`.
    private static let parametersByteCount = 32

    public func seal(_ rootKey: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        var writer = ByteWriter()
        writer.put(parameters.opsLimit)
        writer.put(parameters.memoryByteCount)
        withUnsafeTemporaryAllocation(byteCount: PasswordHash.saltByteCount, alignment: 8) { salt in
            Randomness.fill(salt)
            writer.put(UnsafeRawBufferPointer(salt))
        }
        let key = try derive(writer.bytes)
        return LocalSlot.seal(rootKey, kind, writer.bytes, context, under: key)
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        guard slot.parameters.count == Self.parametersByteCount else { throw .damaged("a key slot is malformed") }
        return try LocalSlot.open(slot, context, under: try derive(slot.parameters))
    }

    private func derive(_ stored: [UInt8]) throws(KeyringError) -> SecretKey {
        do {
            return try passphrase.withUnsafeBytes { passphrase throws(SodiumError) in
                try Self.derive(passphrase, stored)
            }
        } catch {
            switch error {
            case .parametersOutOfBounds:
                throw .damaged("a key slot asks for Argon2id parameters out of bounds")
            case .outOfMemory: throw .serviceUnavailable("there is not enough memory for the passphrase's Argon2id")
            case .cannotLock, .unavailable: throw .cannotLock
            }
        }
    }

    private static func derive(_ passphrase: UnsafeRawBufferPointer, _ stored: [UInt8]) throws(SodiumError) -> SecretKey
    {
        let (opsLimit, memory) = stored.withUnsafeBytes { stored in
            var reader = ByteReader(stored)
            return (reader.number(UInt64.self) ?? 0, reader.number(UInt64.self) ?? 0)
        }
        return try PasswordHash.derive(
            passphrase: passphrase, salt: Array(stored.suffix(PasswordHash.saltByteCount)),
            parameters: PasswordHash.Parameters(opsLimit: opsLimit, memoryByteCount: memory))
    }
}
