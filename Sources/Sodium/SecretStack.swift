internal import CLinux
internal import CSodium
internal import Glibc
internal import Synchronization

/// Threads whose stacks are secret memory: what ciphers and hashes leave on a stack while they work, and the DEK of the
/// request in hand, nobody reads from outside, not even root.
///
/// The kernel does not reach into such a stack for direct input and output: what is written to /dev/fuse must lie
/// elsewhere. Nobody may join such a thread, for the kernel cannot wake who waits at its end.
public enum SecretStack {
    private struct Stack {
        var start: UInt
        var byteCount: Int
        /// The thread that runs, or ran, on it.
        var thread: pid_t
    }

    /// Stacks of threads that end or have ended.
    private static let retired = Mutex<[Stack]>([])

    /// Runs `body` in a detached thread of its own, with every signal blocked but those in `signals`.
    ///
    /// - Returns: 0, or pthread_create(3)'s error number.
    public static func startThread(
        byteCount: Int, signals: [Int32] = [], _ body: @escaping @Sendable () -> Void
    ) -> Int32 {
        var attributes = pthread_attr_t()
        pthread_attr_init(&attributes)
        defer { pthread_attr_destroy(&attributes) }
        pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
        let stack = take(byteCount)
        if let stack {
            pthread_attr_setstack(&attributes, UnsafeMutableRawPointer(bitPattern: stack.start)!, stack.byteCount)
        } else {
            pthread_attr_setstacksize(&attributes, byteCount)
        }
        let start = Start(stack: stack, body: body)
        let argument = Unmanaged.passRetained(start)
        let result = withSignalsBlocked(except: signals) {
            var thread = pthread_t()
            return pthread_create(
                &thread, &attributes,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<Start>.fromOpaque(argument).takeRetainedValue().run()
                    return nil
                }, argument.toOpaque())
        }
        if result != 0 {
            argument.release()
            if let stack { retired.withLock { $0.append(stack) } }
        }
        return result
    }

    /// A stack that nobody runs on any more, or a new one; nil if there is no memory for it that is allowed for keys.
    private static func take(_ byteCount: Int) -> Stack? {
        let rounded = LockedMemory.pages(for: byteCount) * LockedMemory.pageByteCount
        let old = retired.withLock { retired -> Stack? in
            let index = retired.firstIndex {
                $0.byteCount == rounded && ($0.thread == 0 || ll_signal_thread($0.thread, 0) != 0)
            }
            return index.map { retired.remove(at: $0) }
        }
        if let old { return old }
        guard let start = try? LockedMemory.make(pages: LockedMemory.pages(for: byteCount)) else { return nil }
        return Stack(start: UInt(bitPattern: start), byteCount: rounded, thread: 0)
    }

    private static func withSignalsBlocked<R>(except signals: [Int32], _ body: () -> R) -> R {
        var blocked = sigset_t()
        var before = sigset_t()
        sigfillset(&blocked)
        for signal in signals + [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS] {
            sigdelset(&blocked, signal)
        }
        pthread_sigmask(SIG_SETMASK, &blocked, &before)
        defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
        return body()
    }

    private final class Start: Sendable {
        let stack: Stack?
        let body: @Sendable () -> Void

        init(stack: Stack?, body: @escaping @Sendable () -> Void) {
            self.stack = stack
            self.body = body
        }

        func run() {
            body()
            guard var stack else { return }
            // It is given out again when this thread is gone.
            stack.thread = ll_gettid()
            SecretStack.retired.withLock { $0.append(stack) }
        }
    }
}
