internal import CSodium

/// ChaCha20-Poly1305 (RFC 8439), the tag behind the ciphertext: as other formats want it. Letterlock's own is `Seal`.
///
/// The nonce has 12 bytes, too few to be drawn at random: each key is used once, or counts.
public enum ChaChaPoly {
    public static let nonceByteCount = 12
    public static let tagByteCount = 16

    /// Seals; `sealed` is longer than `plaintext` by the tag.
    public static func seal(
        _ plaintext: UnsafeRawBufferPointer, into sealed: UnsafeMutableRawBufferPointer,
        nonce: UnsafeRawBufferPointer, key: borrowing BorrowedKey
    ) {
        precondition(sealed.count == plaintext.count + tagByteCount, "sealed is plaintext and tag")
        precondition(nonce.count == nonceByteCount, "a nonce of a wrong size")
        crypto_aead_chacha20poly1305_ietf_encrypt(
            sealed.address!, nil, plaintext.address, UInt64(plaintext.count), nil, 0, nil, nonce.address!,
            key.bytes.address!)
    }

    /// Opens. False, and `plaintext` zeroed, if it does not authenticate.
    public static func open(
        _ sealed: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer,
        nonce: UnsafeRawBufferPointer, key: borrowing BorrowedKey
    ) -> Bool {
        precondition(sealed.count == plaintext.count + tagByteCount, "sealed is plaintext and tag")
        precondition(nonce.count == nonceByteCount, "a nonce of a wrong size")
        // An empty buffer may have no address; the plaintext's place is then of no matter.
        let status = crypto_aead_chacha20poly1305_ietf_decrypt(
            plaintext.address, nil, nil, sealed.address!, UInt64(sealed.count), nil, 0, nonce.address!,
            key.bytes.address!)
        guard status == 0 else {
            Memory.wipe(plaintext)
            return false
        }
        return true
    }
}
