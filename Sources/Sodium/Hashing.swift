internal import CSodium

/// Keys for different purposes from one key.
///
/// `BLAKE2b-256(key, le64(label length) | label | le64(context length) | context)`: Debian's libsodium has no HKDF.
public enum Derivation {
    /// Derives 32 bytes.
    public static func derive(
        _ label: StaticString, context: UnsafeRawBufferPointer, from key: borrowing BorrowedKey,
        into derived: UnsafeMutableRawBufferPointer
    ) {
        precondition(derived.count == SecretKey.byteCount)
        let label = UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount)
        withJoined(label, context, areBothCounted: true) { message in
            _ = crypto_generichash(
                derived.octets, derived.count, message.octets, UInt64(message.count), key.bytes.octets,
                key.bytes.count)
        }
    }

    public static func derive(
        _ label: StaticString, context: UnsafeRawBufferPointer, from key: borrowing BorrowedKey
    ) throws(SodiumError) -> SecretKey {
        let bytes = key.bytes
        return try withScratchKey {
            (derived: UnsafeMutableRawBufferPointer) throws(SodiumError) -> SecretKey in
            derive(label, context: context, from: BorrowedKey(bytes), into: derived)
            return try SecretKey(copying: UnsafeRawBufferPointer(derived))
        }
    }
}

/// Keyed BLAKE2b over two byte strings: `BLAKE2b(key, le64(length of a) | a | b)`.
public enum KeyedHash {
    /// Fills `hash`, 16 to 64 bytes.
    public static func hash(
        _ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, key: borrowing BorrowedKey,
        into hash: UnsafeMutableRawBufferPointer
    ) {
        precondition((16...64).contains(hash.count))
        withJoined(a, b, areBothCounted: false) { message in
            _ = crypto_generichash(
                hash.octets, hash.count, message.octets, UInt64(message.count), key.bytes.octets,
                key.bytes.count)
        }
    }
}

/// BLAKE2b without a key, for commitments to what is random itself.
public enum Checksum {
    /// Fills `hash`, 16 to 64 bytes.
    public static func blake2b(_ bytes: UnsafeRawBufferPointer, into hash: UnsafeMutableRawBufferPointer) {
        precondition((16...64).contains(hash.count))
        _ = crypto_generichash(hash.octets, hash.count, bytes.octets, UInt64(bytes.count), nil, 0)
    }
}

/// `le64(length of a) | a | b`, or `le64(length of a) | a | le64(length of b) | b`, in scratch memory: what is hashed may
/// be a name, which is a secret too.
private func withJoined(
    _ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, areBothCounted: Bool,
    _ body: (UnsafeRawBufferPointer) -> Void
) {
    let byteCount = 8 + a.count + (areBothCounted ? 8 : 0) + b.count
    withUnsafeTemporaryAllocation(byteCount: byteCount, alignment: 8) { message in
        var place = 0
        func append(_ bytes: UnsafeRawBufferPointer) {
            guard bytes.count > 0 else { return }
            UnsafeMutableRawBufferPointer(rebasing: message[place..<place + bytes.count]).copyMemory(
                from: bytes)
            place += bytes.count
        }
        func append(_ count: Int) { withUnsafeBytes(of: UInt64(count).littleEndian) { append($0) } }
        append(a.count)
        append(a)
        if areBothCounted { append(b.count) }
        append(b)
        body(UnsafeRawBufferPointer(message))
        Memory.wipe(message)
    }
}
