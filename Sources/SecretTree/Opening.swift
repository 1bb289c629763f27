public import Keyring
internal import Sodium
public import Storage
internal import Threads

/// Why a tree cannot be opened.
public enum TreeOpeningError: Error, Sendable {
    /// The store holds no keyring.
    case notAKeyring
    /// The store is older than it was seen to be: a backup or a copy was put in its place.
    case rolledBack(epoch: UInt64, seen: UInt64)
    /// What is wrong cannot be told apart from what is right, or is the keys' own record.
    case tampered([Problem])
    case key(KeyringError)
    case storage(StorageError)
}

extension SecretTree {
    /// The plaintext configuration, which unlocking begins with; nil if the store holds none.
    public static func configuration(of store: any RecordStore) throws(StorageError) -> [UInt8]? {
        try store.read(RecordKey(.configuration)) { $0.map { [UInt8]($0) } }
    }

    /// The sealed key lifecycle; nil if the store holds none.
    public static func lifecycle(of store: any RecordStore) throws(StorageError) -> [UInt8]? {
        try store.read(RecordKey(.lifecycle)) { $0.map { [UInt8]($0) } }
    }

    /// Both of them, which unlocking needs.
    ///
    /// - Throws: `.notAKeyring` if the store is empty, as an interrupted making leaves it; `.tampered` if a record is
    ///   gone that was there.
    public static func keyRecords(of store: any RecordStore) throws(TreeOpeningError)
        -> (configuration: [UInt8], lifecycle: [UInt8])
    {
        let configuration: [UInt8]?
        let lifecycle: [UInt8]?
        var isEmpty = true
        do {
            configuration = try self.configuration(of: store)
            lifecycle = try self.lifecycle(of: store)
            try store.scan(RecordKey.everything, prefix: 0) { _, _ in
                isEmpty = false
                return false
            }
        } catch { throw .storage(error) }
        if let configuration, let lifecycle { return (configuration, lifecycle) }
        guard !isEmpty else { throw .notAKeyring }
        let missing = RecordKey(configuration == nil ? .configuration : .lifecycle)
        throw .tampered([Problem(node: nil, description: "\(missing.name) is missing")])
    }

    /// Makes an empty tree in an empty store, which stays open: a root directory, 0700 and its owner's.
    public static func create(
        in store: any RecordStore, keyring: UnlockedKeyring, uid: UInt32, gid: UInt32, now: Timestamp
    ) throws(TreeOpeningError) {
        do {
            let value = try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> [UInt8] in
                Randomness.fill(key)
                return try wrapTreeKey(key.readOnly, keyring, now: now)
            }
            let tree = SecretTree(
                store: store, keyring: keyring, seals: try TreeSeals(value, keyring),
                state: TreeState(root: Root(), localizer: Localizer()), isReadOnly: false)
            tree.soundness.end(isSound: true)
            do {
                try tree.perform(now: now) { (transaction: inout Transaction) throws(TreeError) in
                    transaction.put(RecordKey(.configuration), keyring.configurationBytes)
                    transaction.put(RecordKey(.lifecycle), keyring.lifecycleBytes())
                    transaction.put(RecordKey(.treeKey), value)
                    transaction.set(.root(uid: uid, gid: gid, now: now))
                }
            } catch { throw TreeOpeningError(error) }
            tree.foldWithLocalizer()
            do throws(StorageError) {
                try store.fold()
                try store.sync()
            } catch { throw TreeOpeningError.storage(error) }
            // The fold's hook knows the tree weakly.
            withExtendedLifetime(tree) {}
        } catch let error as KeyringError {
            throw .key(error)
        } catch let error as TreeOpeningError {
            throw error
        } catch {
            throw .notAKeyring
        }
    }

    /// Opens a tree, and finds out whether the store is the one that was left: its sum over all records, its epoch.
    ///
    /// Records that were tampered with are named in `problems` and refused one by one; the others can be used.
    ///
    /// - Parameters:
    ///   - seenEpoch: The epoch remembered outside the store; nil to accept any.
    ///   - takesOver: A kernel knows nodes of this tree from an earlier server: those without a name stay until it
    ///     forgets them, and nothing is put in order before `startJobs`.
    ///   - whenUnsound: If given, the records are gone through while the tree is read already, as it was when the
    ///     server died whose place this one takes; changes wait. Told, by another thread, if the tree cannot be opened
    ///     after all, or is damaged: whoever serves it must end, and open it anew without this.
    public static func open(
        _ store: any RecordStore, keyring: UnlockedKeyring, readOnly: Bool, seenEpoch: UInt64?,
        takesOver: Bool = false, whenUnsound: (@Sendable (TreeOpeningError) -> Void)? = nil, now: Timestamp
    ) throws(TreeOpeningError) -> SecretTree {
        let treeKey: [UInt8]?
        do { treeKey = try store.read(RecordKey(.treeKey)) { $0.map { [UInt8]($0) } } } catch { throw .storage(error) }
        guard let treeKey else { throw .tampered([Problem(node: nil, description: "the tree key is missing")]) }
        let seals: TreeSeals
        do { seals = try TreeSeals(treeKey, keyring) } catch {
            if case .doesNotAuthenticate = error {
                throw .tampered([Problem(node: nil, description: "the tree key does not authenticate")])
            }
            throw .key(error)
        }
        let root = try readRoot(of: store, seals)
        if let seenEpoch, root.epoch < seenEpoch { throw .rolledBack(epoch: root.epoch, seen: seenEpoch) }
        let state = TreeState(root: root, localizer: Localizer())
        try Inspection.survey(store, seals, into: state)
        let tree = SecretTree(
            store: store, keyring: keyring, seals: seals, state: state, isReadOnly: readOnly, inheritsHolds: takesOver)
        if let whenUnsound, tree.inspectBeside(whenUnsound) { return tree }
        tree.take(try Inspection(of: store, seals, state.root))
        if !takesOver { try tree.putInOrder(now: now) }
        return tree
    }

    /// Has another thread inspect the store; false if there is none to be had.
    private func inspectBeside(_ whenUnsound: @escaping @Sendable (TreeOpeningError) -> Void) -> Bool {
        let work: @Sendable () -> Void = { self.inspect(whenUnsound) }
        return SecretStack.startThread(byteCount: Self.inspectionStackByteCount, work) == 0
    }

    private static let inspectionStackByteCount = 512 << 10

    private func inspect(_ whenUnsound: (TreeOpeningError) -> Void) {
        do throws(TreeOpeningError) {
            let found = try Inspection(of: store, seals, state.root)
            // Somebody may have read already what is not to be believed: the policy, for one.
            guard found.problems.isEmpty else { throw .tampered(found.problems) }
            take(found)
        } catch {
            // Before whoever waits goes on, and tells an application.
            whenUnsound(error)
            soundness.end(isSound: false)
        }
    }

    /// Makes the tree ready for changes.
    private func take(_ found: Inspection) {
        lock.writing {
            state.localizer = found.localizer
            state.suspects = found.suspects
            state.versionCounts = found.versionCounts
        }
        for problem in found.problems { report(problem) }
        if !isReadOnly {
            store.markBlocksUsed(found.blocks)
            store.finishMarking()
            foldWithLocalizer()
            store.startFolding()
        }
        soundness.end(isSound: true)
    }

    private static func readRoot(of store: any RecordStore, _ seals: TreeSeals) throws(TreeOpeningError) -> Root {
        let record = RecordKey(.root)
        enum Found {
            case absent, damaged
            case opened(Root)
        }
        let found: Found
        do {
            found = try store.read(record) { value in
                guard let value else { return .absent }
                return seals.root.open(record, value) { Root($0) }.map { .opened($0) } ?? .damaged
            }
        } catch { throw .storage(error) }
        switch found {
        case .opened(let root): return root
        case .absent: throw .tampered([Problem(node: nil, description: "the root record is missing")])
        case .damaged: throw .tampered([Problem(node: nil, description: "the root record does not authenticate")])
        }
    }

    /// Ends what an earlier process was at when it died.
    func putInOrder(now: Timestamp) throws(TreeOpeningError) {
        guard !isReadOnly else { return }
        do {
            for id in lock.reading({ inheritsHolds ? state.copies : state.orphans }) { try reap(id, now: now) }
            collectGarbage(now: now)
            // What an earlier version has left: it changed keys in two transactions.
            try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
                transaction.isAside = true
                try transaction.wrapTreeKey(under: keyring.lifecycle.primary)
            }
        } catch {
            // A full disk must not keep anyone from their secrets: what is left over is taken next time.
            guard case .full = error else { throw TreeOpeningError(error) }
        }
    }

    /// The localizer's record, as it stands now. Called by the store when it begins a fold.
    private func localizerRecord() -> [(RecordKey, [UInt8])] {
        let record = RecordKey(.localizer)
        let seal = state.localizerSeal ?? seals.root
        return [(record, seal.sealed(record, byteCount: Localizer.byteCount) { state.localizer.put(into: $0) })]
    }

    private func foldWithLocalizer() {
        store.setFoldHooks { [weak self] in self?.localizerRecord() ?? [] }
    }
}

extension TreeSeals {
    /// Derives every key of the tree; the tree key itself is not kept.
    init(_ treeKey: [UInt8], _ keyring: UnlockedKeyring) throws(KeyringError) {
        let store = keyring.storeID
        let root = try keyring.deriveKey(Labels.root)
        let freshness = try keyring.deriveKey(Labels.freshness)
        let (records, names, others) = try withScratchKey {
            (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> (SecretKey, SecretKey, SecretKey) in
            try SecretTree.unwrapTreeKey(treeKey, keyring, into: key)
            let none = UnsafeRawBufferPointer(start: nil, count: 0)
            do {
                return (
                    try Derivation.derive(Labels.record, context: none, from: BorrowedKey(key.readOnly)),
                    try Derivation.derive(Labels.names, context: none, from: BorrowedKey(key.readOnly)),
                    try Derivation.derive(Labels.others, context: none, from: BorrowedKey(key.readOnly))
                )
            } catch { throw .cannotLock }
        }
        self.records = RecordSeal(Labels.record, key: records, store: store)
        self.root = RecordSeal(Labels.root, key: root, store: store)
        self.freshness = FreshnessHash(key: freshness)
        self.names = names
        self.others = others
        self.store = store
    }
}

extension NodeRecord {
    static func root(uid: UInt32, gid: UInt32, now: Timestamp) -> NodeRecord {
        NodeRecord(
            NodeAttributes(
                id: .root, type: .directory, permissions: 0o700, uid: uid, gid: gid, linkCount: 2, size: 0,
                storedByteCount: 0, device: 0, accessTime: now, modificationTime: now, statusChangeTime: now,
                birthTime: now, valueChanged: now, needsRegeneration: false, content: 0, parent: .root))
    }
}

extension TreeOpeningError {
    init(_ error: TreeError) {
        switch error {
        case .key(let error): self = .key(error)
        case .full: self = .storage(.full)
        case .readOnly: self = .storage(.readOnly)
        case .tampered(let id):
            self = .tampered([Problem(node: id, description: "inode \(id.rawValue) does not authenticate")])
        case .storage(let description): self = .storage(.io(5, description))
        default: self = .notAKeyring
        }
    }
}
