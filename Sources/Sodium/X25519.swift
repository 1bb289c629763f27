internal import CSodium

/// Diffie and Hellman's exchange on Curve25519 (RFC 7748).
public enum X25519 {
    public static let keyByteCount = 32

    /// The public key of a secret one.
    public static func publicKey(of secret: borrowing BorrowedKey, into publicKey: UnsafeMutableRawBufferPointer) {
        precondition(publicKey.count == keyByteCount, "a public key has 32 bytes")
        crypto_scalarmult_base(publicKey.address!, secret.bytes.address!)
    }

    /// What both sides share. False, and `shared` zeroed, for a public key of low order: then it is no secret.
    public static func agree(
        _ secret: borrowing BorrowedKey, with publicKey: UnsafeRawBufferPointer,
        into shared: UnsafeMutableRawBufferPointer
    ) -> Bool {
        precondition(publicKey.count == keyByteCount && shared.count == keyByteCount, "a key has 32 bytes")
        guard crypto_scalarmult(shared.address!, secret.bytes.address!, publicKey.address!) == 0 else {
            Memory.wipe(shared)
            return false
        }
        return true
    }
}
