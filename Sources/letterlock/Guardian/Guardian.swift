import CLinux
import Fuse
import Glibc
import SecretFS
import Sodium

/// Holds a mount, its keys and what applications have open, and sees to it that somebody serves it.
///
/// It reads no secret, opens no store and speaks to no network, so that it has no reason to die. One thread, one
/// loop: signals, and messages of its servers.
final class Guardian {
    let request: MountRequest
    let log: ServerLog
    let board: Board
    let key: SharedKey
    let events: Int32
    let signals: Int32
    /// Both ends of what servers ask for invalidations through: this process's, and the servers'.
    let invalidations: (own: Channel, servers: Channel)
    /// The program that servers are started from: the one that serves, also when another lies at its path by now.
    var program: Int32
    /// Where an upgrade looks for a newer one.
    let programPath: String
    let store: DescriptorStore
    var passphrase: Int32?

    /// The connection to the kernel; -1 before the mount is made.
    var connection: Int32 = -1
    /// The store's lock, shared with the server.
    var lock: Int32 = -1
    var current: ServerChild?
    /// A server that waits for the present one to die. It has opened nothing.
    var spare: ServerChild?
    /// A server of a newer program that is waiting to take over.
    var candidate: ServerChild?
    /// The process that is unmounting.
    var unmounting: pid_t?
    var restarts = RestartLimit()
    /// The program of the upgrade that is under way.
    var upgradedProgram: Int32?

    enum Stage: Equatable {
        /// Until the mount has answered once.
        case starting
        case serving
        /// The server was told to leave, for the candidate's sake.
        case handingOver
        /// Unmounted, at least from sight: the end of the server is the end.
        case ending
        /// The mount stays with systemd, for the next guardian.
        case leaving
    }
    var stage = Stage.starting

    /// - Parameters:
    ///   - kept: What systemd has kept of the guardian before this one; nil for a new mount.
    ///   - passphrase: The end of a pipe that it comes out of, for the first server.
    init(
        _ request: MountRequest, _ store: DescriptorStore, _ kept: DescriptorStore.Kept? = nil, passphrase: Int32? = nil
    )
        throws(Failure)
    {
        self.request = request
        self.passphrase = passphrase
        log = ServerLog(isDetached: request.ready != nil)
        programPath = Self.ownPath()
        program = open("/proc/self/exe", O_PATH | O_CLOEXEC)
        guard program >= 0 else { throw Failure("cannot open /proc/self/exe", errno: errno) }
        signals = try Self.takeSignals()
        let (own, servers) = try Channel.pair()
        invalidations = (own, servers)
        self.store = store
        do {
            LockedMemory.allowsUnlocked = request.options.allowsUnlockedMemory || request.keys.allowsUnlockedMemory
            if let kept {
                board = try Board(descriptor: kept.board, isWhole: false)
                key = try SharedKey(descriptor: kept.key)
                (events, connection, lock) = (kept.events, kept.connection, kept.lock)
            } else {
                board = try Board.make()
                key = try SharedKey.make()
                events = memfd_create("letterlock-events", UInt32(MFD_CLOEXEC))
                guard events >= 0, ftruncate(events, off_t(MountServer.streamByteCount)) == 0 else {
                    throw Failure("cannot make shared memory", errno: errno)
                }
            }
        } catch { throw Messages.failure(for: error) }
        board.guardian = getpid()
    }

    /// The path of this program, for upgrades: where it was when it was started.
    private static func ownPath() -> String {
        var path = [CChar](repeating: 0, count: Int(PATH_MAX) + 1)
        let count = readlink("/proc/self/exe", &path, path.count - 1)
        let text = String(decoding: path.prefix(max(0, count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return text.hasSuffix(" (deleted)") ? String(text.dropLast(10)) : text
    }

    private static func takeSignals() throws(Failure) -> Int32 {
        var set = sigset_t()
        sigemptyset(&set)
        for number in [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2, SIGCHLD] { sigaddset(&set, number) }
        sigprocmask(SIG_BLOCK, &set, nil)
        let descriptor = ll_signalfd(&set)
        guard descriptor >= 0 else { throw Failure("cannot wait for signals", errno: errno) }
        return descriptor
    }

    /// Serves the mount until it is gone.
    func run() throws(Failure) {
        // Nothing that this process was started with is for its servers.
        close_range(3, UInt32.max, Int32(CLOSE_RANGE_CLOEXEC))
        if connection >= 0 {
            endPredecessorsServer()
            try serveInvalidations()
        }
        try startServer()
        while true {
            var waiting = [pollfd(fd: signals, events: Int16(POLLIN), revents: 0)]
            let children = [current, spare, candidate].compactMap { $0 }
            // poll(2) passes negative descriptors by.
            waiting += children.map {
                pollfd(fd: $0.hasHungUp ? -1 : $0.channel.descriptor, events: Int16(POLLIN), revents: 0)
            }
            guard poll(&waiting, nfds_t(waiting.count), -1) >= 0 || errno == EINTR else {
                throw Failure("cannot wait", errno: errno)
            }
            // Messages first: what a server said is known before its end is.
            for (index, child) in children.enumerated() where waiting[index + 1].revents != 0 {
                if let message = child.channel.receive() {
                    try handle(message, from: child)
                } else {
                    child.hasHungUp = true
                }
            }
            if waiting[0].revents != 0, try handleSignals() { return }
        }
    }

    /// After the sudden death of the guardian before this one its server ends by itself; two must not have the store open,
    /// whose lock they share.
    private func endPredecessorsServer() {
        let process = board.server
        guard process > 0, ProcessTable.command(of: process) == ProcessHygiene.processName,
            !ProcessTable.awaitEnd(of: process, seconds: Self.predecessorSeconds)
        else { return }
        kill(process, SIGKILL)
        _ = ProcessTable.awaitEnd(of: process, seconds: Self.predecessorSeconds)
    }

    private static let predecessorSeconds: Int32 = 30

    func serveInvalidations() throws(Failure) {
        try Invalidations.start(invalidations.own.descriptor, connection: connection)
    }

    // MARK: Signals

    /// True if all is over.
    private func handleSignals() throws(Failure) -> Bool {
        while true {
            switch ll_next_signal(signals) {
            case -1: return false
            case SIGTERM, SIGINT: unmount()
            // The terminal that it was started on is gone; without one it is about the audit log.
            case SIGHUP where isatty(STDERR_FILENO) != 0 || errno == EIO: unmount()
            case SIGHUP: current.map { _ = kill($0.process, SIGHUP) }
            case SIGUSR1: upgrade()
            case SIGUSR2: leave()
            default:
                var status: Int32 = 0
                while true {
                    let process = waitpid(-1, &status, WNOHANG)
                    guard process > 0 else { break }
                    if try hasEnded(process, status) { return true }
                }
            }
        }
    }

    /// Takes the mount away, in a process of its own: the kernel may want an answer first, which this one cannot give.
    private func unmount() {
        if stage == .ending {
            log.warn("\(request.mountpoint) is given up with files open on it")
            current?.channel.send(.abandon)
            return
        }
        guard unmounting == nil, stage != .starting else {
            if stage == .starting { current.map { _ = kill($0.process, SIGKILL) } }
            return
        }
        ServiceNotification.stopping()
        let words = ["detach"] + (log.isDetached ? ["--quiet"] : []) + ["--", request.mountpoint]
        unmounting = try? Spawning(program: program, words).start()
    }

    /// Has systemd keep the mount, and ends: the next guardian goes on with it.
    private func leave() {
        guard store.isUsed, stage == .serving, let current else {
            return log.warn("there is no descriptor store that could keep the mount: SIGUSR2 is not taken")
        }
        stage = .leaving
        current.channel.send(.leave)
    }

    // MARK: Ends

    /// True if all is over.
    private func hasEnded(_ process: pid_t, _ status: Int32) throws(Failure) -> Bool {
        if process == unmounting {
            unmounting = nil
            if status == 0 { stage = .ending }
            return false
        }
        if let candidate, process == candidate.process {
            self.candidate = nil
            endUpgrade(candidate.failure ?? Failure("the new server has \(Self.words(status))"))
            return false
        }
        if process == spare?.process { spare = nil }
        guard let server = current, process == server.process else { return false }
        drain(server)
        current = nil
        if stage == .starting { throw ended(server, status) }
        if stage == .leaving { return true }
        if stage == .handingOver {
            stage = .serving
            guard let candidate else {
                try startServer(isAwaited: server.failure == nil)
                return false
            }
            self.candidate = nil
            // Before it starts, which is when it reads which one it is.
            board.servers += 1
            tellToGo(candidate, isAwaited: server.failure == nil)
            return false
        }
        if status == 0 {
            store.forget()
            return true
        }
        try restart(after: server, status)
        return false
    }

    /// What it said last, as far as it has not been read.
    private func drain(_ server: ServerChild) {
        var waiting = pollfd(fd: server.channel.descriptor, events: Int16(POLLIN), revents: 0)
        while poll(&waiting, 1, 0) > 0, let message = server.channel.receive() { try? handle(message, from: server) }
    }

    private func ended(_ server: ServerChild, _ status: Int32) -> Failure {
        if connection >= 0 { takeAway() }
        return server.failure
            ?? Failure(
                "the server has \(Self.words(status)) before it was ready", hint: "run it with -f to see what it says")
    }

    /// How a process has ended, as wait(2) tells.
    static func words(_ status: Int32) -> String {
        let signal = status & 0x7f
        return signal == 0 ? "ended with exit code \(status >> 8 & 0xff)" : "been killed by signal \(signal)"
    }

    /// Ends the connection, which has everyone who waits get an error, and takes the mount away.
    func takeAway() {
        store.forget()
        close(connection)
        connection = -1
        try? Fuse.Mount.unmount(request.mountpoint, lazily: true)
    }
}
