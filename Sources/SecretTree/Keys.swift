public import Keyring
internal import Sodium
internal import Storage

/// Changing keys: what the keyring decides is stored first, and takes effect with that.
extension SecretTree {
    /// Changes the lifecycle in one transaction. When it returns, the change has taken effect for every call to
    /// come; when it throws, nothing has changed.
    ///
    /// - Throws: `.key` with what the state machine refuses.
    public func changeKeys(
        now: Timestamp, _ change: (inout KeyLifecycle) throws(LifecycleError) -> Void
    ) throws(TreeError) {
        try self.change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            do throws(KeyringError) {
                let prepared = try keyring.prepare(change)
                transaction.put(RecordKey(.lifecycle), prepared.lifecycleBytes)
                transaction.prepared = prepared
            } catch { throw .key(error) }
        }
        try wrapTreeKey(now: now)
    }

    /// Makes a new primary KEK version; no file is touched.
    public func rotate(ifLatest expected: KEKVersion? = nil, now: Timestamp) throws(TreeError) -> KEKVersion {
        try changeKeys(now: now) { lifecycle throws(LifecycleError) in
            _ = try lifecycle.rotate(ifLatest: expected, now: now)
        }
        return keyring.lifecycle.latest
    }

    /// The tree key goes under the primary version, so that no older one is needed for names and attributes.
    func wrapTreeKey(now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            transaction.isAside = true
            let record = RecordKey(.treeKey)
            guard let value = try read(record, { $0.map { [UInt8]($0) } }) else {
                throw tampered(record, .root, "is missing")
            }
            let isCurrent = value.withUnsafeBytes { value in
                value.count == Envelope.bareByteCount && Envelope.version(value) == keyring.lifecycle.primary
            }
            guard !isCurrent else { return }
            transaction.put(
                record, try withTreeKey(in: value) { key throws(TreeError) in try wrapped(treeKey: key, now: now) })
        }
    }

    /// How many contents each version wraps.
    public var versionCounts: [KEKVersion: Int] {
        lock.reading { state.versionCounts.filter { $0.value > 0 } }
    }

    // MARK: The tree key's record, shaped like an envelope of content 0

    private func withTreeKey<R>(
        in value: [UInt8], _ body: (UnsafeRawBufferPointer) throws(TreeError) -> R
    ) throws(TreeError) -> R {
        try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(TreeError) -> R in
            do throws(KeyringError) { try Self.unwrapTreeKey(value, keyring, into: key) } catch { throw .key(error) }
            return try body(key.readOnly)
        }
    }

    private func wrapped(treeKey key: UnsafeRawBufferPointer, now: Timestamp) throws(TreeError) -> [UInt8] {
        do throws(KeyringError) { return try Self.wrapTreeKey(key, keyring, now: now) } catch { throw .key(error) }
    }

    static func unwrapTreeKey(
        _ value: [UInt8], _ keyring: UnlockedKeyring, into key: UnsafeMutableRawBufferPointer
    ) throws(KeyringError) {
        guard value.count == Envelope.bareByteCount else { throw .doesNotAuthenticate }
        let result = value.withUnsafeBytes { value in
            Result { () throws(KeyringError) in
                try Envelope.withContext(0, Envelope.created(value)) { context throws(KeyringError) in
                    try keyring.unwrap(
                        value.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount),
                        version: Envelope.version(value), context: context, into: key,
                        // After a crash in the middle of a revocation it may still be the revoked version's.
                        forReencryption: true)
                }
            }
        }
        try result.get()
    }

    static func wrapTreeKey(
        _ key: UnsafeRawBufferPointer, _ keyring: UnlockedKeyring, now: Timestamp
    ) throws(KeyringError) -> [UInt8] {
        var value = [UInt8](repeating: 0, count: Envelope.bareByteCount)
        let result = value.withUnsafeMutableBytes { value in
            Result { () throws(KeyringError) in
                let version = try Envelope.withContext(0, now) { context throws(KeyringError) in
                    try keyring.wrap(
                        BorrowedKey(key), context: context,
                        into: value.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount))
                }
                value.put(version.rawValue, at: 0)
                value.put(now, at: Envelope.createdPlace)
            }
        }
        try result.get()
        return value
    }
}
