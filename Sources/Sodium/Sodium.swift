internal import CSodium

/// What can go wrong below the keys.
public enum SodiumError: Error, Equatable, Sendable {
    case outOfMemory
    /// The system does not let this process lock memory (RLIMIT_MEMLOCK).
    case cannotLock
    /// libsodium does not start: no randomness, most likely.
    case unavailable
    case parametersOutOfBounds
}

/// The library underneath. This room is the only one that knows it.
public enum Sodium {
    private static let isStarted = sodium_init() >= 0 && crypto_generichash_statebytes() <= Blake2b.stateByteCount

    /// Makes libsodium ready. Any number of times, from any thread.
    public static func start() throws(SodiumError) {
        guard isStarted else { throw .unavailable }
    }
}
