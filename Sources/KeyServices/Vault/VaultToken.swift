internal import Glibc
internal import Keyring
internal import Sodium

/// What a request is authorised with.
final class VaultToken {
    private let text: SecretBytes
    private let byteCount: Int
    /// It was given for this one purpose, and is given back.
    private let isTemporary: Bool

    init(_ client: VaultClient) throws(KeyringError) {
        let isRole = client.settings.roleFile != nil || client.settings.secretFile != nil
        let text = isRole ? try Self.login(client) : try Self.stored(client)
        let count = text.withUnsafeBytes { text -> Int? in
            let count = SecretFile.lineByteCount(text)
            // What is part of a header must not end it.
            return count > 0 && text.prefix(count).allSatisfy { (0x21...0x7E).contains($0) } ? count : nil
        }
        guard let count else {
            throw .service(KeyServiceFault(.misconfigured, "\(client.service): its token is none"))
        }
        self.text = text
        byteCount = count
        isTemporary = isRole
    }

    func withBytes(_ body: (UnsafeRawBufferPointer) -> Void) {
        text.withUnsafeBytes { body(UnsafeRawBufferPointer(rebasing: $0[..<byteCount])) }
    }

    /// A token that nobody needs any more is revoked; if that fails it ends by itself.
    func giveBack(_ client: VaultClient) {
        guard isTemporary, let nothing = try? SecretText(limit: 2) else { return }
        try? client.post("auth/token/revoke-self", token: self, nothing) { (_: JSONText) throws(KeyringError) in }
    }

    private static func stored(_ client: VaultClient) throws(KeyringError) -> SecretBytes {
        for file in client.settings.tokenFiles where file.isNamed || access(file.path, F_OK) == 0 {
            return try read(file.path)
        }
        throw .service(
            KeyServiceFault(
                .misconfigured, "\(client.service): there is no token",
                hint: "name its file in VAULT_TOKEN_FILE, or a role's in VAULT_ROLE_ID_FILE and VAULT_SECRET_ID_FILE"))
    }

    /// Others must not be able to read it; a group may, as agents and systemd hand it out.
    private static func read(_ path: String) throws(KeyringError) -> SecretBytes {
        do { return try SecretFile.read(path, limit: VaultSettings.credentialLimit, forbiddenMode: 0o006) } catch {
            guard case .malformedKeyFile = error else { throw error }
            throw .service(KeyServiceFault(.misconfigured, "\(path) is no token, role or secret"))
        }
    }

    private static func login(_ client: VaultClient) throws(KeyringError) -> SecretBytes {
        guard let roleFile = client.settings.roleFile, let secretFile = client.settings.secretFile else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "\(client.service): AppRole needs VAULT_ROLE_ID_FILE and VAULT_SECRET_ID_FILE"))
        }
        var body = try SecretText(limit: 2 * VaultSettings.credentialLimit + 64)
        for (name, path) in [("{\"role_id\":\"", roleFile), ("\",\"secret_id\":\"", secretFile)] {
            body.append(name)
            let text = try read(path)
            let isPlain = text.withUnsafeBytes { text -> Bool in
                let line = UnsafeRawBufferPointer(rebasing: text[..<SecretFile.lineByteCount(text)])
                guard !line.isEmpty, line.allSatisfy({ (0x21...0x7E).contains($0) && $0 != 0x22 && $0 != 0x5C }) else {
                    return false
                }
                body.append(line)
                return true
            }
            guard isPlain else {
                throw .service(KeyServiceFault(.misconfigured, "\(path) is no token, role or secret"))
            }
        }
        body.append("\"}")
        return try client.post("auth/\(client.settings.approleMount)/login", token: nil, body) {
            (answer: JSONText) throws(KeyringError) -> VaultGrant in
            guard let token = answer.string("auth", "client_token"), !token.isEmpty else { throw client.malformed() }
            return try VaultGrant(token)
        }.take()
    }
}

/// A token on its way out of an answer.
private final class VaultGrant {
    private var text: SecretBytes?

    init(_ token: UnsafeRawBufferPointer) throws(KeyringError) {
        do {
            var bytes = try SecretBytes(byteCount: token.count)
            bytes.withUnsafeMutableBytes { $0.copyMemory(from: token) }
            text = consume bytes
        } catch { throw .cannotLock }
    }

    func take() -> SecretBytes {
        guard let text = text.take() else { preconditionFailure("a grant is taken once") }
        return text
    }
}
