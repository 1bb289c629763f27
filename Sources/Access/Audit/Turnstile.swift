internal import Glibc

/// Lets one thread at a time through, and nobody wait for long.
///
/// A device that does not answer keeps the one who is at it. The others wait for a moment, and once somebody has waited in
/// vain they do not wait at all until it answers: requests that need no record find a thread to serve them.
final class Turnstile: @unchecked Sendable {
    // The pointers never change; the rest is guarded by `mutex`.
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    private var isTaken = false
    private var isStuck = false
    /// Milliseconds.
    private let patience: Int

    init(patience: Int = 250) {
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
        var deadline = timespec()
        clock_gettime(CLOCK_MONOTONIC, &deadline)
        deadline.tv_nsec += patience % 1000 * 1_000_000
        deadline.tv_sec += patience / 1000 + deadline.tv_nsec / 1_000_000_000
        deadline.tv_nsec %= 1_000_000_000
        while isTaken {
            if isStuck { return false }
            if pthread_cond_timedwait(condition, mutex, &deadline) == ETIMEDOUT, isTaken {
                isStuck = true
                pthread_cond_broadcast(condition)
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
