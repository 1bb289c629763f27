import Fuse
import Glibc
import Sodium

/// Starting servers, one after the other.
extension Guardian {
    /// - Parameter isAwaited: Readers wait, and the server before it had found nothing wrong with the store.
    func startServer(isAwaited: Bool = false) throws(Failure) {
        board.servers += 1
        defer { spare = nil }
        if let spare, tellToGo(spare, isAwaited: isAwaited) { return }
        tellToGo(try makeServer(program), isAwaited: isAwaited)
        passphrase.map { _ = close($0) }
        passphrase = nil
    }

    /// False if it is not there any more.
    @discardableResult
    func tellToGo(_ server: ServerChild, isAwaited: Bool) -> Bool {
        current = server
        // What a server leaves behind when it dies is opened under the same lock.
        return server.channel.send(.go, code: isAwaited ? 1 : 0, descriptor: lock)
    }

    /// Starts the next server while nobody waits for it: of what a successor has to do before it can open the store,
    /// starting a program is the most.
    private func keepSpare() {
        // Without one the next server is started when it is needed.
        spare = try? makeServer(program)
    }

    private func makeServer(_ program: Int32, isCandidate: Bool = false) throws(Failure) -> ServerChild {
        var arguments = ["serve"]
        arguments += ["--key-service", try request.keys.absoluteSpec()]
        if passphrase != nil { arguments += ["--passphrase-fd", String(ServerChild.Place.passphrase)] }
        if isCandidate { arguments.append("--candidate") }
        if log.isDetached { arguments.append("--detached") }
        if store.isUsed { arguments.append("--fd-store") }
        for option in request.options.texts { arguments += ["-o", option] }
        arguments += ["--", request.store, request.mountpoint]
        return try ServerChild(
            program, arguments,
            ServerChild.Inheritance(
                board: board.descriptor, key: key.descriptor, events: events,
                invalidations: invalidations.servers.descriptor, passphrase: passphrase))
    }

    // MARK: What servers say

    func handle(_ message: Channel.Message, from server: ServerChild) throws(Failure) {
        switch message.kind {
        case .warning: warn(message.text)
        case .failed: server.failure = Failure(message)
        case .opened:
            if lock < 0 { lock = message.descriptor } else if message.descriptor >= 0 { close(message.descriptor) }
            if connection < 0 { try makeMount(source: message.text) }
            server.channel.send(.mount, descriptor: connection)
        case .serving:
            server.isServing = true
            board.server = server.process
            if stage == .starting { announce() }
            if upgradeIsUnderWay { endUpgrade(nil) }
            keepSpare()
            ProcessHygiene.forgetStart()
        case .fit:
            guard server === candidate, stage == .serving, let current else { return }
            stage = .handingOver
            current.channel.send(.leave)
        case .check, .mount, .go, .leave, .abandon: break
        }
    }

    private func warn(_ text: String) {
        if stage == .starting, let ready = request.ready { ready.warn(text) } else { log.warn(text) }
    }

    private func makeMount(source: String) throws(Failure) {
        do {
            connection = try Fuse.Mount(at: request.mountpoint, request.mountOptions(source)).descriptor
            try serveInvalidations()
        } catch {
            current?.channel.send(.abandon)
            throw Messages.failure(for: error)
        }
    }

    private func announce() {
        stage = .serving
        store.keep(
            DescriptorStore.Kept(
                connection: connection, board: board.descriptor, key: key.descriptor, events: events, lock: lock))
        request.ready?.ready()
        ServiceNotification.ready(status: "serving \(request.mountpoint)")
    }

    // MARK: Restarts

    func restart(after server: ServerChild, _ status: Int32) throws(Failure) {
        let why = server.failure.map { ": \($0.message)" } ?? ""
        board.lastEnd = "process \(server.process) has \(Self.words(status))\(why)"
        log.warn("the server of \(request.mountpoint): \(board.lastEnd)")
        if upgradeIsUnderWay { endUpgrade(server.failure ?? Failure("the new server has \(Self.words(status))")) }
        // What it had served it should not have: it has found out later that it could not.
        let hasServed = server.isServing && server.failure == nil
        guard restarts.allows(afterServing: hasServed, status: status) else {
            takeAway()
            throw Failure(
                "the server of \(request.mountpoint) does not come back: unmounted after \(board.restarts) restarts; "
                    + "the last one has \(Self.words(status))\(why)", code: server.failure?.code ?? .failed)
        }
        board.restarts += 1
        try startServer(isAwaited: hasServed)
    }

    // MARK: Upgrades

    private var upgradeIsUnderWay: Bool { upgradedProgram != nil }

    /// Starts the program that is installed now; when it says that it could serve, the present server leaves.
    func upgrade() {
        guard stage == .serving, candidate == nil, !upgradeIsUnderWay else {
            return board.endUpgrade(false, "an upgrade is under way, or the mount is being started or ended")
        }
        let newer = open(programPath, O_PATH | O_CLOEXEC)
        guard newer >= 0 else {
            return board.endUpgrade(false, "\(programPath): \(SystemError.text(errno))")
        }
        do {
            candidate = try makeServer(newer, isCandidate: true)
            candidate?.channel.send(.check, descriptor: lock)
            upgradedProgram = newer
        } catch {
            close(newer)
            board.endUpgrade(false, error.message)
        }
    }

    /// - Parameter failure: nil if the new server serves.
    func endUpgrade(_ failure: Failure?) {
        guard let newer = upgradedProgram else { return }
        upgradedProgram = nil
        if let failure {
            close(newer)
            log.warn("\(request.mountpoint) is not upgraded: \(failure.message)")
            board.endUpgrade(false, failure.message)
        } else {
            close(program)
            program = newer
            board.endUpgrade(true, "")
        }
    }
}

/// How many restarts are enough.
struct RestartLimit {
    /// Three servers in a row that never served, within this many seconds.
    private static let seconds: Double = 10
    private static let failureLimit = 3
    /// As many in a row that served and ended by their own fault, each soon after the one before: a request that no server
    /// survives comes again each time.
    private static let crashLimit = 20
    private static let soon: Double = 3

    private var failures: [Double] = []
    private var crashCount = 0
    private var lastEnd = -Double.infinity

    mutating func allows(afterServing hasServed: Bool, status: Int32) -> Bool {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let now = Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
        if hasServed { failures = [] } else { failures.append(now) }
        failures.removeAll { $0 < now - Self.seconds }
        let isAnothersDoing = [SIGKILL, SIGTERM, SIGINT, SIGHUP].contains(status & 0x7f)
        crashCount = isAnothersDoing ? 0 : now - lastEnd < Self.soon ? crashCount + 1 : 1
        lastEnd = now
        return failures.count < Self.failureLimit && crashCount < Self.crashLimit
    }
}
