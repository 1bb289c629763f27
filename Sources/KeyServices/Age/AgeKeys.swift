internal import Glibc
package import Keyring
internal import Sodium

/// Whom something is sealed for: an X25519 key of age's, `age1…`.
package struct AgeRecipient: Equatable {
    let publicKey: [UInt8]

    init(publicKey: [UInt8]) { self.publicKey = publicKey }

    /// Nil for what is none.
    package init?(_ text: String) {
        var bytes = [UInt8](repeating: 0, count: Bech32.byteCount)
        let isKey = bytes.withUnsafeMutableBytes { bytes in
            Array(text.utf8).withUnsafeBytes { Bech32.decode($0, prefix: "age", into: bytes) }
        }
        guard isKey else { return nil }
        publicKey = bytes
    }

    package var text: String { Bech32.encode(publicKey, prefix: "age") }
}

/// Who opens it: `AGE-SECRET-KEY-1…`.
package struct AgeIdentity {
    let key: SecretKey
    let recipient: AgeRecipient

    /// - Parameter text: As a line of a file of identities has it; nil for what is none.
    init?(_ text: UnsafeRawBufferPointer) throws(KeyringError) {
        let key = try withScratchKey { (bytes: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey? in
            guard Bech32.decode(text, prefix: "age-secret-key-", into: bytes) else { return nil }
            do { return try SecretKey(copying: UnsafeRawBufferPointer(bytes)) } catch { throw .cannotLock }
        }
        guard let key else { return nil }
        self.key = key
        recipient = AgeRecipient(publicKey: KeyAgreement.publicKey(of: key))
    }
}

/// A file as `age-keygen` writes it: a line an identity, and comments.
package enum AgeIdentityFile {
    private static let byteLimit = 64 * 1024

    /// - Throws: `.insecureFile` if others can read it; `.service(.misconfigured)` for identities that are not X25519 keys.
    package static func read(_ path: String, forbiddenMode: UInt32 = 0o006) throws(KeyringError) -> [AgeIdentity] {
        let text: SecretBytes
        do { text = try SecretFile.read(path, limit: byteLimit, forbiddenMode: forbiddenMode) } catch {
            guard case .malformedKeyFile = error else { throw error }
            throw malformed(path)
        }
        return try text.withUnsafeBytes { text throws(KeyringError) in
            var identities: [AgeIdentity] = []
            for line in text.split(separator: UInt8(ascii: "\n")) {
                let line = line.last == UInt8(ascii: "\r") ? line.dropLast() : line
                guard let first = line.first, first != UInt8(ascii: "#") else { continue }
                guard let identity = try AgeIdentity(UnsafeRawBufferPointer(rebasing: line)) else {
                    throw malformed(path)
                }
                identities.append(identity)
            }
            guard !identities.isEmpty else { throw malformed(path) }
            return identities
        }
    }

    private static func malformed(_ path: String) -> KeyringError {
        .service(
            KeyServiceFault(
                .misconfigured, "\(path) is no file of age identities",
                hint:
                    "it has lines AGE-SECRET-KEY-1…, as 'age-keygen' writes them; neither a passphrase, a plugin nor an SSH key"
            ))
    }
}
