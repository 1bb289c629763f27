public import Keyring

/// A key service whose key several keyrings could be sealed by.
public protocol RemoteKeyService: KeyService {
    /// Where its key is, the same however it is spelt: for people and for telling keys apart. May ask the service. Nil for what is meant to
    /// open several keyrings.
    func keyName() throws(KeyringError) -> String?
}

/// The services of this room, by what `--key-service` names.
public enum RemoteKeyServices {
    /// - Parameter text: What stands behind the kind and the colon.
    /// - Throws: `.service(.malformedAddress)`; `.serviceUnavailable` for a kind that this version has not.
    public static func service(_ kind: KeySlotKind, _ text: String) throws(KeyringError) -> any RemoteKeyService {
        switch kind {
        case .vault: try VaultService(text)
        case .awskms: try KMSService(text)
        case .age: try AgeService(text, Environment.variable)
        case .pkcs11: try PKCS11Service(text, Environment.variable)
        case .tpm2: try TPM2Service(text, Environment.variable)
        case .passphrase, .keyfile, .recovery:
            throw .serviceUnavailable("key service '\(kind.name)' is not supported by this version")
        }
    }

    /// Environment variables that name a file: a server in the background has another working directory.
    public static let fileVariables =
        VaultSettings.fileVariables + AWSSettings.fileVariables + AgeService.fileVariables
        + PKCS11Service.fileVariables

    /// What names a service in any working directory.
    public static func pinned(_ kind: KeySlotKind, _ text: String, _ absolute: (String) -> String) -> String {
        kind == .age && !text.hasPrefix("age1") ? absolute(text) : text
    }
}
