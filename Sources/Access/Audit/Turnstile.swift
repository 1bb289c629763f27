internal import Glibc

/// Lets one thread at a time through, and nobody wait for ever.
///
/// A device that does not answer keeps the one who is at it. A few others wait for it, and more than these for a moment
/// only: requests that need no record shall find a thread to serve them. Once one of the few has waited in vain nobody
/// waits at all until the device answers.
final class Turnstile: @unchecked Sendable {
    // The pointers never change; the rest is guarded by `mutex`.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
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

    /// Runs `body` when it is this thread's turn.
    ///
    /// - Returns: nil if its turn did not come.
    func pass<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R? {
        guard enter() else { return nil }
        defer { leave() }
        return try body()
    }

    private func enter() -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        guard isTaken else {
            isTaken = true
            return true
        }
        guard !isStuck else { return false }
        let isLong = waiterCount < waiterLimit
        let patience = isLong ? patience.long : patience.short
        waiterCount += 1
        defer { waiterCount -= 1 }
        var deadline = timespec()
        clock_gettime(CLOCK_MONOTONIC, &deadline)
        deadline.tv_nsec += patience % 1000 * 1_000_000
        deadline.tv_sec += patience / 1000 + deadline.tv_nsec / 1_000_000_000
        deadline.tv_nsec %= 1_000_000_000
        while isTaken {
            if isStuck { return false }
            if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT, isTaken {
                if isLong {
                    isStuck = true
                    pthread_cond_broadcast(condition)
                }
                return false
            }
        }
        isTaken = true
        return true
    }

    private func leave() {
        pthread_mutex_lock(mutex)
        isTaken = false
        isStuck = false
        pthread_cond_signal(condition)
        pthread_mutex_unlock(mutex)
    }
}
