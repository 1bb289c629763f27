internal import Glibc
internal import Keyring
internal import Sodium
internal import Storage

/// The thread that carries jobs on, a batch at a time.
final class JobsRunner: @unchecked Sendable {
    /// What is to be done after a batch.
    enum Step: Equatable {
        case again
        /// Nothing, until it is woken or so many milliseconds have passed; nil for no such time.
        case wait(Int?)
    }

    private static let stackByteCount = 512 << 10
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    // Guarded by `mutex`.
    private var isAwake = false
    private var stops = false
    private var isRunning = false
    private var step: (() -> Step)?
    /// What jobs wait for, and how long (milliseconds since boot).
    private var obstacles: [JobKind: (what: String, until: Int)] = [:]

    init() {
        condition = .allocate(capacity: 1)
        mutex = .allocate(capacity: 1)
        pthread_mutex_init(mutex, nil)
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Calls `step` until it answers that there is nothing to do, and again whenever it is woken.
    func start(_ step: @escaping () -> Step) {
        locked {
            guard !isRunning, !stops else { return }
            self.step = step
            isAwake = true
            isRunning = SecretStack.startThread(byteCount: Self.stackByteCount) { self.run() } == 0
        }
    }

    func wake() {
        locked {
            isAwake = true
            pthread_cond_broadcast(condition)
        }
    }

    /// True once `stop` was called: a long batch ends early.
    var isStopping: Bool { locked { stops } }

    /// Ends the thread after the batch that it is at.
    func stop() {
        locked {
            stops = true
            pthread_cond_broadcast(condition)
            while isRunning { pthread_cond_wait(condition, mutex) }
            step = nil
        }
    }

    private func run() {
        var wanted = Step.wait(nil)
        while let step = next(after: wanted) {
            wanted = step()
            // Whoever waits for the tree's lock gets it between two batches.
            sched_yield()
        }
        locked {
            isRunning = false
            pthread_cond_broadcast(condition)
        }
    }

    private func next(after wanted: Step) -> (() -> Step)? {
        locked {
            if case .wait(let milliseconds) = wanted {
                var deadline = timespec()
                clock_gettime(CLOCK_MONOTONIC, &deadline)
                let nanoseconds = deadline.tv_nsec + (milliseconds ?? 0) % 1000 * 1_000_000
                deadline.tv_sec += (milliseconds ?? 0) / 1000 + nanoseconds / 1_000_000_000
                deadline.tv_nsec = nanoseconds % 1_000_000_000
                while !isAwake, !stops {
                    if milliseconds == nil {
                        pthread_cond_wait(condition, mutex)
                    } else if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT {
                        break
                    }
                }
            }
            isAwake = false
            return stops ? nil : step
        }
    }

    // MARK: Obstacles

    /// A job cannot go on just now: it is tried again after so many milliseconds.
    func hold(_ kind: JobKind, _ what: String, milliseconds: Int) {
        locked { obstacles[kind] = (what, Self.now + milliseconds) }
    }

    func goOn(_ kind: JobKind) { locked { obstacles[kind] = nil } }

    func obstacle(of kind: JobKind) -> String? { locked { obstacles[kind]?.what } }

    /// Milliseconds until a job is to be tried again; 0 for now.
    func delay(of kind: JobKind) -> Int { locked { obstacles[kind].map { max(0, $0.until - Self.now) } ?? 0 } }

    private static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }

    private func locked<R>(_ body: () -> R) -> R {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }
}
