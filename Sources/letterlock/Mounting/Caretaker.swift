import Glibc

/// The thread beside a server's workers: tells when the mount answers, brings it to disk now and then, and unmounts
/// when a signal asks for the end.
final class Caretaker: Sendable {
    /// How often what has changed is brought to disk and its epoch remembered.
    private static let rememberingSeconds = 5
    private static let signals = [SIGTERM, SIGINT, SIGHUP]

    private let mountpoint: String
    private let keeper: EpochKeeper
    private let log: ServerLog
    private let announce: @Sendable () -> Void
    /// Ends the server's loop though the mount is still in use.
    private let abandon: @Sendable () -> Void

    init(
        mountpoint: String, keeper: EpochKeeper, log: ServerLog, announce: @escaping @Sendable () -> Void,
        abandon: @escaping @Sendable () -> Void
    ) {
        self.mountpoint = mountpoint
        self.keeper = keeper
        self.log = log
        self.announce = announce
        self.abandon = abandon
    }

    private static func signalSet() -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in signals { sigaddset(&set, number) }
        return set
    }

    /// Keeps the signals for this thread; to be called before any other thread is started.
    static func holdSignals() {
        var set = signalSet()
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    func start() throws(Failure) {
        var thread = pthread_t()
        let this = Unmanaged.passRetained(self)
        let number = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Caretaker>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, this.toOpaque())
        guard number == 0 else {
            this.release()
            throw Failure("cannot start a thread", errno: number)
        }
        pthread_detach(thread)
    }

    private func run() {
        // Answered by the workers: when it returns, the mount answers.
        var statistics = statvfs()
        if statvfs(mountpoint, &statistics) == 0 { announce() }
        var set = Self.signalSet()
        var hasUnmounted = false
        while true {
            var wait = timespec(tv_sec: Self.rememberingSeconds, tv_nsec: 0)
            let number = sigtimedwait(&set, nil, &wait)
            if number < 0 {
                keeper.remember()
            } else if hasUnmounted {
                log.warn("\(mountpoint) is given up with files open on it")
                abandon()
            } else {
                hasUnmounted = unmount()
            }
        }
    }

    /// True if the mount is gone, at least from sight.
    private func unmount() -> Bool {
        ServiceNotification.stopping()
        do {
            try Unmounting.remove(mountpoint, detaches: false)
            return true
        } catch {
            guard error.code == .busy else {
                log.warn(error.message)
                return false
            }
            log.warn(
                "\(error.message): unmounted for all others, and served until they close it or a second signal comes"
            )
        }
        do {
            try Unmounting.remove(mountpoint, detaches: true)
        } catch {
            log.warn(error.message)
            return false
        }
        return true
    }
}
