package import Glibc

/// A mutex with one condition, for critical sections that throw typed errors and return anything.
///
/// Times are those of the monotonic clock: a wall clock that is set neither hurries nor delays whoever waits.
package final class Monitor: @unchecked Sendable {
    // The pointers never change, and pthread objects are made to be shared between threads.
    @usableFromInline package let mutex: UnsafeMutablePointer<pthread_mutex_t>
    private let condition: UnsafeMutablePointer<pthread_cond_t>

    package init() {
        mutex = .allocate(capacity: 1)
        condition = .allocate(capacity: 1)
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

    @inlinable
    package func locked<R, E: Error>(_ body: () throws(E) -> R) throws(E) -> R {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return try body()
    }

    // MARK: Within `locked`, which others can enter meanwhile

    /// Wakes all who wait.
    package func wake() { pthread_cond_broadcast(condition) }

    /// Wakes one of those who wait.
    package func wakeOne() { pthread_cond_signal(condition) }

    /// Waits until woken, or for no reason.
    package func wait() { pthread_cond_wait(condition, mutex) }

    /// Waits until woken, or for no reason, or until so many milliseconds have passed.
    package func wait(milliseconds: Int) { _ = wait(before: Self.deadline(in: milliseconds)) }

    /// Waits until `isDone`, for so many milliseconds at most.
    ///
    /// - Returns: what `isDone` says in the end.
    package func wait(milliseconds: Int, until isDone: () -> Bool) -> Bool {
        let deadline = Self.deadline(in: milliseconds)
        while !isDone() {
            guard wait(before: deadline) else { return isDone() }
        }
        return true
    }

    /// False if the time has come.
    private func wait(before deadline: timespec) -> Bool {
        var deadline = deadline
        return pthread_cond_timedwait(condition, mutex, &deadline) != ETIMEDOUT
    }

    private static func deadline(in milliseconds: Int) -> timespec {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let nanoseconds = time.tv_nsec + milliseconds % 1000 * 1_000_000
        time.tv_sec += milliseconds / 1000 + nanoseconds / 1_000_000_000
        time.tv_nsec = nanoseconds % 1_000_000_000
        return time
    }
}
