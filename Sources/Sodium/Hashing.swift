internal import CSodium

/// Keys for different purposes out of one: BLAKE2b-256 keyed with it, over
/// `le64(label length) label | le64(context length) context`.
public enum Derivation {
    public static func derive(
        _ label: StaticString, context: UnsafeRawBufferPointer, from key: borrowing BorrowedKey,
        into derived: UnsafeMutableRawBufferPointer
    ) {
        precondition(derived.count == SecretKey.byteCount, "a derived key has 32 bytes")
        let label = UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount)
        Blake2b.hash(key: key.bytes, into: derived) { state in
            Blake2b.addCounted(label, to: state)
            Blake2b.addCounted(context, to: state)
        }
    }

    public static func derive(
        _ label: StaticString, context: UnsafeRawBufferPointer, from key: borrowing BorrowedKey
    ) throws(SodiumError) -> SecretKey {
        // A closure cannot capture what is borrowed, but its bytes.
        let bytes = key.bytes
        return try SecretKey.make { derive(label, context: context, from: BorrowedKey(bytes), into: $0) }
    }
}

/// BLAKE2b under a key.
public enum KeyedHash {
    /// The hash of `le64(length of a) a | b`, 16 to 64 bytes of it.
    public static func hash(
        _ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer, key: borrowing BorrowedKey,
        into hash: UnsafeMutableRawBufferPointer
    ) {
        Blake2b.hash(key: key.bytes, into: hash) { state in
            Blake2b.addCounted(a, to: state)
            Blake2b.add(b, to: state)
        }
    }
}

/// BLAKE2b without a key: what everybody can compute.
public enum Checksum {
    /// 16 to 64 bytes of hash.
    public static func blake2b(_ bytes: UnsafeRawBufferPointer, into hash: UnsafeMutableRawBufferPointer) {
        Blake2b.hash(key: UnsafeRawBufferPointer(start: nil, count: 0), into: hash) { state in
            Blake2b.add(bytes, to: state)
        }
    }
}

enum Blake2b {
    static func hash(
        key: UnsafeRawBufferPointer, into hash: UnsafeMutableRawBufferPointer, _ absorb: (OpaquePointer) -> Void
    ) {
        precondition((16...64).contains(hash.count), "a BLAKE2b hash has 16 to 64 bytes")
        // A size known here, and an alignment found by hand, keep it on the stack.
        withUnsafeTemporaryAllocation(byteCount: stateByteCount + stateAlignment, alignment: 16) { memory in
            let state = OpaquePointer(memory.baseAddress!.alignedUp(toMultipleOf: stateAlignment))
            crypto_generichash_init(state, key.address, key.count, hash.count)
            absorb(state)
            crypto_generichash_final(state, hash.address!, hash.count)
            Memory.wipe(memory)
        }
    }

    /// `crypto_generichash_state`, which is opaque to Swift for its alignment. `Sodium.start` compares.
    static let stateByteCount = 384
    private static let stateAlignment = 64

    static func add(_ bytes: UnsafeRawBufferPointer, to state: OpaquePointer) {
        guard let base = bytes.address else { return }
        crypto_generichash_update(state, base, UInt64(bytes.count))
    }

    static func addCounted(_ bytes: UnsafeRawBufferPointer, to state: OpaquePointer) {
        withUnsafeBytes(of: UInt64(bytes.count).littleEndian) { add($0, to: state) }
        add(bytes, to: state)
    }
}

/// SHA-512 of a stream that may be secret (FIPS 180-4): for formats of others that ask for it.
public struct SHA512: ~Copyable {
    public static let byteCount = 64
    private var state = crypto_hash_sha512_state()

    public init() { crypto_hash_sha512_init(&state) }

    deinit {
        var state = state
        withUnsafeMutableBytes(of: &state) { Memory.wipe($0) }
    }

    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        crypto_hash_sha512_update(&state, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(bytes.count))
    }

    /// The 64 bytes; nothing can be added afterwards.
    public mutating func finish() -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: Self.byteCount)
        crypto_hash_sha512_final(&state, &hash)
        withUnsafeMutableBytes(of: &state) { Memory.wipe($0) }
        return hash
    }
}

/// SHA-256 of a stream (FIPS 180-4): for what others name by it. What is ours is hashed with BLAKE2b.
public struct SHA256 {
    private var state = crypto_hash_sha256_state()

    public init() { crypto_hash_sha256_init(&state) }

    public mutating func add(_ bytes: UnsafeRawBufferPointer) {
        crypto_hash_sha256_update(&state, bytes.baseAddress?.assumingMemoryBound(to: UInt8.self), UInt64(bytes.count))
    }

    /// The 32 bytes; nothing can be added afterwards.
    public mutating func finish() -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: 32)
        crypto_hash_sha256_final(&state, &hash)
        return hash
    }
}
