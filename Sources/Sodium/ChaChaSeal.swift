internal import CSodium

/// ChaCha20-Poly1305 (RFC 8439): for formats of others that ask for it. What is ours is sealed by `Seal`, whose nonces can be random.
public enum ChaChaSeal {
    public static let nonceByteCount = 12
    public static let tagByteCount = 16

    /// Seals; `sealed` is the plaintext's length and a tag's.
    ///
    /// - Precondition: The key seals nothing else under this nonce, ever.
    public static func seal(
        _ plaintext: UnsafeRawBufferPointer, into sealed: UnsafeMutableRawBufferPointer, nonce: [UInt8],
        key: borrowing BorrowedKey
    ) {
        precondition(sealed.count == plaintext.count + tagByteCount, "sealed is longer by a tag")
        precondition(nonce.count == nonceByteCount, "a nonce has 12 bytes")
        crypto_aead_chacha20poly1305_ietf_encrypt(
            sealed.address!, nil, plaintext.address, UInt64(plaintext.count), nil, 0, nil, nonce, key.bytes.address!)
    }

    /// Opens. False, and `plaintext` zeroed, if it does not authenticate.
    public static func open(
        _ sealed: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer, nonce: [UInt8],
        key: borrowing BorrowedKey
    ) -> Bool {
        precondition(sealed.count == plaintext.count + tagByteCount, "sealed is longer by a tag")
        precondition(nonce.count == nonceByteCount, "a nonce has 12 bytes")
        let status = crypto_aead_chacha20poly1305_ietf_decrypt(
            plaintext.address, nil, nil, sealed.address!, UInt64(sealed.count), nil, 0, nonce, key.bytes.address!)
        if status != 0 { Memory.wipe(plaintext) }
        return status == 0
    }
}
