public import Sodium

/// A keyring's root key, by way of its configuration alone: for what is read before the lifecycle is at hand.
public struct UnlockedRoot: Sendable {
    private let configuration: Configuration
    private let bytes: [UInt8]
    private let rootKey: SecretKey
    /// What opened it.
    private let slot: KeySlot

    /// Opens a configuration, and finds it authentic.
    ///
    /// - Throws: `.wrongSecret` if no slot of the service's kind opens.
    public init(configuration bytes: UnsafeRawBufferPointer, with service: any KeyService) throws(KeyringError) {
        configuration = try Configuration(bytes)
        (slot, rootKey) = try Self.unseal(configuration, with: service)
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

    /// The keyring whole, of which a backup holds the records.
    ///
    /// - Parameter stored: Its configuration as it was stored. What opens this root and not that one, a recipient for a backup
    ///   alone, goes on opening it: perhaps nothing else does any more.
    public func keyring(stored: [UInt8], lifecycle: [UInt8]) throws(KeyringError) -> UnlockedKeyring {
        let result = stored.withUnsafeBytes { bytes in
            Result { () throws(KeyringError) -> Bool in
                let stored = try Configuration(bytes)
                try Configuration.authenticate(bytes, rootKey)
                return stored.storeID == storeID && stored.slots.contains(slot)
            }
        }
        let isOwn = try result.get()
        let opened = (isOwn ? stored : bytes).withUnsafeBytes { bytes in
            lifecycle.withUnsafeBytes { lifecycle in
                Result { () throws(KeyringError) in
                    try UnlockedKeyring.unlock(try Configuration(bytes), bytes, lifecycle, rootKey)
                }
            }
        }
        return try opened.get()
    }

    private static func unseal(_ configuration: Configuration, with service: any KeyService) throws(KeyringError)
        -> (KeySlot, SecretKey)
    {
        let slots = configuration.slots.filter(service.opens)
        guard !slots.isEmpty else { throw .noMatchingSlot(kinds: configuration.slots.map(\.label)) }
        for slot in slots {
            do throws(KeyringError) { return (slot, try configuration.rootKey(in: slot, with: service)) } catch {
                guard error == .wrongSecret else { throw error }
            }
        }
        throw .wrongSecret
    }
}
