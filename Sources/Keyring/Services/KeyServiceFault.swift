internal import Glibc

/// Why a key service did not do what it was asked for.
public struct KeyServiceFault: Sendable, Equatable {
    public enum Reason: Sendable, Equatable {
        /// No connection, a sealed or failing service, a certificate that is not believed.
        case unreachable
        case timedOut
        /// The token, PIN or access key is wrong, expired, or may not do this.
        case denied
        /// The service's key is disabled, or waits for its deletion.
        case keyDisabled
        case keyMissing
        /// Another keyring is sealed by this key already.
        case keyInUse
        /// What is needed to ask at all is missing or makes no sense: a token, a library, an option.
        case misconfigured
        /// What names the service, or its key, names none.
        case malformedAddress
        /// An answer that is none.
        case malformedAnswer

        /// How control files and audit records tell it (INTERFACE, section 3).
        public var errno: Int32 {
            switch self {
            case .unreachable, .malformedAnswer, .misconfigured: EHOSTUNREACH
            case .malformedAddress: EINVAL
            case .timedOut: ETIMEDOUT
            case .denied: EKEYREJECTED
            case .keyDisabled: EKEYREVOKED
            case .keyMissing: ENOKEY
            case .keyInUse: EEXIST
            }
        }
    }

    public let reason: Reason
    /// Lower case, no full stop, never a secret.
    public let message: String
    public let hint: String?

    public init(_ reason: Reason, _ message: String, hint: String? = nil) {
        self.reason = reason
        self.message = message
        self.hint = hint
    }
}
