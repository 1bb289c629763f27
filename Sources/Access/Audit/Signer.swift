internal import Glibc
internal import Sodium

/// The thread that signs, a moment after there is something to be signed.
final class Signer: @unchecked Sendable {
    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let condition = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    // Guarded by `mutex`.
    private var isWanted = false
    private var isRunning = false

    init() {
        pthread_mutex_init(mutex, nil)
        // A wall clock that is set back must not put off signing.
        var attributes = pthread_condattr_t()
        pthread_condattr_init(&attributes)
        pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC)
        pthread_cond_init(condition, &attributes)
        pthread_condattr_destroy(&attributes)
    }

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
        pthread_mutex_lock(mutex)
        if !isWanted {
            isWanted = true
            pthread_cond_broadcast(condition)
        }
        pthread_mutex_unlock(mutex)
    }

    func stop() {
        pthread_mutex_lock(mutex)
        isRunning = false
        pthread_cond_broadcast(condition)
        pthread_mutex_unlock(mutex)
    }

    private func awaitWork() -> Bool {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while !isWanted, isRunning { pthread_cond_wait(condition, mutex) }
        isWanted = false
        return isRunning
    }

    private func sleepASecond() {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        var deadline = timespec()
        clock_gettime(CLOCK_MONOTONIC, &deadline)
        deadline.tv_sec += 1
        while isRunning, pthread_cond_timedwait(condition, mutex, &deadline) != ETIMEDOUT {}
    }
}
