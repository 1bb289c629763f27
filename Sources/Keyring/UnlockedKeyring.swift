public import Sodium
internal import Synchronization

/// A keyring that is open: its KEK versions, and what may be done with each.
///
/// Thread-safe. A change is made in two steps, so that it can be stored before it takes effect.
public final class UnlockedKeyring: Sendable {
    public let storeID: StoreID
    public let name: String
    public let created: Timestamp
    /// Which history of the store this is; nil for the one that began with its making, another after a restore.
    public let lineage: StoreID?
    /// What this history of this store is remembered by, outside of it.
    public var historyName: String { configuration.historyName }
    /// The names of the services that open it, a slot each.
    public let keyServices: [String]
    /// The record to store; plaintext without secrets, authenticated.
    public let configurationBytes: [UInt8]

    let coding: LifecycleCoding
    let configuration: Configuration
    let rootKey: SecretKey
    private let seal: LifecycleSeal
    private let current: Mutex<KeyState>
    private let everythingIsReadable: Atomic<Bool>

    init(
        _ configuration: Configuration, _ bytes: [UInt8], _ rootKey: SecretKey, _ state: KeyState
    ) throws(KeyringError) {
        storeID = configuration.storeID
        name = configuration.name
        created = configuration.created
        lineage = configuration.lineage
        keyServices = configuration.slots.map(\.label)
        configurationBytes = bytes
        self.configuration = configuration
        self.rootKey = rootKey
        coding = LifecycleCoding(storeID: configuration.storeID, key: try rootKey.derived("letterlock keks 1"))
        seal = LifecycleSeal(storeID: configuration.storeID, key: try rootKey.derived("letterlock lifecycle 1"))
        everythingIsReadable = Atomic(state.lifecycle.isEverythingReadable)
        current = Mutex(state)
    }

    /// A new keyring: a root key that `service` opens, and each of `recovery` as well; KEK version 1.
    public static func create(
        name: String, service: any KeyService, recovery: [any KeyService] = [], now: Timestamp
    ) throws(KeyringError) -> UnlockedKeyring {
        guard name.utf8.count <= Configuration.nameLimit else { throw .damaged("the name is too long") }
        let rootKey = try random()
        var configuration = Configuration(storeID: .random(), name: name, created: now, slots: [])
        for service in [service] + recovery {
            configuration.slots.append(try configuration.slot(of: service, for: rootKey))
        }
        return try UnlockedKeyring(
            configuration, configuration.encoded(authenticatedBy: rootKey), rootKey,
            KeyState(lifecycle: KeyLifecycle(now: now), keys: [.first: try random()]))
    }

    /// Opens a keyring from its two records.
    ///
    /// - Throws: `.wrongSecret` if no slot of the service's kind opens.
    public static func unlock(
        configuration bytes: UnsafeRawBufferPointer, lifecycle: UnsafeRawBufferPointer, with service: any KeyService
    ) throws(KeyringError) -> UnlockedKeyring {
        try UnlockedRoot(configuration: bytes, with: service).keyring(lifecycle)
    }

    /// Opens a keyring with its root key, as another process that had it open has left it.
    ///
    /// - Throws: `.wrongSecret` if there is none.
    public static func unlock(
        configuration bytes: UnsafeRawBufferPointer, lifecycle: UnsafeRawBufferPointer, with shared: SharedKey
    ) throws(KeyringError) -> UnlockedKeyring {
        let configuration = try Configuration(bytes)
        let found: SecretKey?
        do { found = try shared.key() } catch { throw .cannotLock }
        guard let rootKey = found else { throw .wrongSecret }
        return try unlock(configuration, bytes, lifecycle, rootKey)
    }

    /// Hands the root key to whoever else has `shared`: with it and the store they can open the keyring.
    public func share(_ shared: SharedKey) { shared.put(rootKey) }

    static func unlock(
        _ configuration: Configuration, _ bytes: UnsafeRawBufferPointer, _ lifecycle: UnsafeRawBufferPointer,
        _ rootKey: SecretKey
    ) throws(KeyringError) -> UnlockedKeyring {
        try Configuration.authenticate(bytes, rootKey)
        let storeID = configuration.storeID
        let seal = LifecycleSeal(storeID: storeID, key: try rootKey.derived("letterlock lifecycle 1"))
        let (lifecycle, keys) = try seal.open(
            lifecycle, LifecycleCoding(storeID: storeID, key: try rootKey.derived("letterlock keks 1")))
        return try UnlockedKeyring(
            configuration, [UInt8](bytes), rootKey, KeyState(lifecycle: lifecycle, keys: keys))
    }

    static func random() throws(KeyringError) -> SecretKey {
        do { return try SecretKey.random() } catch { throw .cannotLock }
    }

    // MARK: State

    public var lifecycle: KeyLifecycle { current.withLock { $0.lifecycle } }

    /// True if no version refuses to unwrap: one atomic load, for the way of every read.
    public var isEverythingReadable: Bool { everythingIsReadable.load(ordering: .acquiring) }

    /// The lifecycle's record as it is now, to store; sealed.
    public func lifecycleBytes() -> [UInt8] {
        let state = current.withLock { $0 }
        return seal.seal(coding.encode(state.lifecycle, state.keys))
    }

    /// A change of the lifecycle, with the keys that it makes and ends. Nothing takes effect before `commit`.
    public func prepare(_ change: (inout KeyLifecycle) throws(LifecycleError) -> Void) throws(KeyringError)
        -> PreparedLifecycle
    {
        var state = current.withLock { $0 }
        do { try change(&state.lifecycle) } catch { throw .lifecycle(error) }
        for record in state.lifecycle.versions {
            if record.state == .destroyed {
                state.keys[record.version] = nil
            } else if state.keys[record.version] == nil {
                state.keys[record.version] = try Self.random()
            }
        }
        return PreparedLifecycle(
            state: state, lifecycleBytes: seal.seal(coding.encode(state.lifecycle, state.keys)))
    }

    /// Makes a prepared change the current one. A destroyed key is wiped when the last one who is using it is done.
    public func commit(_ prepared: PreparedLifecycle) {
        current.withLock { $0 = prepared.state }
        everythingIsReadable.store(prepared.state.lifecycle.isEverythingReadable, ordering: .releasing)
    }

    /// A subkey of the root key, for one purpose of the tree's.
    public func deriveKey(_ label: StaticString) throws(KeyringError) -> SecretKey { try rootKey.derived(label) }

    /// The primary version and its key, now or when a change will have taken effect.
    func primaryKey(as prepared: PreparedLifecycle?) throws(KeyringError) -> (KEKVersion, SecretKey) {
        let (version, key) = prepared?.state.primary ?? current.withLock { $0.primary }
        guard let key else { throw .noSuchVersion }
        return (version, key)
    }

    /// The key of a version that may unwrap.
    func key(_ version: KEKVersion, forReencryption: Bool) throws(KeyringError) -> SecretKey {
        let (refusal, key) = current.withLock { state in
            (state.lifecycle.refusal(of: version, forReencryption: forReencryption), state.keys[version])
        }
        if let refusal { throw refusal }
        guard let key else { throw .noSuchVersion }
        return key
    }

    /// Whether a version may unwrap for a reader.
    ///
    /// - Throws: `.noSuchVersion`, `.revoked`, `.destroyed` or `.expired`.
    public func check(_ version: KEKVersion) throws(KeyringError) {
        if let refusal = current.withLock({ $0.lifecycle.refusal(of: version) }) { throw refusal }
    }
}

/// The states of all versions and their keys.
struct KeyState: Sendable {
    var lifecycle: KeyLifecycle
    var keys: [KEKVersion: SecretKey]

    var primary: (KEKVersion, SecretKey?) { (lifecycle.primary, keys[lifecycle.primary]) }
}

/// A change that is made and has not taken effect.
public final class PreparedLifecycle: Sendable {
    let state: KeyState
    /// What the lifecycle will be.
    public var lifecycle: KeyLifecycle { state.lifecycle }
    /// The record to store before `commit`.
    public let lifecycleBytes: [UInt8]

    init(state: KeyState, lifecycleBytes: [UInt8]) {
        self.state = state
        self.lifecycleBytes = lifecycleBytes
    }
}

/// The lifecycle's record: `tag 16 | nonce 24 | ciphertext`.
struct LifecycleSeal: Sendable {
    let storeID: StoreID
    let key: SecretKey
    private static let overhead = Seal.tagByteCount + Seal.nonceByteCount

    func seal(_ plaintext: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: Self.overhead + plaintext.count) { buffer, count in
            let value = UnsafeMutableRawBufferPointer(buffer)
            let nonce = UnsafeMutableRawBufferPointer(rebasing: value[16..<40])
            Randomness.nonce(into: nonce)
            plaintext.withUnsafeBytes { plaintext in
                withBinding { data in
                    key.withKey { key in
                        Seal.seal(
                            plaintext,
                            into: UnsafeMutableRawBufferPointer(rebasing: value[40..<40 + plaintext.count]),
                            tag: UnsafeMutableRawBufferPointer(rebasing: value[0..<16]),
                            nonce: UnsafeRawBufferPointer(nonce), associatedData: data, key: key)
                    }
                }
            }
            count = Self.overhead + plaintext.count
        }
    }

    func open(_ value: UnsafeRawBufferPointer, _ coding: LifecycleCoding) throws(KeyringError)
        -> (KeyLifecycle, [KEKVersion: SecretKey])
    {
        guard value.count >= Self.overhead else { throw .damaged("the key lifecycle is too short") }
        let plaintext = ScratchBuffer(byteCount: value.count - Self.overhead)
        let isOpen = withBinding { data in
            key.withKey { key in
                Seal.open(
                    UnsafeRawBufferPointer(rebasing: value[40...]),
                    tag: UnsafeRawBufferPointer(rebasing: value[0..<16]),
                    nonce: UnsafeRawBufferPointer(rebasing: value[16..<40]), associatedData: data,
                    into: plaintext.bytes, key: key)
            }
        }
        guard isOpen else { throw .damaged("the key lifecycle does not authenticate") }
        return try coding.decode(UnsafeRawBufferPointer(plaintext.bytes))
    }

    private func withBinding<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R {
        storeID.withUnsafeBytes { withAssociatedData("letterlock lifecycle 1", [$0], body) }
    }
}
