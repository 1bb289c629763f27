internal import Keyring
internal import Sodium

/// Requests to an OpenBao or Vault, each under a token: one that lies in a file, or one that AppRole gives for the purpose.
struct VaultClient: Sendable {
    let settings: VaultSettings
    let place: HTTPPlace
    /// As messages call it: `vault:transit/prod`.
    let service: String

    init(_ address: VaultAddress, _ settings: VaultSettings) {
        self.settings = settings
        place = settings.place(address)
        service = "vault:" + address.name
    }

    /// One request, its answer's body for `take`.
    func post<R>(
        _ path: String, _ body: borrowing SecretText, _ take: (JSONText) throws(KeyringError) -> R
    ) throws(KeyringError) -> R {
        let token = try VaultToken(self)
        defer { token.giveBack(self) }
        return try post(path, token: token, body, take)
    }

    /// - Parameter token: nil where one is asked for.
    func post<R>(
        _ path: String, token: VaultToken?, _ body: borrowing SecretText,
        _ take: (JSONText) throws(KeyringError) -> R
    ) throws(KeyringError) -> R {
        var headers = try SecretHeaders(limit: VaultSettings.credentialLimit + 1024)
        headers.add("Content-Type", "application/json")
        token?.withBytes { headers.add("X-Vault-Token", $0) }
        if let name = settings.namespace {
            guard name.utf8.count < 512, name.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
                throw .service(KeyServiceFault(.misconfigured, "VAULT_NAMESPACE is no namespace"))
            }
            headers.add("X-Vault-Namespace", name)
        }
        let answer = try headers.withLines {
            (lines: [UnsafeMutablePointer<CChar>]) throws(KeyringError) -> HTTPAnswer in
            try body.withBytes { (body: UnsafeRawBufferPointer) throws(KeyringError) -> HTTPAnswer in
                try HTTPRequest.perform(
                    "POST", "/v1/" + path, at: place, headers: lines, body: body, service: service)
            }
        }
        let status = answer.status
        return try answer.withBody { (bytes: UnsafeRawBufferPointer) throws(KeyringError) -> R in
            let json = JSONText(bytes)
            guard status == 200 || status == 204 else { throw error(status, json) }
            return try take(json)
        }
    }

    func malformed() -> KeyringError {
        .service(KeyServiceFault(.malformedAnswer, "\(service): its answer makes no sense"))
    }

    /// What an answer that is an error means. Its text is looked at and not shown: it may repeat what it was asked.
    private func error(_ status: Int, _ json: JSONText) -> KeyringError {
        let words = json.strings("errors").map { String(decoding: $0, as: UTF8.self) }.joined(separator: "; ")
        func fault(_ reason: KeyServiceFault.Reason, _ what: String, _ hint: String? = nil) -> KeyringError {
            .service(KeyServiceFault(reason, "\(service): \(what)", hint: hint))
        }
        switch status {
        case 400 where words.contains("message authentication failed") || words.contains("invalid ciphertext"):
            return .wrongSecret
        case 400 where words.contains("too old") || words.contains("disallowed") || words.contains("soft"):
            return fault(
                .keyDisabled, "its key may not be used, or this version of it", "see min_decryption_version there")
        case 400 where words.contains("key not found"), 404:
            return fault(.keyMissing, "there is no such key", "vault:https://HOST:PORT/MOUNT/KEY names mount and key")
        case 400 where words.contains("role") || words.contains("secret id"):
            return fault(.denied, "the role or its secret is wrong or expired")
        case 400: return fault(.misconfigured, "it does not take the request", "is KEY a transit key for encryption?")
        case 401, 403:
            return fault(.denied, "the token is wrong or expired, or may not use the key", "its policy needs 'update'")
        case 307, 308, 472, 473:
            return fault(.unreachable, "it is a standby node", "name the active one, or the load balancer before it")
        case 429: return fault(.unreachable, "it has too many requests", "try again")
        case 501, 503: return fault(.unreachable, "it is sealed or not initialised", "unseal it and try again")
        default: return fault(.unreachable, "it answers with status \(status)", "try again")
        }
    }
}
