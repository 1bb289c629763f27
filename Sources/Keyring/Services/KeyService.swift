public import Sodium

/// What a sealed key belongs to: bound into its slot, and told to every service that can bind it itself.
public struct SlotContext: Sendable, Equatable {
    /// What the sealed key is for. The raw values are stored, in a service's context too.
    public enum Purpose: String, Sendable, CaseIterable {
        case rootKey = "root-key"
        /// The key of one slot, which opens the root key by the slot's link.
        case slotKey = "slot-key"
        case backup = "backup"
    }

    public let store: StoreID
    /// The keyring's name.
    public let keyring: String
    public let purpose: Purpose

    public init(store: StoreID, keyring: String, purpose: Purpose) {
        self.store = store
        self.keyring = keyring
        self.purpose = purpose
    }
}

/// What seals the keys of slots: called when a keyring is made or opened, never on the way of a read.
///
/// A call may take as long as a network does, 15 s at most, and holds no lock.
public protocol KeyService: Sendable {
    var kind: KeySlotKind { get }

    /// False for what can seal and not open: a public key whose other half is elsewhere.
    var canUnseal: Bool { get }

    /// Whether the slot is one of this service's. Asks nobody, and believes nothing that the slot says of itself.
    func opens(_ slot: KeySlot) -> Bool

    /// Seals a key, bound to the context.
    func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot

    /// Opens a slot that `opens` takes for its own.
    ///
    /// - Throws: `.wrongSecret` if it does not open with what this service holds, or in this context.
    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey

    /// The slot, sealed by the newest version of the service's own key; nil if it is, or if there are no versions.
    func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot?
}

extension KeyService {
    public var canUnseal: Bool { true }
    public func opens(_ slot: KeySlot) -> Bool { slot.kind == kind }
    public func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? { nil }
}
