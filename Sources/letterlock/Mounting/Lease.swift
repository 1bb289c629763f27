import Keyring
import SecretFS
import Synchronization

/// For how long keys that a key service has unsealed may be used: then it is asked again.
///
/// If it says no, the keyring is locked. If it says nothing, that is borne for a time of grace, in which it is asked again and again, and
/// the keyring is locked at its end.
final class Lease: Sendable {
    /// Seconds from one asking to the next, and after that until it is locked.
    let length: Int64
    let grace: Int64
    /// When it was granted last is on the board: no successor begins a new one.
    private let board: Board
    /// Why it was not granted when it should have been; nil while it is granted.
    private let trouble = Mutex<String?>(nil)

    static let usualGrace: Int64 = 15 * 60
    /// Between two looks (seconds): a machine that slept wakes up to an old lease.
    var longestPause: Int64 { min(10, length) }

    /// Nil if the mount has none.
    init?(_ options: MountOptions, _ board: Board) {
        guard let length = options.lease else { return nil }
        self.length = length
        grace = options.leaseGrace ?? Self.usualGrace
        self.board = board
    }

    /// The service has just unsealed.
    func begin() {
        board.leaseBegin = ScheduleClock.now.boot
        trouble.withLock { $0 = nil }
    }

    /// The service could not be asked.
    func note(_ why: String) { trouble.withLock { $0 = why } }

    /// Negative in the time of grace.
    private var secondsLeft: Int64 { board.leaseBegin + length - ScheduleClock.now.boot }

    var isOver: Bool { secondsLeft <= 0 }
    /// With its time of grace.
    var hasEnded: Bool { secondsLeft <= -grace }

    /// Seconds until there is something to do.
    var pause: Int64 {
        let left = secondsLeft
        return max(1, min(longestPause, left > 0 ? left : min(grace / 10, grace + left)))
    }

    var report: SecretFSOptions.LeaseReport {
        SecretFSOptions.LeaseReport(
            length: length, grace: grace, secondsLeft: secondsLeft, trouble: trouble.withLock { $0 })
    }
}

/// What a key service says when it is asked once more.
enum LeaseAnswer {
    case granted
    /// By the service itself, or by what it gives: this keyring is not to be opened any more.
    case refused(String)
    case unanswered(String)

    init(_ error: KeyringError) {
        let why = Messages.failure(error).message
        switch error {
        case .wrongSecret, .noMatchingSlot: self = .refused(why)
        case .service(let fault):
            switch fault.reason {
            case .denied, .keyDisabled, .keyMissing: self = .refused(why)
            case .unreachable, .timedOut, .keyInUse, .misconfigured, .malformedAddress, .malformedAnswer:
                self = .unanswered(why)
            }
        default: self = .unanswered(why)
        }
    }
}
