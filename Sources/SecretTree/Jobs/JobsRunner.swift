internal import CLinux
internal import Glibc
internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// The thread that carries jobs on, a batch at a time.
final class JobsRunner: @unchecked Sendable {
    /// What is to be done after a batch.
    enum Step: Equatable {
        case again
        /// Nothing, until it is woken or so many milliseconds have passed; nil for no such time.
        case wait(Int?)
    }

    private static let stackByteCount = 512 << 10
    private let monitor = Monitor()
    // Touched within `monitor.locked` alone.
    private var isAwake = false
    private var stops = false
    private var isRunning = false
    private var step: (() -> Step)?
    private var helper: Companion?
    /// What jobs wait for, and how long (milliseconds since boot).
    private var obstacles: [JobKind: (what: String, until: Int)] = [:]

    deinit { helper?.end() }

    /// Calls `step` until it answers that there is nothing to do, and again whenever it is woken.
    func start(_ step: @escaping () -> Step) {
        monitor.locked {
            guard !isRunning, !stops else { return }
            self.step = step
            isAwake = true
            isRunning = SecretStack.startThread(byteCount: Self.stackByteCount) { self.run() } == 0
        }
    }

    func wake() {
        monitor.locked {
            isAwake = true
            monitor.wake()
        }
    }

    /// True once `stop` was called: a long batch ends early.
    var isStopping: Bool { monitor.locked { stops } }

    /// Ends the thread after the batch that it is at.
    func stop() {
        monitor.locked {
            stops = true
            monitor.wake()
            while isRunning { monitor.wait() }
            step = nil
            endCompanion()
        }
    }

    /// A second thread for those who carry jobs on, which is there until there is nothing to do.
    var companion: Companion {
        monitor.locked {
            let known = helper ?? Companion()
            helper = known
            return known
        }
    }

    private func endCompanion() {
        helper?.end()
        helper = nil
    }

    private func run() {
        ll_give_way()
        var wanted = Step.wait(nil)
        while let step = next(after: wanted) {
            wanted = step()
            // Whoever waits for the tree's lock gets it between two batches.
            sched_yield()
        }
        monitor.locked {
            isRunning = false
            monitor.wake()
        }
    }

    private func next(after wanted: Step) -> (() -> Step)? {
        monitor.locked {
            if case .wait(let milliseconds) = wanted {
                endCompanion()
                if let milliseconds {
                    _ = monitor.wait(milliseconds: milliseconds) { isAwake || stops }
                } else {
                    while !isAwake, !stops { monitor.wait() }
                }
            }
            isAwake = false
            return stops ? nil : step
        }
    }

    // MARK: Obstacles

    /// A job cannot go on just now: it is tried again after so many milliseconds.
    func hold(_ kind: JobKind, _ what: String, milliseconds: Int) {
        monitor.locked { obstacles[kind] = (what, Self.now + milliseconds) }
    }

    func goOn(_ kind: JobKind) { monitor.locked { obstacles[kind] = nil } }

    func obstacle(of kind: JobKind) -> String? { monitor.locked { obstacles[kind]?.what } }

    /// Milliseconds until a job is to be tried again; 0 for now.
    func delay(of kind: JobKind) -> Int { monitor.locked { obstacles[kind].map { max(0, $0.until - Self.now) } ?? 0 } }

    private static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }
}
