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
