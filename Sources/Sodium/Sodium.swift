internal import CSodium
internal import Synchronization

/// What libsodium, or the memory it needs, refuses.
public enum SodiumError: Error, Sendable, Equatable {
    case outOfMemory
    /// RLIMIT_MEMLOCK does not let keys be kept out of swap.
    case cannotLock
    /// The library cannot be set up.
    case unavailable
    /// Password hashing parameters that are too weak, or more than this machine shall spend.
    case parametersOutOfBounds
}

/// The library as a whole.
public enum Sodium {
    /// Sets libsodium up; to be called before anything else of this module. Calling it again does nothing.
    public static func start() throws(SodiumError) {
        guard sodium_init() >= 0 else { throw .unavailable }
    }
}

/// Whether keys may lie in memory that can reach swap: policy for the whole process.
public enum LockedMemory {
    private static let unlocked = Atomic<Bool>(false)

    /// False by default: memory that cannot be locked is an error then.
    public static var allowsUnlocked: Bool {
        get { unlocked.load(ordering: .relaxed) }
        set { unlocked.store(newValue, ordering: .relaxed) }
    }

    /// Locks memory, or fails as the policy has it.
    static func lock(_ memory: UnsafeMutableRawPointer, _ byteCount: Int) throws(SodiumError) {
        guard sodium_mlock(memory, byteCount) == 0 || allowsUnlocked else { throw .cannotLock }
    }
}
