import Glibc
import Synchronization

/// The worker threads of a session: detached, counted, and woken from their reads by a signal when they shall end.
///
/// A blocking read wakes one thread a request; poll(2) would wake them all, and an eventfd needs poll. So the way out
/// of a read is SIGURG, which nobody uses, is ignored by default, and is delivered here to these threads alone.
final class Crew: @unchecked Sendable {
    // Unchecked: `threads` is guarded by `mutex`.
    private static let stackByteCount = 1 << 20
    private static let wakeSignal = SIGURG

    private let mutex = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
    private let ended = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
    /// Guarded by `mutex`: the threads that have not ended.
    private var threads: [pthread_t] = []

    init() {
        pthread_mutex_init(mutex, nil)
        pthread_cond_init(ended, nil)
    }

    deinit {
        pthread_cond_destroy(ended)
        pthread_mutex_destroy(mutex)
        mutex.deallocate()
        ended.deallocate()
    }

    /// Starts `count` threads that each serve `session` until it ends.
    func start(_ count: Int, _ session: Session) throws(FuseError) {
        Self.prepareSignal()
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        pthread_attr_setstacksize(&attributes, Self.stackByteCount)
        // Held throughout: a thread that ends at once must find itself in the list.
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        for _ in 0..<count {
            var thread = pthread_t()
            let post = Unmanaged.passRetained(Post(worker: Worker(session), crew: self))
            let result = Self.withSignalsBlocked {
                pthread_create(
                    &thread, &attributes,
                    { argument in
                        guard let argument else { return nil }
                        let post = Unmanaged<Post>.fromOpaque(argument).takeRetainedValue()
                        post.worker.run()
                        post.crew.leave()
                        return nil
                    }, post.toOpaque())
            }
            guard result == 0 else {
                post.release()
                if threads.isEmpty { throw .thread(result) }
                return
            }
            threads.append(thread)
        }
    }

    /// Blocks until all threads have ended.
    func wait() {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        while !threads.isEmpty { pthread_cond_wait(ended, mutex) }
    }

    /// Wakes the threads from their reads until all have ended, or for `seconds`; says whether all have.
    func wake(atMost seconds: Double) -> Bool {
        let start = Self.now()
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        // Once is not enough: a signal that comes just before read(2) is lost.
        while !threads.isEmpty {
            // These have not ended, for they take the lock to say so: their numbers are good.
            for thread in threads { pthread_kill(thread, Self.wakeSignal) }
            guard Self.now() - start < seconds else { return false }
            var deadline = timespec()
            clock_gettime(CLOCK_REALTIME, &deadline)
            deadline.tv_nsec += 2_000_000
            if deadline.tv_nsec >= 1_000_000_000 {
                deadline.tv_nsec -= 1_000_000_000
                deadline.tv_sec += 1
            }
            pthread_cond_timedwait(ended, mutex, &deadline)
        }
        return true
    }

    private func leave() {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        threads.removeAll { pthread_equal($0, pthread_self()) != 0 }
        pthread_cond_broadcast(ended)
    }

    private static func now() -> Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }

    /// A handler that does nothing, without SA_RESTART, so that read(2) returns EINTR.
    private static func prepareSignal() {
        var action = sigaction()
        action.__sigaction_handler.sa_handler = { _ in }
        sigaction(wakeSignal, &action, nil)
    }

    /// The new thread inherits a mask that leaves it no signal but ours and those of its own faults.
    private static func withSignalsBlocked<R>(_ body: () -> R) -> R {
        var blocked = sigset_t()
        var before = sigset_t()
        sigfillset(&blocked)
        for signal in [wakeSignal, SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS] {
            sigdelset(&blocked, signal)
        }
        pthread_sigmask(SIG_SETMASK, &blocked, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        return body()
    }

    /// What a thread is started with.
    private final class Post {
        let worker: Worker
        let crew: Crew
        init(worker: Worker, crew: Crew) {
            self.worker = worker
            self.crew = crew
        }
    }
}
