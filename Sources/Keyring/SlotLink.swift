internal import Sodium

/// The way from a slot's key to the root key, in two halves, so that whoever has the keyring open can hand a new root key
/// to a slot whose passphrase or service is not at hand, and nobody else can.
///
///     public key 32 | authority 72, sealed under the root key | one-time public key 32 | root key 72, sealed
///
/// The slot's key gives an X25519 key, whose public half stands here, and the *authority*, a key that the keyring knows as
/// well. The root key is sealed under both the shared secret of the slot's key and a one-time key, and the authority: to read
/// it takes the slot's key, so an earlier root key is no help; to make one takes the authority, so that nobody can put a
/// keyring of his own behind another's passphrase.
struct SlotLink {
    static let byteCount = 2 * KeyAgreement.publicKeyByteCount + 2 * SealedKey.byteCount

    /// What links are bound to.
    let storeID: StoreID
    let keyring: String

    init(_ configuration: Configuration) {
        storeID = configuration.storeID
        keyring = configuration.name
    }

    private static let authorityPlace = KeyAgreement.publicKeyByteCount
    private static let oneTimePlace = authorityPlace + SealedKey.byteCount
    private static let rootPlace = oneTimePlace + KeyAgreement.publicKeyByteCount

    /// Reads one, or none: nil for what is neither.
    static func bytes(_ reader: inout ByteReader) -> [UInt8]? {
        guard let bytes = reader.counted(limit: byteCount), bytes.isEmpty || bytes.count == byteCount else {
            return nil
        }
        return [UInt8](bytes)
    }

    /// The link of a new slot.
    func make(_ slotKey: SecretKey, to rootKey: SecretKey) throws(KeyringError) -> [UInt8] {
        let agreement = try slotKey.derived("letterlock slot agreement 1")
        let authority = try slotKey.derived("letterlock slot authority 1")
        return try make(KeyAgreement.publicKey(of: agreement), authority, to: rootKey)
    }

    /// A link to another root key for the same slot, by who has the root key that it leads to now.
    func renewed(_ link: [UInt8], from old: SecretKey, to new: SecretKey) throws(KeyringError) -> [UInt8] {
        let publicKey = Array(link[..<Self.authorityPlace])
        let sealed = link[Self.authorityPlace..<Self.oneTimePlace]
        let authority = try open(
            sealed, "letterlock slot authority 2", publicKey, [], under: try old.derived(Self.slots))
        guard let authority else { throw .damaged("a key slot does not authenticate") }
        return try make(publicKey, authority, to: new)
    }

    /// The root key.
    ///
    /// - Throws: `.damaged`: that the slot's key is the right one is known already.
    func open(_ link: [UInt8], with slotKey: SecretKey) throws(KeyringError) -> SecretKey {
        let agreement = try slotKey.derived("letterlock slot agreement 1")
        let authority = try slotKey.derived("letterlock slot authority 1")
        let publicKey = Array(link[..<Self.authorityPlace])
        let oneTime = Array(link[Self.oneTimePlace..<Self.rootPlace])
        guard KeyAgreement.publicKey(of: agreement) == publicKey,
            let key = try wrapping(agreement, with: oneTime, authority),
            let root = try open(link[Self.rootPlace...], "letterlock slot root 1", publicKey, oneTime, under: key)
        else { throw .damaged("a key slot does not authenticate") }
        return root
    }

    // MARK: Parts

    private static let slots: StaticString = "letterlock slots 1"

    private func make(_ publicKey: [UInt8], _ authority: SecretKey, to rootKey: SecretKey) throws(KeyringError)
        -> [UInt8]
    {
        let oneTimeKey = try UnlockedKeyring.random()
        let oneTime = KeyAgreement.publicKey(of: oneTimeKey)
        guard let key = try wrapping(oneTimeKey, with: publicKey, authority) else {
            throw .damaged("a key slot's public key is none")
        }
        return publicKey
            + seal(authority, "letterlock slot authority 2", publicKey, [], under: try rootKey.derived(Self.slots))
            + oneTime + seal(rootKey, "letterlock slot root 1", publicKey, oneTime, under: key)
    }

    /// The key that it takes both halves to make; nil for a public key that gives no secret.
    private func wrapping(_ secret: SecretKey, with publicKey: [UInt8], _ authority: SecretKey) throws(KeyringError)
        -> SecretKey?
    {
        do {
            guard let shared = try KeyAgreement.shared(secret, with: publicKey) else { return nil }
            return try shared.withKey { shared throws(SodiumError) in
                let secret = shared.bytes
                return try authority.withKey { authority throws(SodiumError) in
                    try Derivation.derive("letterlock slot link 1", context: secret, from: authority)
                }
            }
        } catch { throw .cannotLock }
    }

    private func seal(
        _ key: SecretKey, _ label: StaticString, _ publicKey: [UInt8], _ oneTime: [UInt8], under wrapping: SecretKey
    ) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: SealedKey.byteCount) { buffer, count in
            withBinding(label, publicKey, oneTime) { data in
                wrapping.withKey { wrapping in
                    let bytes = wrapping.bytes
                    key.withKey { key in
                        SealedKey.seal(
                            key.bytes, into: UnsafeMutableRawBufferPointer(buffer), associatedData: data,
                            under: BorrowedKey(bytes))
                    }
                }
            }
            count = SealedKey.byteCount
        }
    }

    private func open(
        _ sealed: ArraySlice<UInt8>, _ label: StaticString, _ publicKey: [UInt8], _ oneTime: [UInt8],
        under wrapping: SecretKey
    ) throws(KeyringError) -> SecretKey? {
        try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey? in
            let isOpen = withBinding(label, publicKey, oneTime) { data in
                sealed.withUnsafeBytes { sealed in
                    wrapping.withKey { SealedKey.open(sealed, into: key, associatedData: data, under: $0) }
                }
            }
            guard isOpen else { return nil }
            do { return try SecretKey(copying: UnsafeRawBufferPointer(key)) } catch { throw .cannotLock }
        }
    }

    private func withBinding<R>(
        _ label: StaticString, _ publicKey: [UInt8], _ oneTime: [UInt8], _ body: (UnsafeRawBufferPointer) -> R
    ) -> R {
        let name = Array(keyring.utf8)
        return storeID.withUnsafeBytes { store in
            name.withUnsafeBytes { name in
                publicKey.withUnsafeBytes { publicKey in
                    oneTime.withUnsafeBytes { withAssociatedData(label, [store, name, publicKey, $0], body) }
                }
            }
        }
    }
}
