/// Why a keyring does not open, or a key may not be used.
public enum KeyringError: Error, Sendable, Equatable {
    /// No slot opens with this passphrase or key.
    case wrongSecret
    /// No slot is of this service's kind; these are there.
    case noMatchingSlot(kinds: [String])
    /// So many are all that a keyring has.
    case noFreeSlot(limit: Int)
    /// What the key service says.
    case serviceUnavailable(String)
    /// A service that is asked over the network or by a library of its own.
    case service(KeyServiceFault)
    case notAKeyring
    case newerFormat(UInt32)
    /// A part of the keyring's own records does not authenticate, or makes no sense.
    case damaged(String)
    /// The KEK version is disabled, compromised or pending destruction.
    case revoked(KEKState)
    case destroyed
    /// The KEK version is below `min_decryption_version`.
    case expired
    case noSuchVersion
    case doesNotAuthenticate
    case lifecycle(LifecycleError)
    /// RLIMIT_MEMLOCK, or memory itself, does not suffice.
    case cannotLock
    case io(path: String, errno: Int32)
    /// Group or others can read it. The mode's low 12 bits.
    case insecureFile(path: String, mode: UInt32)
    case malformedKeyFile(path: String)
}
