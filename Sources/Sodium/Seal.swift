internal import CSodium

/// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), the tag apart from the ciphertext.
///
/// Nonces are random: 24 bytes do not meet twice.
public enum Seal {
    public static let keyByteCount = 32
    public static let nonceByteCount = 24
    public static let tagByteCount = 16

    /// Seals. `ciphertext` is as long as `plaintext`, and may be the same memory.
    public static func seal(
        _ plaintext: UnsafeRawBufferPointer, into ciphertext: UnsafeMutableRawBufferPointer,
        tag: UnsafeMutableRawBufferPointer, nonce: UnsafeRawBufferPointer, associatedData: UnsafeRawBufferPointer,
        key: borrowing BorrowedKey
    ) {
        precondition(ciphertext.count == plaintext.count, "ciphertext and plaintext differ in length")
        precondition(tag.count == tagByteCount && nonce.count == nonceByteCount, "a tag or nonce of a wrong size")
        // An empty buffer may have no address, and libsodium wants one.
        crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
            ciphertext.address ?? tag.address!, tag.address!, nil, plaintext.address, UInt64(plaintext.count),
            associatedData.address, UInt64(associatedData.count), nil, nonce.address!, key.bytes.address!)
    }

    /// Opens. False, and `plaintext` zeroed, if it does not authenticate.
    public static func open(
        _ ciphertext: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer,
        associatedData: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer,
        key: borrowing BorrowedKey
    ) -> Bool {
        precondition(ciphertext.count == plaintext.count, "ciphertext and plaintext differ in length")
        precondition(tag.count == tagByteCount && nonce.count == nonceByteCount, "a tag or nonce of a wrong size")
        let status = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
            plaintext.address, nil, ciphertext.address ?? tag.address!, UInt64(ciphertext.count), tag.address!,
            associatedData.address, UInt64(associatedData.count), nonce.address!, key.bytes.address!)
        guard status == 0 else {
            Memory.wipe(plaintext)
            return false
        }
        return true
    }
}

extension UnsafeRawBufferPointer {
    var address: UnsafePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}

extension UnsafeMutableRawBufferPointer {
    var address: UnsafeMutablePointer<UInt8>? { baseAddress?.assumingMemoryBound(to: UInt8.self) }
}
