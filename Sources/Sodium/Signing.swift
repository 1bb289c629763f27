internal import CSodium

/// An Ed25519 key pair (RFC 8032) made of a 32-byte seed, in locked memory.
public final class SigningKey: @unchecked Sendable {
    // Unchecked: written in init alone.
    private let secret: SecretBytes
    public let publicKey: [UInt8]

    public static let publicKeyByteCount = 32
    public static let signatureByteCount = 64

    public init(seed: SecretKey) throws(SodiumError) {
        var secret = try SecretBytes(byteCount: Int(crypto_sign_secretkeybytes()))
        var publicKey = [UInt8](repeating: 0, count: Self.publicKeyByteCount)
        seed.withKey { seed in
            let seed = seed.bytes
            secret.withUnsafeMutableBytes { secret in
                _ = crypto_sign_seed_keypair(&publicKey, secret.address!, seed.address!)
            }
        }
        self.secret = secret
        self.publicKey = publicKey
    }

    public func sign(_ message: UnsafeRawBufferPointer) -> [UInt8] {
        var signature = [UInt8](repeating: 0, count: Self.signatureByteCount)
        secret.withUnsafeBytes { secret in
            _ = crypto_sign_detached(&signature, nil, message.address, UInt64(message.count), secret.address!)
        }
        return signature
    }

    /// Whether whoever has the other half of `publicKey` has signed `message`.
    public static func verify(_ signature: [UInt8], of message: UnsafeRawBufferPointer, by publicKey: [UInt8]) -> Bool {
        guard signature.count == signatureByteCount, publicKey.count == publicKeyByteCount else { return false }
        return crypto_sign_verify_detached(signature, message.address, UInt64(message.count), publicKey) == 0
    }
}

/// HMAC-SHA-256 (RFC 2104).
public enum MessageAuthentication {
    public static func hmacSHA256(_ message: UnsafeRawBufferPointer, key: borrowing BorrowedKey) -> [UInt8] {
        var code = [UInt8](repeating: 0, count: 32)
        _ = crypto_auth_hmacsha256(&code, message.address, UInt64(message.count), key.bytes.address!)
        return code
    }
}
