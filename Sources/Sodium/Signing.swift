internal import CSodium

/// A key that signs: Ed25519 (RFC 8032). Its secret part stays in locked memory.
public final class SigningKey: @unchecked Sendable {
    // The secret key is written in init alone.
    private let secret: SecretBytes
    /// Who knows it can tell what this key has signed.
    public let publicKey: VerifyingKey

    /// The same seed always gives the same key.
    public init(seed: borrowing BorrowedKey) throws(SodiumError) {
        var secret = try SecretBytes(byteCount: crypto_sign_secretkeybytes())
        var publicKey = [UInt8](repeating: 0, count: VerifyingKey.byteCount)
        // A closure cannot capture what is borrowed, but its bytes.
        let seed = seed.bytes
        secret.withUnsafeMutableBytes { secret in
            publicKey.withUnsafeMutableBytes { publicKey in
                _ = crypto_sign_seed_keypair(publicKey.address!, secret.address!, seed.address!)
            }
        }
        self.publicKey = VerifyingKey(checked: publicKey)
        self.secret = secret
    }

    /// The signature of a message: 64 bytes, the same each time.
    public func sign(_ message: UnsafeRawBufferPointer) -> [UInt8] {
        secret.withUnsafeBytes { secret in
            [UInt8](unsafeUninitializedCapacity: VerifyingKey.signatureByteCount) { buffer, count in
                _ = crypto_sign_detached(
                    buffer.baseAddress!, nil, message.address, UInt64(message.count), secret.address!)
                count = VerifyingKey.signatureByteCount
            }
        }
    }
}

/// The public part of a `SigningKey`.
public struct VerifyingKey: Hashable, Sendable {
    public static let byteCount = 32
    public static let signatureByteCount = 64
    public let bytes: [UInt8]

    /// Nil unless they are 32 bytes.
    public init?(_ bytes: [UInt8]) {
        guard bytes.count == Self.byteCount else { return nil }
        self.bytes = bytes
    }

    fileprivate init(checked bytes: [UInt8]) { self.bytes = bytes }

    public func verifies(_ signature: [UInt8], of message: UnsafeRawBufferPointer) -> Bool {
        guard signature.count == Self.signatureByteCount else { return false }
        return crypto_sign_verify_detached(signature, message.address, UInt64(message.count), bytes) == 0
    }
}

/// SHA-256 (FIPS 180-4), of what comes in pieces: as `sha256sum` prints it.
public enum SHA256 {
    public static let byteCount = 32

    /// The hash of all that `next` fills its buffer with, until it answers 0; nil if it answers a negative number.
    public static func hash(
        through buffer: UnsafeMutableRawBufferPointer, _ next: (UnsafeMutableRawBufferPointer) -> Int
    ) -> [UInt8]? {
        var state = crypto_hash_sha256_state()
        crypto_hash_sha256_init(&state)
        while true {
            let count = next(buffer)
            guard count >= 0 else { return nil }
            guard count > 0 else { break }
            crypto_hash_sha256_update(&state, buffer.address!, UInt64(count))
        }
        return [UInt8](unsafeUninitializedCapacity: byteCount) { hash, count in
            crypto_hash_sha256_final(&state, hash.baseAddress!)
            count = byteCount
        }
    }
}
