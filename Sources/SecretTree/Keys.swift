public import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Changing keys: what the keyring decides is stored first, and takes effect with that.
extension SecretTree {
    /// Changes the lifecycle in one transaction. When it returns, the change has taken effect for every call to
    /// come, and survives the loss of power; when it throws, nothing has changed, or the store's disk has failed.
    ///
    /// - Throws: `.key` with what the state machine refuses.
    public func changeKeys(
        now: Timestamp, _ change: (inout KeyLifecycle) throws(LifecycleError) -> Void
    ) throws(TreeError) {
        try self.change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            _ = try transaction.changeKeys(change)
        }
        jobsRunner.wake()
        // What is denied stays denied though the power goes.
        try sync()
    }

    /// Makes a new primary KEK version; no file is touched.
    public func rotate(ifLatest expected: KEKVersion? = nil, now: Timestamp) throws(TreeError) -> KEKVersion {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> KEKVersion in
            try transaction.changeKeys { lifecycle throws(LifecycleError) in
                _ = try lifecycle.rotate(ifLatest: expected, now: now)
            }.latest
        }
    }

    /// How many contents each version wraps.
    public var versionCounts: [KEKVersion: Int] {
        try? soundness.wait()
        return lock.reading { state.versionCounts.filter { $0.value > 0 } }
    }
}

extension Transaction {
    /// Changes the lifecycle with this transaction, and all that has to follow it: the tree key goes under the new
    /// primary, what a destroyed key has left is to be erased, jobs look again at what they have passed.
    ///
    /// - Returns: what the lifecycle will be.
    mutating func changeKeys(_ change: (inout KeyLifecycle) throws(LifecycleError) -> Void) throws(TreeError)
        -> KeyLifecycle
    {
        let before = tree.keyring.lifecycle
        let prepared: PreparedLifecycle
        do throws(KeyringError) { prepared = try tree.keyring.prepare(change) } catch { throw .key(error) }
        let after = prepared.lifecycle
        put(RecordKey(.lifecycle), prepared.lifecycleBytes)
        self.prepared = prepared
        try wrapTreeKey(under: after.primary, as: prepared)
        if after.versions.contains(where: { $0.state == .destroyed && before.state(of: $0.version) != .destroyed }) {
            startErasing()
        }
        if after.minDecryption != before.minDecryption || after.versions.map(\.state) != before.versions.map(\.state) {
            haveJobsLookAgain()
        }
        return after
    }

    /// The tree key goes under the primary version, so that no older one is needed for names and attributes.
    mutating func wrapTreeKey(under primary: KEKVersion, as prepared: PreparedLifecycle? = nil) throws(TreeError) {
        let record = RecordKey(.treeKey)
        guard let value = try read(record, { $0.map { [UInt8]($0) } }) else {
            throw tree.tampered(record, .root, "is missing")
        }
        let isCurrent = value.withUnsafeBytes { value in
            value.count == Envelope.bareByteCount && Envelope.version(value) == primary
        }
        guard !isCurrent else { return }
        let (keyring, now) = (tree.keyring, now)
        do throws(KeyringError) {
            put(
                record,
                try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> [UInt8] in
                    try SecretTree.unwrapTreeKey(value, keyring, into: key)
                    return try SecretTree.wrapTreeKey(key.readOnly, keyring, as: prepared, now: now)
                })
        } catch { throw .key(error) }
    }
}

/// The tree key's record, shaped like an envelope of content 0.
extension SecretTree {
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
                        // A version that took two transactions to revoke may have left it under the revoked key.
                        forReencryption: true)
                }
            }
        }
        try result.get()
    }

    static func wrapTreeKey(
        _ key: UnsafeRawBufferPointer, _ keyring: UnlockedKeyring, as prepared: PreparedLifecycle? = nil,
        now: Timestamp
    ) throws(KeyringError) -> [UInt8] {
        var value = [UInt8](repeating: 0, count: Envelope.bareByteCount)
        let result = value.withUnsafeMutableBytes { value in
            Result { () throws(KeyringError) in
                let version = try Envelope.withContext(0, now) { context throws(KeyringError) in
                    try keyring.wrap(
                        BorrowedKey(key), context: context,
                        into: value.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount), as: prepared)
                }
                value.put(version.rawValue, at: 0)
                value.put(now, at: Envelope.createdPlace)
            }
        }
        try result.get()
        return value
    }
}
