internal import CSodium

/// HMAC with SHA-256 (RFC 2104), for formats of others. Letterlock's own is `KeyedHash`.
public enum HMACSHA256 {
    public static let byteCount = 32

    public static func authenticate(
        _ message: UnsafeRawBufferPointer, key: UnsafeRawBufferPointer, into code: UnsafeMutableRawBufferPointer
    ) {
        authenticate([message], key: key, into: code)
    }

    /// The code of the parts one after the other.
    static func authenticate(
        _ parts: [UnsafeRawBufferPointer], key: UnsafeRawBufferPointer, into code: UnsafeMutableRawBufferPointer
    ) {
        precondition(code.count == byteCount, "an authentication code has 32 bytes")
        var state = crypto_auth_hmacsha256_state()
        // libsodium wants an address for an empty key, too, and reads nothing there.
        crypto_auth_hmacsha256_init(&state, key.address ?? UnsafePointer(code.address!), key.count)
        for part in parts where !part.isEmpty {
            crypto_auth_hmacsha256_update(&state, part.address!, UInt64(part.count))
        }
        crypto_auth_hmacsha256_final(&state, code.address!)
        withUnsafeMutableBytes(of: &state) { Memory.wipe($0) }
    }
}

/// Keys as RFC 5869 derives them (HKDF with SHA-256), 32 bytes each, for formats of others.
///
/// Its two steps are two calls of HMAC, put together here because Debian's libsodium 1.0.18 has no crypto_kdf_hkdf, and a
/// package that has it keeps keys in ordinary memory. The RFC's vectors are among the tests.
public enum HKDFSHA256 {
    public static func derive(
        from material: UnsafeRawBufferPointer, salt: UnsafeRawBufferPointer, label: StaticString,
        into key: UnsafeMutableRawBufferPointer
    ) {
        let label = UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount)
        derive(from: material, salt: salt, info: label, into: key)
    }

    static func derive(
        from material: UnsafeRawBufferPointer, salt: UnsafeRawBufferPointer, info: UnsafeRawBufferPointer,
        into key: UnsafeMutableRawBufferPointer
    ) {
        // A salt that is left out is one of zeros, which is what HMAC makes of an empty key.
        withScratchKey { pseudorandom in
            HMACSHA256.authenticate(material, key: salt, into: pseudorandom)
            withUnsafeBytes(of: UInt8(1)) { counter in
                HMACSHA256.authenticate([info, counter], key: UnsafeRawBufferPointer(pseudorandom), into: key)
            }
        }
    }
}
