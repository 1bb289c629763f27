public import Sodium

/// A keyring's root key, by way of its configuration alone: for what is read before the lifecycle is at hand.
public struct UnlockedRoot: Sendable {
    private let configuration: Configuration
    private let bytes: [UInt8]
    private let rootKey: SecretKey

    /// Opens a configuration, and finds it authentic.
    ///
    /// - Throws: `.wrongSecret` if no slot of the service's kind opens.
    public init(configuration bytes: UnsafeRawBufferPointer, with service: any KeyService) throws(KeyringError) {
        configuration = try Configuration(bytes)
        rootKey = try Self.unseal(configuration, with: service)
        try Configuration.authenticate(bytes, rootKey)
        self.bytes = [UInt8](bytes)
    }

    public var storeID: StoreID { configuration.storeID }

    /// A subkey of the root key: the same as the keyring's.
    public func deriveKey(_ label: StaticString) throws(KeyringError) -> SecretKey { try rootKey.derived(label) }

    /// The keyring whole, with its lifecycle.
    public func keyring(_ lifecycle: UnsafeRawBufferPointer) throws(KeyringError) -> UnlockedKeyring {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(KeyringError) in
                try UnlockedKeyring.unlock(configuration, bytes, lifecycle, rootKey)
            }
        }
        return try result.get()
    }

    private static func unseal(_ configuration: Configuration, with service: any KeyService) throws(KeyringError)
        -> SecretKey
    {
        let slots = configuration.slots.filter(service.opens)
        guard !slots.isEmpty else { throw .noMatchingSlot(kinds: configuration.slots.map(\.label)) }
        for slot in slots {
            do throws(KeyringError) { return try configuration.rootKey(in: slot, with: service) } catch {
                guard error == .wrongSecret else { throw error }
            }
        }
        throw .wrongSecret
    }
}
