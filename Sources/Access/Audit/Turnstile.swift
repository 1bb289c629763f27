internal import Threads

/// Lets one thread at a time through, and nobody wait for ever.
///
/// A device that does not answer keeps the one who is at it. A few others wait for it, and more than these for a moment
/// only: requests that need no record shall find a thread to serve them. Once one of the few has waited in vain nobody
/// waits at all until the device answers.
final class Turnstile: @unchecked Sendable {
    // Unchecked: touched within `monitor.locked` alone.
    private let monitor = Monitor()
    private var isTaken = false
    private var isStuck = false
    private var waiterCount = 0
    /// How many may wait long.
    private let waiterLimit: Int
    /// Milliseconds, of the few and of the others.
    private let patience: (long: Int, short: Int)

    init(waiterLimit: Int, patience: (long: Int, short: Int) = (5000, 1000)) {
        self.waiterLimit = waiterLimit
        self.patience = patience
    }

    /// Runs `body` when it is this thread's turn.
    ///
    /// - Returns: nil if its turn did not come.
    func pass<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R? {
        guard enter() else { return nil }
        defer { leave() }
        return try body()
    }

    private func enter() -> Bool {
        monitor.locked {
            guard isTaken else {
                isTaken = true
                return true
            }
            guard !isStuck else { return false }
            let isLong = waiterCount < waiterLimit
            waiterCount += 1
            defer { waiterCount -= 1 }
            _ = monitor.wait(milliseconds: isLong ? patience.long : patience.short) { !isTaken || isStuck }
            if isStuck { return false }
            if isTaken {
                if isLong {
                    isStuck = true
                    monitor.wake()
                }
                return false
            }
            isTaken = true
            return true
        }
    }

    private func leave() {
        monitor.locked {
            isTaken = false
            isStuck = false
            monitor.wakeOne()
        }
    }
}
