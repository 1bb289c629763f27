import Glibc
import Synchronization
import Threads

/// Serves a `FileSystem` on a /dev/fuse descriptor, on threads of its own.
public final class Server: Sendable {
    public struct Options: Sendable {
        /// Threads that read and serve requests.
        public var threadCount = max(2, min(8, 2 * sysconf(Int32(_SC_NPROCESSORS_ONLN))))
        /// The most that one WRITE carries; libfuse allows 1 MiB at most. Each thread has a buffer for it that is resident.
        public var maxWriteByteCount = 256 << 10
        /// Readahead and other requests that nobody waits for, in flight at once.
        public var maxBackground = 64
        /// Cached pages go when the file system says so (`Notifier`, or an opening without `keepCache`), not
        /// whenever an mtime has changed.
        public var invalidatesExplicitly = true
        /// What the threads are started with.
        public var threadStarter: ThreadStarter = { startThread(stackByteCount: $0, signals: $1, $2) }
        public init() {}
    }

    public enum Start: Sendable {
        /// The kernel's INIT request waits to be read.
        case fresh
        /// A predecessor has answered INIT; here is its request again. What that one left unanswered comes again.
        case takingOver(initRequest: [UInt8])
        /// A predecessor is gone that may have read INIT but has not answered it.
        case reclaiming
    }

    public enum End: Hashable, Sendable {
        case unmounted
        case stopped
        /// A read of the descriptor failed with this errno.
        case failed(Int32)
    }

    /// Tells the kernel what to forget; good as long as it is kept, even after the mount is gone.
    public var notifier: Notifier { Notifier(session: session) }

    private let session: Session
    private let crew = Crew()

    /// Prepares to serve. The descriptor stays the caller's: the server works on a duplicate.
    ///
    /// - Parameter keepsInit: is handed the bytes of the kernel's INIT request before it is answered, for `takingOver`.
    public init(
        serving fileSystem: any FileSystem, descriptor: Int32, options: Options = Options(),
        keepsInit: (@Sendable (UnsafeRawBufferPointer) -> Void)? = nil
    ) throws(FuseError) {
        precondition(options.threadCount > 0 && (4096...1 << 20).contains(options.maxWriteByteCount))
        precondition((1...Int(UInt16.max)).contains(options.maxBackground))
        session = try Session(
            fileSystem: fileSystem, descriptor: descriptor, options: options, keepsInit: keepsInit)
    }

    /// Starts the threads and returns. Call it once.
    ///
    /// - Parameter willServe: Called just before the first request is taken.
    public func start(_ start: Start = .fresh, willServe: () -> Void = {}) throws(FuseError) {
        switch start {
        case .fresh: break
        case .takingOver(let request):
            try Worker(session).serveKeptInit(request)
            try askForResend()
        case .reclaiming: try askForResend()
        }
        willServe()
        try crew.start(session.options.threadCount, session)
    }

    /// Whether the kernel sends again what an earlier server had read and not answered. Without that (before Linux 6.9)
    /// whoever waits for such an answer waits until a signal ends it.
    public var kernelResends: Bool { session.kernelResends.load(ordering: .relaxed) }

    private func askForResend() throws(FuseError) {
        do { try session.askForResend() } catch {
            guard case .resend(EINVAL) = error else { throw error }
            session.kernelResends.store(false, ordering: .relaxed)
        }
    }

    /// Blocks until the file system is unmounted, the server stopped, or its descriptor failed.
    public func wait() -> End {
        crew.wait()
        session.waiters.end()
        let failure = session.failure.load(ordering: .relaxed)
        if failure != 0 { return .failed(failure) }
        return session.isStopping.load(ordering: .relaxed) ? .stopped : .unmounted
    }

    /// Stops reading requests and waits until those already read are answered; the mount stays, and what is asked of
    /// it waits for a successor.
    ///
    /// - Returns: false if a thread is still busy after `seconds`; it will end with its request.
    @discardableResult
    public func stop(atMost seconds: Double = .infinity) -> Bool {
        session.isStopping.store(true, ordering: .releasing)
        return crew.wake(atMost: seconds)
    }
}
