import Glibc
import Synchronization
import Threads

/// The worker threads of a session: detached, counted, and woken from their reads by a signal when they shall end.
///
/// A blocking read wakes one thread a request; poll(2) would wake them all, and an eventfd needs poll. So the way out
/// of a read is SIGURG, which nobody uses, is ignored by default, and is delivered here to these threads alone.
final class Crew: @unchecked Sendable {
    // Unchecked: `count` and `threads` are guarded by `monitor`.
    private static let stackByteCount = 512 << 10
    private static let wakeSignal = SIGURG

    private let monitor = Monitor()
    // How many threads have not ended, and those of them that have begun.
    private var count = 0
    private var threads: [pthread_t] = []

    /// Starts `number` threads that each serve `session` until it ends.
    func start(_ number: Int, _ session: Session) throws(FuseError) {
        Self.prepareSignal()
        for index in 0..<number {
            let worker = Worker(session, slot: index)
            change { count += 1 }
            // A worker is handed to its thread and used by nobody else.
            nonisolated(unsafe) let handed = worker
            let result = session.options.threadStarter(Self.stackByteCount, [Self.wakeSignal]) { [self] in
                change { threads.append(pthread_self()) }
                handed.run()
                change {
                    threads.removeAll { pthread_equal($0, pthread_self()) != 0 }
                    count -= 1
                }
            }
            guard result == 0 else {
                change { count -= 1 }
                if index == 0 { throw .thread(result) }
                return
            }
        }
    }

    private func change(_ body: () -> Void) {
        monitor.locked {
            body()
            monitor.wake()
        }
    }

    /// Blocks until all threads have ended.
    func wait() {
        monitor.locked {
            while count > 0 { monitor.wait() }
        }
    }

    /// Wakes the threads from their reads until all have ended, or for `seconds`; says whether all have.
    func wake(atMost seconds: Double) -> Bool {
        let start = Self.now()
        return monitor.locked {
            // Once is not enough: a signal that comes just before read(2) is lost.
            while count > 0 {
                // These have not ended, for they take the lock to say so: their numbers are good.
                for thread in threads { pthread_kill(thread, Self.wakeSignal) }
                guard Self.now() - start < seconds else { return false }
                monitor.wait(milliseconds: 2)
            }
            return true
        }
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
}

/// Starts a detached thread with a stack of so many bytes and every signal blocked but those named and those of its own
/// faults; answers 0 or an error number. Such as `SecretStack.startThread`.
public typealias ThreadStarter =
    @Sendable (
        _ stackByteCount: Int, _ signals: [Int32], _ body: @escaping @Sendable () -> Void
    ) -> Int32
