internal import CSodium

/// X25519 (RFC 7748): two keys make a secret that neither has to be told.
public enum KeyAgreement {
    public static let publicKeyByteCount = 32

    /// The public key of a secret one, which may be any 32 random bytes.
    public static func publicKey(of secret: SecretKey) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: publicKeyByteCount) { buffer, count in
            secret.withKey { _ = crypto_scalarmult_base(buffer.baseAddress!, $0.bytes.address!) }
            count = publicKeyByteCount
        }
    }

    /// What the owners of both keys can compute. It is no key itself: one is derived from it.
    ///
    /// - Returns: nil if the public key is one with which everybody could (a point of low order).
    /// - Precondition: `publicKey` is 32 bytes.
    public static func shared(_ secret: SecretKey, with publicKey: [UInt8]) throws(SodiumError) -> SecretKey? {
        precondition(publicKey.count == publicKeyByteCount, "a public key has 32 bytes")
        var isSound = false
        let shared = try SecretKey.make { shared in
            secret.withKey { secret in
                publicKey.withUnsafeBytes {
                    isSound = crypto_scalarmult(shared.address!, secret.bytes.address!, $0.address!) == 0
                }
            }
        }
        return isSound ? shared : nil
    }
}
