internal import Keyring
internal import Sodium

/// The key of an age file, sealed for one recipient: `-> X25519 SHARE`, and a line.
struct AgeStanza {
    let words: [[UInt8]]
    /// The lines of it, put together; base64 without padding.
    let body: [UInt8]

    /// Of 32 bytes.
    static let characterCount = Base64.characterCount(of: 32, isPadded: false)
    private static let info: StaticString = "age-encryption.org/v1/X25519"
    /// Each wrapping key seals one thing alone, so that a fixed nonce is used once.
    private static let nonce = [UInt8](repeating: 0, count: ChaChaSeal.nonceByteCount)

    /// - Parameter fileKey: 16 bytes.
    static func make(_ fileKey: UnsafeRawBufferPointer, for recipient: AgeRecipient) throws(KeyringError) -> AgeStanza {
        let oneTimeKey: SecretKey
        do { oneTimeKey = try SecretKey.random() } catch { throw .cannotLock }
        let share = KeyAgreement.publicKey(of: oneTimeKey)
        guard let key = try wrapping(oneTimeKey, recipient.publicKey, share, recipient.publicKey) else {
            throw .service(KeyServiceFault(.misconfigured, "\(recipient.text) is a key that everybody could open"))
        }
        var sealed = [UInt8](repeating: 0, count: fileKey.count + ChaChaSeal.tagByteCount)
        sealed.withUnsafeMutableBytes { sealed in
            key.withKey { ChaChaSeal.seal(fileKey, into: sealed, nonce: nonce, key: $0) }
        }
        return AgeStanza(words: [Array("X25519".utf8), text(share)], body: text(sealed))
    }

    var bytes: [UInt8] {
        Array("->".utf8) + words.flatMap { [UInt8(ascii: " ")] + $0 } + [UInt8(ascii: "\n")] + body + [
            UInt8(ascii: "\n")
        ]
    }

    /// - Returns: False if it is for somebody else.
    /// - Throws: `.damaged` for what is no stanza.
    func open(with identity: AgeIdentity, into fileKey: UnsafeMutableRawBufferPointer) throws(KeyringError) -> Bool {
        guard words.count == 2, let share = try Self.bytes(words[1][...], count: KeyAgreement.publicKeyByteCount),
            let sealed = try Self.bytes(body[...], count: fileKey.count + ChaChaSeal.tagByteCount),
            let key = try Self.wrapping(identity.key, share, share, identity.recipient.publicKey)
        else { throw AgeFile.malformed }
        return sealed.withUnsafeBytes { sealed in
            key.withKey { ChaChaSeal.open(sealed, into: fileKey, nonce: Self.nonce, key: $0) }
        }
    }

    /// Nil for a public key that gives no secret.
    private static func wrapping(_ secret: SecretKey, _ other: [UInt8], _ share: [UInt8], _ recipient: [UInt8])
        throws(KeyringError) -> SecretKey?
    {
        do {
            guard let shared = try KeyAgreement.shared(secret, with: other) else { return nil }
            return try shared.withKey { shared throws(SodiumError) in
                try HKDF.sha256(shared.bytes, salt: share + recipient, info: info)
            }
        } catch { throw .cannotLock }
    }

    // MARK: Base64 of what is not secret

    static func text(_ bytes: [UInt8]) -> [UInt8] {
        let count = Base64.characterCount(of: bytes.count, isPadded: false)
        var text = [UInt8](repeating: 0, count: count + 1)
        text.withUnsafeMutableBytes { text in
            bytes.withUnsafeBytes { Base64.encode($0, into: text, isPadded: false) }
        }
        return Array(text.prefix(count))
    }

    /// So many bytes; nil if it is anything else.
    static func bytes(_ text: some Collection<UInt8>, count: Int) throws(KeyringError) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        let found = bytes.withUnsafeMutableBytes { bytes in
            Array(text).withUnsafeBytes { Base64.decode($0, into: bytes, isPadded: false) }
        }
        return found == count ? bytes : nil
    }
}
