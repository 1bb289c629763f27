import Glibc
import Keyring
import SecretTree
import Sodium
import Storage

/// A keyring that is open: its store, its keys, and its tree.
struct OpenKeyring {
    let store: JournaledStore
    let keyring: UnlockedKeyring
    let tree: SecretTree
    let memory: EpochMemory
    /// What its administrator should know although it opened.
    var warnings: [String] = []
}

/// The way from a directory to an open keyring.
enum StoreOpening {
    /// What opens the keyring.
    enum Key {
        case service(any KeyService)
        /// As it is asked for, when the store is open.
        case source(KeySource)
        /// The key that another process that has the keyring open has left.
        case shared(SharedKey)
    }

    /// Opens the store in the directory `path`.
    ///
    /// - Parameters:
    ///   - purpose: What the lock file says of this process: `mounted at …`.
    ///   - acceptsRollback: An older copy than was seen before is taken, with a warning.
    ///   - takesOver: A kernel knows the tree from an earlier server.
    ///   - whenUnsound: If given, the store is looked at while it is read already, as its last server left it; told if
    ///     it cannot be trusted.
    ///   - inheritedLock: The store's lock, which another process has for both.
    static func open(
        _ path: String, key: Key, readOnly: Bool, purpose: String, acceptsRollback: Bool, takesOver: Bool = false,
        whenUnsound: (@Sendable (Failure) -> Void)? = nil, inheritedLock: Int32? = nil
    ) throws(Failure) -> OpenKeyring {
        let store: JournaledStore
        do {
            store = try JournaledStore.open(
                at: path, readOnly: readOnly, purpose: purpose, inheritedLock: inheritedLock)
        } catch {
            throw Messages.failure(error, store: path)
        }
        do {
            return try open(store, key, readOnly: readOnly, acceptsRollback, takesOver, whenUnsound)
        } catch {
            if inheritedLock != nil { store.leaveLock() }
            try? store.close()
            throw (error as? Failure) ?? Messages.failure(for: error)
        }
    }

    private static func open(
        _ store: JournaledStore, _ key: Key, readOnly: Bool, _ acceptsRollback: Bool, _ takesOver: Bool,
        _ whenUnsound: (@Sendable (Failure) -> Void)?
    ) throws -> OpenKeyring {
        let (configuration, lifecycle) = try SecretTree.keyRecords(of: store)
        let keyring = try configuration.withUnsafeBytes { configuration in
            try lifecycle.withUnsafeBytes { lifecycle in
                switch key {
                case .service(let service):
                    try UnlockedKeyring.unlock(configuration: configuration, lifecycle: lifecycle, with: service)
                case .source(let source):
                    try UnlockedKeyring.unlock(
                        configuration: configuration, lifecycle: lifecycle, with: try source.service())
                case .shared(let shared):
                    try UnlockedKeyring.unlock(configuration: configuration, lifecycle: lifecycle, with: shared)
                }
            }
        }
        let memory = EpochMemory(of: keyring)
        var warnings: [String] = []
        let seen = try recall(memory, acceptsRollback, &warnings)
        var isUnsound: (@Sendable (TreeOpeningError) -> Void)?
        if let whenUnsound { isUnsound = { whenUnsound(Messages.failure(for: $0)) } }
        let tree = try SecretTree.open(
            store, keyring: keyring, readOnly: readOnly, seenEpoch: acceptsRollback ? nil : seen, takesOver: takesOver,
            whenUnsound: isUnsound, now: .now())
        if let seen, tree.epoch < seen {
            warnings.append(
                "this copy of the store (epoch \(tree.epoch)) is older than was seen before (\(seen)); taken as asked"
            )
        }
        if whenUnsound == nil, let first = tree.problems.first {
            warnings.append(
                "the store is damaged or was tampered with (\(first.description)); what is touched cannot be read"
            )
        }
        return OpenKeyring(store: store, keyring: keyring, tree: tree, memory: memory, warnings: warnings)
    }

    private static func recall(_ memory: EpochMemory, _ acceptsRollback: Bool, _ warnings: inout [String])
        throws(Failure) -> UInt64?
    {
        do {
            return try memory.seen()
        } catch {
            switch error {
            case .malformed(let path):
                guard !acceptsRollback else { return nil }
                throw Failure(
                    "\(path) does not hold an epoch, so an older copy of the store would not be noticed",
                    hint: "if the store is the right one, mount it once with --accept-rollback",
                    code: .integrity)
            case .unreadable(let path, let number), .unwritable(let path, let number):
                warnings.append(
                    "\(path): \(SystemError.text(number)); an older copy of the store would not be noticed")
                return nil
            }
        }
    }
}
