public import Sodium

/// Wrapping data keys: `nonce 24 | tag 16 | ciphertext 32 | commitment 32`.
///
/// Bound to the store, the KEK version and the caller's context. The commitment, a hash keyed with the DEK, makes it
/// impossible to make one wrap that opens to two keys, which the cipher alone would allow (Albertini and others,
/// "How to Abuse and Fix Authenticated Encryption Without Key Commitment", USENIX Security 2022).
extension UnlockedKeyring {
    public static let wrappedByteCount = 104

    /// Wraps 32 bytes under the primary version.
    ///
    /// - Parameter prepared: A change that has not taken effect, whose primary it shall be; nil for the present one.
    /// - Returns: that version, to be kept beside the wrap.
    public func wrap(
        _ dek: borrowing BorrowedKey, context: UnsafeRawBufferPointer, into wrapped: UnsafeMutableRawBufferPointer,
        as prepared: PreparedLifecycle? = nil
    ) throws(KeyringError) -> KEKVersion {
        precondition(wrapped.count == Self.wrappedByteCount)
        let (version, kek) = try primaryKey(as: prepared)
        let plain = dek.bytes
        withBinding(version, context) { data in
            kek.withKey { kek in
                SealedKey.seal(
                    plain, into: UnsafeMutableRawBufferPointer(rebasing: wrapped[0..<72]), associatedData: data,
                    under: kek)
            }
            Self.commit(to: plain, data, into: UnsafeMutableRawBufferPointer(rebasing: wrapped[72..<104]))
        }
        return version
    }

    /// Unwraps into 32 bytes.
    ///
    /// - Throws: what the version's state says, before any key is touched; `.doesNotAuthenticate`.
    public func unwrap(
        _ wrapped: UnsafeRawBufferPointer, version: KEKVersion, context: UnsafeRawBufferPointer,
        into dek: UnsafeMutableRawBufferPointer, forReencryption: Bool = false
    ) throws(KeyringError) {
        precondition(wrapped.count == Self.wrappedByteCount && dek.count == SecretKey.byteCount)
        let kek = try key(version, forReencryption: forReencryption)
        let isSound = withBinding(version, context) { data in
            let isOpen = kek.withKey { kek in
                SealedKey.open(
                    UnsafeRawBufferPointer(rebasing: wrapped[0..<72]), into: dek, associatedData: data, under: kek)
            }
            guard isOpen else { return false }
            return withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { commitment in
                Self.commit(to: UnsafeRawBufferPointer(dek), data, into: commitment)
                return Memory.equal(
                    UnsafeRawBufferPointer(commitment), UnsafeRawBufferPointer(rebasing: wrapped[72..<104]))
            }
        }
        guard isSound else {
            Memory.wipe(dek)
            throw .doesNotAuthenticate
        }
    }

    private func withBinding<R>(
        _ version: KEKVersion, _ context: UnsafeRawBufferPointer, _ body: (UnsafeRawBufferPointer) -> R
    ) -> R {
        storeID.withUnsafeBytes { store in
            withUnsafeBytes(of: version.rawValue.littleEndian) { number in
                withAssociatedData("letterlock dek 1", [store, number, context], body)
            }
        }
    }

    private static func commit(
        to dek: UnsafeRawBufferPointer, _ data: UnsafeRawBufferPointer, into commitment: UnsafeMutableRawBufferPointer
    ) {
        let label: StaticString = "letterlock commitment 1"
        KeyedHash.hash(
            UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount), data, key: BorrowedKey(dek),
            into: commitment)
    }
}
