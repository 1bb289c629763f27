/// What `--key-service` names.
public enum KeyServiceSpec: Sendable, Equatable {
    case passphrase
    case keyfile(path: String)
    case credential(name: String)

    /// Reads `passphrase`, `keyfile:PATH` or `credential:NAME`.
    ///
    /// - Throws: `.serviceUnavailable` with what is wrong.
    public static func parse(_ text: String) throws(KeyringError) -> KeyServiceSpec {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let rest = parts.count > 1 ? parts[1] : ""
        switch parts[0] {
        case "passphrase" where parts.count == 1: return .passphrase
        case "keyfile" where !rest.isEmpty: return .keyfile(path: rest)
        case "credential" where !rest.isEmpty: return .credential(name: rest)
        case "vault", "awskms", "pkcs11", "tpm2", "age":
            throw .serviceUnavailable("key service '\(parts[0])' is not supported by this version")
        default:
            throw .serviceUnavailable("'\(text)' is not a key service: passphrase, keyfile:PATH or credential:NAME")
        }
    }
}
