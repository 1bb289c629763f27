internal import Glibc

/// How OpenBao's and Vault's own programs are told what to do, as far as it makes sense for a server.
public struct VaultSettings: Sendable {
    /// VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_CAPATH, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY.
    var address: String?
    var namespace: String?
    var authorityFile: String?
    var authorityDirectory: String?
    var certificateFile: String?
    var keyFile: String?
    /// Where a token lies, in the order in which they are looked for: what was named has to be there.
    var tokenFiles: [(path: String, isNamed: Bool)] = []
    /// VAULT_ROLE_ID_FILE and VAULT_SECRET_ID_FILE; VAULT_APPROLE_MOUNT, by default `approle`.
    var roleFile: String?
    var secretFile: String?
    var approleMount = "approle"
    /// How long an answer may take.
    var patienceSeconds = 15

    /// The longest token, role or secret, in bytes.
    static let credentialLimit = 8192

    /// What the environment says. Where it names files they are read when the service is used.
    public static func ofEnvironment() -> VaultSettings {
        VaultSettings(Environment.variable)
    }

    init(_ variable: (String) -> String?) {
        address = variable("VAULT_ADDR")
        namespace = variable("VAULT_NAMESPACE")
        authorityFile = variable("VAULT_CACERT")
        authorityDirectory = variable("VAULT_CAPATH")
        certificateFile = variable("VAULT_CLIENT_CERT")
        keyFile = variable("VAULT_CLIENT_KEY")
        roleFile = variable("VAULT_ROLE_ID_FILE")
        secretFile = variable("VAULT_SECRET_ID_FILE")
        if let mount = variable("VAULT_APPROLE_MOUNT") { approleMount = mount }
        if let path = variable("VAULT_TOKEN_FILE") { tokenFiles.append((path, true)) }
        if let directory = variable("CREDENTIALS_DIRECTORY") { tokenFiles.append((directory + "/vault-token", false)) }
        if let home = variable("HOME") { tokenFiles.append((home + "/.vault-token", false)) }
    }

    /// Environment variables that name a file: a server in the background has another working directory.
    public static let fileVariables = [
        "VAULT_CACERT", "VAULT_CAPATH", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "VAULT_TOKEN_FILE",
        "VAULT_ROLE_ID_FILE",
        "VAULT_SECRET_ID_FILE",
    ]

    func place(_ address: VaultAddress) -> HTTPPlace {
        var place = HTTPPlace(url: address.base)
        if address.base.hasPrefix("unix://") {
            place.unixSocket = String(address.base.dropFirst("unix://".count))
            place.url = "http://localhost"
        }
        place.authorityFile = authorityFile
        place.authorityDirectory = authorityDirectory
        place.certificateFile = certificateFile
        place.keyFile = keyFile
        place.totalSeconds = patienceSeconds
        return place
    }
}
