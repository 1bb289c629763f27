import Keyring
import SecretTree

/// A row of the ledger: an open handle, or an old value that somebody is still reading.
///
///     0 kind 1 | 1 stage 1 | 2 marks 2 | 4 generation 4 | 8 handle 8 | 16 node 8 | 24 shadow 8 | 32 commit epoch 8
///     40 modification time 12 | 52 opener 4 | 56 opening request 8 | 64 writer 4 | 68 policy 4 | 72 reserved
struct LedgerCell: @unchecked Sendable {
    // The memory is the owner's of the handle, under the lock of whoever changes it.
    static let byteCount = 128

    enum Kind: UInt8 { case free, writer, reader, snapshot }
    /// How far the value is that a writer gathers.
    enum Stage: UInt8 { case none, untouched, gathering }

    struct Marks: OptionSet {
        var rawValue: UInt16
        static let fresh = Marks(rawValue: 1)
        static let active = Marks(rawValue: 2)
        static let cached = Marks(rawValue: 4)
        static let clearsSetID = Marks(rawValue: 8)
        static let unsettled = Marks(rawValue: 16)
        static let wasKilled = Marks(rawValue: 32)
        static let hasTime = Marks(rawValue: 64)
        /// The commit under way leaves the old value at the shadow.
        static let keepsOld = Marks(rawValue: 128)
        /// A write has failed that was not tried again.
        static let hasFailed = Marks(rawValue: 256)
    }

    let base: UnsafeMutableRawPointer
    let index: Int

    init(base: UnsafeMutableRawPointer, index: Int = 0) {
        self.base = base
        self.index = index
    }

    private func get<T: FixedWidthInteger>(_ place: Int) -> T { base.load(fromByteOffset: place, as: T.self) }
    private func set<T: FixedWidthInteger>(_ value: T, _ place: Int) {
        base.storeBytes(of: value, toByteOffset: place, as: T.self)
    }

    var kind: Kind {
        get { Kind(rawValue: get(0)) ?? .free }
        nonmutating set { set(newValue.rawValue, 0) }
    }
    var stage: Stage {
        get { Stage(rawValue: get(1)) ?? .none }
        nonmutating set { set(newValue.rawValue, 1) }
    }
    var marks: Marks {
        get { Marks(rawValue: get(2)) }
        nonmutating set { set(newValue.rawValue, 2) }
    }
    var generation: UInt32 {
        get { get(4) }
        nonmutating set { set(newValue, 4) }
    }
    var handle: UInt64 {
        get { get(8) }
        nonmutating set { set(newValue, 8) }
    }
    var node: NodeID {
        get { NodeID(rawValue: get(16)) }
        nonmutating set { set(newValue.rawValue, 16) }
    }
    var shadow: NodeID {
        get { NodeID(rawValue: get(24)) }
        nonmutating set { set(newValue.rawValue, 24) }
    }
    /// The epoch that the commit of the session's value makes; 0 before it.
    var commitEpoch: UInt64 {
        get { get(32) }
        nonmutating set { set(newValue, 32) }
    }
    var modificationTime: Timestamp {
        get { Timestamp(seconds: get(40), nanoseconds: get(48)) }
        nonmutating set {
            set(newValue.seconds, 40)
            set(newValue.nanoseconds, 48)
        }
    }
    var opener: Int32 {
        get { get(52) }
        nonmutating set { set(newValue, 52) }
    }
    /// The request that opened it.
    var opening: UInt64 {
        get { get(56) }
        nonmutating set { set(newValue, 56) }
    }
    /// The thread that wrote last.
    var writer: Int32 {
        get { get(64) }
        nonmutating set { set(newValue, 64) }
    }

    /// The generation of the policy that let it pass.
    var policy: UInt32 {
        get { get(68) }
        nonmutating set { set(newValue, 68) }
    }

    func clear() {
        // The kind first: half a row is none.
        kind = .free
        UnsafeMutableRawBufferPointer(start: base, count: Self.byteCount).initializeMemory(as: UInt8.self, repeating: 0)
    }
}
