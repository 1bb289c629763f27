public import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Changing what opens the keyring. Each is one transaction: a crash leaves the old or the new.
extension SecretTree {
    /// Stores a configuration that the keyring has made of its own: another slot, another lineage. The keys stay.
    ///
    /// This value goes on with the keyring that it was opened with.
    public func replaceConfiguration(_ configuration: [UInt8], now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            transaction.put(RecordKey(.configuration), configuration)
        }
    }

    /// Puts the store under another root key. Contents and names are not touched; every record's part of the root's sum is
    /// computed anew, in one pass over their heads.
    ///
    /// What is being served cannot be moved: the tree may only be closed afterwards.
    ///
    /// - Parameter successor: The same keyring under the other root key, with this one's KEK versions and perhaps more.
    /// - Throws: `.tampered` if the store is not what it should be, which a new sum would hide.
    public func rekey(to successor: UnlockedKeyring, now: Timestamp) throws(TreeError) {
        guard !isReadOnly else { throw .readOnly }
        try soundness.wait()
        try changing.locked { () throws(TreeError) in
            try lock.writing { () throws(TreeError) in try putUnder(successor, now) }
        }
        do throws(StorageError) {
            // The localizer follows with the fold. What the old root key opens is to be found nowhere in the store's files.
            try store.fold()
            try store.eraseRemains()
            try store.sync()
        } catch { throw TreeError(error) }
    }

    /// With the tree's lock held for writing.
    private func putUnder(_ successor: UnlockedKeyring, _ now: Timestamp) throws(TreeError) {
        guard state.suspects.isEmpty else { throw .tampered(.root) }
        let record = RecordKey(.treeKey)
        guard let old = try read(record, { $0.map { [UInt8]($0) } }) else {
            throw tampered(record, .root, "is missing")
        }
        let next: TreeSeals
        let treeKey: [UInt8]
        do throws(KeyringError) {
            treeKey = try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> [UInt8] in
                try Self.unwrapTreeKey(old, keyring, into: key)
                return try Self.wrapTreeKey(key.readOnly, successor, now: now)
            }
            next = try TreeSeals(treeKey, successor)
        } catch { throw .key(error) }
        try commit(
            [
                RecordKey(.configuration): successor.configurationBytes,
                RecordKey(.lifecycle): successor.lifecycleBytes(), record: treeKey,
            ], under: next)
    }

    /// With the tree's lock held for writing.
    private func commit(_ changes: [RecordKey: [UInt8]], under next: TreeSeals) throws(TreeError) {
        var root = state.root
        root.epoch += 1
        root.sum = HashSum()
        root.recordCount = 0
        var localizer = Localizer()
        func count(_ record: RecordKey, _ value: UnsafeRawBufferPointer) {
            let element = next.freshness.element(record, value: value)
            root.sum += element
            root.recordCount += 1
            localizer.add(record, element)
        }
        do throws(StorageError) {
            try store.scan(RecordKey.everything, prefix: RecordKind.longestHeadByteCount) { record, value in
                let isCounted = RecordKind(rawValue: record.kind)?.isCounted != false
                if isCounted, changes[record] == nil { count(record, value) }
                return true
            }
            var batch = RecordBatch()
            for (record, value) in changes {
                value.withUnsafeBytes { count(record, $0) }
                batch.put(record, value)
            }
            let rootKey = RecordKey(.root)
            batch.put(rootKey, next.root.sealed(rootKey, byteCount: Root.byteCount) { root.put(into: $0) })
            try store.commit(batch) {
                state.localizer = localizer
                state.localizerSeal = next.root
            }
        } catch { throw TreeError(error) }
        state.root = root
    }
}
