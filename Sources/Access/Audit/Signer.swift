internal import Sodium
internal import Synchronization
internal import Threads

/// The thread that signs, a moment after there is something to be signed.
final class Signer: @unchecked Sendable {
    private let monitor = Monitor()
    /// Changed within `monitor.locked` alone: most who want it want it already.
    private let isWanted = Atomic(false)
    // Touched within `monitor.locked` alone, once it has started.
    private var isRunning = false

    func start(_ work: @escaping @Sendable () -> Bool) {
        isRunning = true
        let started = SecretStack.startThread(byteCount: 256 << 10) { [self] in
            while awaitWork() {
                // A second's worth at a time; what fails is tried again after another one.
                sleepASecond()
                if !work() { wake() }
            }
        }
        if started != 0 { isRunning = false }
    }

    func wake() {
        guard !isWanted.load(ordering: .acquiring) else { return }
        monitor.locked {
            isWanted.store(true, ordering: .relaxed)
            monitor.wake()
        }
    }

    func stop() {
        monitor.locked {
            isRunning = false
            monitor.wake()
        }
    }

    private func awaitWork() -> Bool {
        monitor.locked {
            while !isWanted.load(ordering: .relaxed), isRunning { monitor.wait() }
            isWanted.store(false, ordering: .releasing)
            return isRunning
        }
    }

    private func sleepASecond() { _ = monitor.locked { monitor.wait(milliseconds: 1000) { !isRunning } } }
}
