internal import CSodium

/// Authenticated encryption: XChaCha20-Poly1305 (IETF), with a tag apart from the ciphertext.
public enum Seal {
    public static let keyByteCount = 32
    public static let nonceByteCount = 24
    public static let tagByteCount = 16

    /// Seals `plaintext`. `ciphertext` has the same length and may be the same memory.
    public static func seal(
        _ plaintext: UnsafeRawBufferPointer, into ciphertext: UnsafeMutableRawBufferPointer,
        tag: UnsafeMutableRawBufferPointer, nonce: UnsafeRawBufferPointer,
        associatedData: UnsafeRawBufferPointer, key: borrowing BorrowedKey
    ) {
        precondition(ciphertext.count == plaintext.count)
        precondition(tag.count == tagByteCount && nonce.count == nonceByteCount)
        // Cannot fail: there is no secret nonce, and no length here is out of its range.
        _ = crypto_aead_xchacha20poly1305_ietf_encrypt_detached(
            ciphertext.octets, tag.octets, nil, plaintext.octets, UInt64(plaintext.count),
            associatedData.octets,
            UInt64(associatedData.count), nil, nonce.octets, key.bytes.octets)
    }

    /// Opens `ciphertext` into `plaintext`, which has the same length and may be the same memory.
    ///
    /// - Returns: false, with `plaintext` zeroed, if it does not authenticate.
    public static func open(
        _ ciphertext: UnsafeRawBufferPointer, tag: UnsafeRawBufferPointer, nonce: UnsafeRawBufferPointer,
        associatedData: UnsafeRawBufferPointer, into plaintext: UnsafeMutableRawBufferPointer,
        key: borrowing BorrowedKey
    ) -> Bool {
        precondition(ciphertext.count == plaintext.count)
        precondition(tag.count == tagByteCount && nonce.count == nonceByteCount)
        let status = crypto_aead_xchacha20poly1305_ietf_decrypt_detached(
            plaintext.octets, nil, ciphertext.octets, UInt64(ciphertext.count), tag.octets,
            associatedData.octets,
            UInt64(associatedData.count), nonce.octets, key.bytes.octets)
        guard status == 0 else {
            Memory.wipe(plaintext)
            return false
        }
        return true
    }
}

extension UnsafeRawBufferPointer {
    /// As C has bytes. An empty buffer without an address gets one that nobody reads.
    var octets: UnsafePointer<UInt8> {
        (baseAddress ?? UnsafeRawPointer(bitPattern: 16)!).assumingMemoryBound(to: UInt8.self)
    }
}

extension UnsafeMutableRawBufferPointer {
    var octets: UnsafeMutablePointer<UInt8> {
        (baseAddress ?? UnsafeMutableRawPointer(bitPattern: 16)!).assumingMemoryBound(to: UInt8.self)
    }
}
