internal import Glibc

/// Runs `body` in a detached thread of its own, with every signal blocked but those in `signals` and those of its own
/// faults.
///
/// - Parameter stackByteCount: 0 for what the system gives.
/// - Returns: 0, or pthread_create(3)'s error number.
package func startThread(
    stackByteCount: Int = 0, signals: [Int32] = [], _ body: @escaping @Sendable () -> Void
) -> Int32 {
    var attributes = pthread_attr_t()
    pthread_attr_init(&attributes)
    defer { pthread_attr_destroy(&attributes) }
    pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    if stackByteCount > 0 { pthread_attr_setstacksize(&attributes, stackByteCount) }
    var blocked = sigset_t()
    var before = sigset_t()
    sigfillset(&blocked)
    for signal in signals + [SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS] { sigdelset(&blocked, signal) }
    pthread_sigmask(SIG_SETMASK, &blocked, &before)
    defer { pthread_sigmask(SIG_SETMASK, &before, nil) }
    let argument = Unmanaged.passRetained(Body(run: body))
    var thread = pthread_t()
    let result = pthread_create(
        &thread, &attributes,
        { argument in
            guard let argument else { return nil }
            Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run()
            return nil
        }, argument.toOpaque())
    if result != 0 { argument.release() }
    return result
}

private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(run: @escaping @Sendable () -> Void) { self.run = run }
}
