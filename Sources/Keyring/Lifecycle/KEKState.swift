/// What a KEK version may be used for. The raw values are stored.
public enum KEKState: UInt8, Sendable, CaseIterable {
    /// Wraps and unwraps.
    case primary = 1
    /// Unwraps.
    case enabled = 2
    /// Unwraps; below `min_encryption_version`, so that it cannot become primary again.
    case decryptOnly = 3
    /// Nothing, until it is enabled.
    case disabled = 4
    /// Unwraps for re-encryption alone.
    case compromised = 5
    /// Nothing; erased at its deadline.
    case pendingDestruction = 6
    /// A tombstone: the key is gone.
    case destroyed = 7

    /// As control files and listings call it.
    public var name: String {
        switch self {
        case .primary: "primary"
        case .enabled: "enabled"
        case .decryptOnly: "decrypt-only"
        case .disabled: "disabled"
        case .compromised: "compromised"
        case .pendingDestruction: "pending-destruction"
        case .destroyed: "destroyed"
        }
    }

    /// Whether readers get what it guards.
    public var isReadable: Bool { self == .primary || self == .enabled || self == .decryptOnly }
}

/// What is known of one KEK version besides the key.
public struct KEKRecord: Sendable, Equatable {
    public let version: KEKVersion
    public let created: Timestamp
    public internal(set) var state: KEKState
    /// When it came into this state.
    public internal(set) var changed: Timestamp
    /// When it last stopped being primary, which `disable_after` and `destroy_after` count from; nil for the primary.
    public internal(set) var retired: Timestamp?
    /// Why it was compromised. What was compromised once is never enabled again.
    public internal(set) var reason: String?
    /// When its material is to be erased, or was.
    public internal(set) var destroyAt: Timestamp?
}

/// Why the state machine refuses.
public enum LifecycleError: Error, Sendable, Equatable {
    case noSuchVersion
    case isPrimary
    /// So many files still need the version.
    case filesRemain(Int)
    /// There is no such transition from this state, or deletion is not allowed.
    case notPermitted
    /// Out of range, or against the order of the minimums.
    case outOfRange
    /// Another version is the latest by now.
    case staleLatest
    /// The version is a tombstone: nothing can be done with it.
    case destroyed
}
