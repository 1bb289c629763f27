internal import Sodium
internal import Threads

/// A library whose calls may never return: each runs on a thread of its own, on a stack of secret memory, and is waited for only so long.
///
/// Such a library has one state for a whole process, so calls take turns. One that hangs keeps its turn, and all that it was given.
final class LibraryTurns: @unchecked Sendable {
    private let monitor = Monitor()
    // Guarded by the monitor.
    private var isTaken = false
    /// Calls are numbered in the order of their turns.
    private var started = 0
    private var returned = 0

    private static let stackByteCount = 1 << 20

    /// Runs `call` when it is its turn.
    ///
    /// - Parameter milliseconds: How long the turn is waited for, and the call.
    /// - Returns: False if it has not returned, or was not begun. It may still be running then: what it uses has to be its own.
    func run(milliseconds: Int, _ call: @escaping @Sendable () -> Void) -> Bool {
        let turn = monitor.locked { () -> Int? in
            guard monitor.wait(milliseconds: milliseconds, until: { !isTaken }) else { return nil }
            isTaken = true
            started += 1
            return started
        }
        guard let turn else { return false }
        let whole: @Sendable () -> Void = {
            call()
            self.end(turn)
        }
        // Without a thread it is done here: late rather than not at all.
        if SecretStack.startThread(byteCount: Self.stackByteCount, whole) != 0 { whole() }
        return monitor.locked { monitor.wait(milliseconds: milliseconds, until: { returned >= turn }) }
    }

    private func end(_ turn: Int) {
        monitor.locked {
            isTaken = false
            returned = turn
            monitor.wake()
        }
    }
}
