/// What `--key-service` names.
public enum KeyServiceSpec: Sendable, Equatable {
    case passphrase
    case keyfile(path: String)
    case credential(name: String)
    case recovery
    /// A service of the room KeyServices: what stands behind its kind and the colon, for it to read; may be empty.
    case remote(KeySlotKind, String)

    /// The kind of slot that it opens.
    public var kind: KeySlotKind {
        switch self {
        case .passphrase: .passphrase
        case .recovery: .recovery
        case .keyfile, .credential: .keyfile
        case .remote(let kind, _): kind
        }
    }

    public var isRemote: Bool {
        if case .remote = self { true } else { false }
    }

    /// Reads `KIND` or `KIND:REST`.
    ///
    /// - Throws: `.serviceUnavailable` with what is wrong.
    public static func parse(_ text: String) throws(KeyringError) -> KeyServiceSpec {
        let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        let rest = parts.count > 1 ? parts[1] : ""
        switch parts[0] {
        case "passphrase" where parts.count == 1: return .passphrase
        case "recovery" where parts.count == 1: return .recovery
        case "keyfile" where !rest.isEmpty: return .keyfile(path: rest)
        case "credential" where !rest.isEmpty: return .credential(name: rest)
        case "vault" where !rest.isEmpty: return .remote(.vault, rest)
        case "awskms" where !rest.isEmpty: return .remote(.awskms, rest)
        case "pkcs11" where !rest.isEmpty: return .remote(.pkcs11, rest)
        case "tpm2": return .remote(.tpm2, rest)
        case "age": return .remote(.age, rest)
        default:
            throw .serviceUnavailable(
                "'\(text)' is not a key service\nthere are: passphrase, recovery, keyfile:PATH, credential:NAME, "
                    + "vault:https://HOST:PORT/MOUNT/KEY, awskms:KEY, pkcs11:…, tpm2 or age:RECIPIENT")
        }
    }
}
