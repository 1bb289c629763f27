internal import CSodium

/// HMAC-SHA256 (RFC 2104, FIPS 198-1): for what others define by it. What is ours is keyed BLAKE2b.
public enum HMAC {
    public static let byteCount = 32

    /// Of a message's parts, one after the other, under a key of any length but none.
    ///
    /// - Precondition: `tag` is 32 bytes; it may be the key's memory.
    public static func sha256(
        _ parts: [UnsafeRawBufferPointer], key: UnsafeRawBufferPointer, into tag: UnsafeMutableRawBufferPointer
    ) {
        precondition(tag.count == byteCount, "a tag has 32 bytes")
        var state = crypto_auth_hmacsha256_state()
        withUnsafeMutablePointer(to: &state) { state in
            crypto_auth_hmacsha256_init(state, key.address!, key.count)
            for part in parts where !part.isEmpty {
                crypto_auth_hmacsha256_update(state, part.address!, UInt64(part.count))
            }
            crypto_auth_hmacsha256_final(state, tag.address!)
            Memory.wipe(UnsafeMutableRawBufferPointer(start: state, count: MemoryLayout.size(ofValue: state.pointee)))
        }
    }
}

/// HKDF-SHA256 (RFC 5869), as far as one key: for formats of others that ask for it. What is ours is derived by `Derivation`.
public enum HKDF {
    /// - Parameter salt: Of any length; none is a salt of zeros.
    public static func sha256(
        _ secret: UnsafeRawBufferPointer, salt: [UInt8], info: StaticString
    ) throws(SodiumError) -> SecretKey {
        let salt = salt.isEmpty ? [UInt8](repeating: 0, count: HMAC.byteCount) : salt
        let info = UnsafeRawBufferPointer(start: info.utf8Start, count: info.utf8CodeUnitCount)
        return try SecretKey.make { key in
            salt.withUnsafeBytes { HMAC.sha256([secret], key: $0, into: key) }
            let first: [UInt8] = [1]
            first.withUnsafeBytes { HMAC.sha256([info, $0], key: UnsafeRawBufferPointer(key), into: key) }
        }
    }
}
