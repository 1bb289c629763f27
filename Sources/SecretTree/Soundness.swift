internal import Synchronization
internal import Threads

/// Whether a store is known to be what its root says it is. Nothing is changed before that: a change would be counted
/// into a sum that was not looked at.
final class Soundness: Sendable {
    private enum Verdict: Int {
        case sought, sound, unsound
    }

    private let verdict = Atomic(Verdict.sought.rawValue)
    private let monitor = Monitor()

    /// Waits until it is known.
    ///
    /// - Throws: `.tampered` if the store is not sound.
    func wait() throws(TreeError) {
        // Written once; after that nobody needs the lock.
        if verdict.load(ordering: .acquiring) == Verdict.sought.rawValue {
            monitor.locked {
                while verdict.load(ordering: .acquiring) == Verdict.sought.rawValue { monitor.wait() }
            }
        }
        guard verdict.load(ordering: .acquiring) == Verdict.sound.rawValue else { throw .tampered(.root) }
    }

    func end(isSound: Bool) {
        monitor.locked {
            verdict.store((isSound ? Verdict.sound : .unsound).rawValue, ordering: .releasing)
            monitor.wake()
        }
    }
}
