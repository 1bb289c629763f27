import Threads

/// Does what is due at its time: rotations, and the end of keys whose destruction was scheduled.
final class KeyClock: @unchecked Sendable {
    private let monitor = Monitor()
    // Touched within `monitor.locked` alone.
    private var isRunning = false
    private var isAsked = false

    /// Calls `tick` now and then, beginning at once: what came due while nobody served is done once.
    func start(_ tick: @escaping @Sendable () -> Void) {
        monitor.locked {
            guard !isRunning else { return }
            let result = startThread {
                repeat { tick() } while !self.hasStopped(within: ScheduleClock.interval)
            }
            isRunning = result == 0
        }
    }

    /// Has it tick now.
    func wake() {
        monitor.locked {
            isAsked = true
            monitor.wake()
        }
    }

    func stop() {
        monitor.locked {
            isRunning = false
            monitor.wake()
        }
    }

    private func hasStopped(within seconds: Double) -> Bool {
        monitor.locked {
            _ = monitor.wait(milliseconds: Int(seconds * 1000)) { !isRunning || isAsked }
            isAsked = false
            return !isRunning
        }
    }
}
