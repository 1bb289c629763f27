import Access
import Fuse
import Glibc
import Keyring
import SecretFS
import Sodium
import Storage

/// Serves a mount that a guardian holds, until it is unmounted or another server takes over.
struct MountServer {
    let request: MountRequest
    /// It shall first say whether it could take over.
    let isCandidate: Bool
    let isDetached: Bool

    func run() throws(Failure) {
        let channel = Channel(descriptor: ServerChild.Place.channel)
        _ = fcntl(channel.descriptor, F_SETFD, FD_CLOEXEC)
        do { try serve(channel) } catch {
            channel.fail(error)
            throw error
        }
    }

    private func serve(_ channel: Channel) throws(Failure) {
        AuditLog.reopenAtHangup()
        let board = try Board(descriptor: ServerChild.Place.board, isWhole: true)
        let shared: SharedKey
        do {
            LockedMemory.allowsUnlocked = request.options.allowsUnlockedMemory || request.keys.allowsUnlockedMemory
            shared = try SharedKey(descriptor: ServerChild.Place.key)
        } catch { throw Messages.failure(for: error) }
        for place in [ServerChild.Place.events, ServerChild.Place.invalidations] {
            _ = fcntl(place, F_SETFD, FD_CLOEXEC)
        }
        if isCandidate {
            let check = try expect(.check, channel)
            try Self.checkFormat(of: request.store, check.descriptor)
            channel.send(.fit)
        }
        // A spare one is told to go when it is needed, and not needed any more when there is nobody to tell it.
        guard let go = channel.receive(), go.kind == .go else { return }
        let keyring = ServedKeyring(
            request, board: board, shared: shared, stream: try Self.stream(), lock: go.descriptor,
            log: ServerLog(isDetached: isDetached))
        let door = try open(keyring, channel, isAwaited: go.code == 1)
        let connection = try expect(.mount, channel).descriptor
        do {
            try serve(door, keyring, channel, connection)
        } catch { throw Messages.failure(for: error) }
    }

    /// The stream of events, and behind it what waits for hooks.
    static let streamByteCount = EventStream.byteCount + HookRow.boardByteCount

    /// The memory of both, which outlives this server.
    private static func stream() throws(Failure) -> UnsafeMutableRawBufferPointer {
        var found = stat()
        // Made by a guardian that knew of no hooks.
        if fstat(ServerChild.Place.events, &found) == 0, found.st_size < streamByteCount {
            _ = ftruncate(ServerChild.Place.events, off_t(streamByteCount))
        }
        let mapped = mmap(nil, streamByteCount, PROT_READ | PROT_WRITE, MAP_SHARED, ServerChild.Place.events, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Failure("cannot map shared memory", errno: errno) }
        return UnsafeMutableRawBufferPointer(start: mapped, count: streamByteCount)
    }

    /// Reads the store beside the one that serves it.
    private static func checkFormat(of store: String, _ lock: Int32) throws(Failure) {
        defer { close(lock) }
        for attempt in 1... {
            do throws(Failure) {
                _ = try StoreDescription.summary(of: store, inheritedLock: lock)
                return
            } catch {
                // What is read while it changes may look damaged.
                guard attempt < 10 else { throw error }
                usleep(50_000)
            }
        }
    }

    private func expect(_ kind: Channel.Kind, _ channel: Channel) throws(Failure) -> Channel.Message {
        guard let message = channel.receive(), message.kind == kind else {
            throw Failure("the guardian of \(request.mountpoint) is gone")
        }
        return message
    }

    /// Opens the keyring, unless it was locked when the last server died.
    private func open(_ keyring: ServedKeyring, _ channel: Channel, isAwaited: Bool) throws(Failure) -> FrontDoor {
        let isFirst = keyring.board.initRequest == nil
        var fileSystem: SecretFS?
        var name = ""
        if keyring.board.isLocked {
            channel.send(.opened)
        } else {
            let hasKey = keyring.hasSharedKey || isFirst && keyring.takeCachedKey()
            // Readers wait for a successor, so it looks at the records beside them. The one after it, should it find
            // something, looks first, as is done with what lay there unwatched.
            let endsItself: @Sendable (Failure) -> Void = { failure in
                keyring.log.warn(failure.message)
                channel.fail(failure)
                _exit(failure.code.rawValue)
            }
            let (opened, store) = try keyring.open(
                hasKey ? nil : try request.keys.service(), takesOver: !isFirst,
                whenUnsound: isAwaited && !isFirst ? endsItself : nil)
            for warning in store.warnings where isFirst { channel.send(.warning, warning) }
            fileSystem = opened
            name = store.keyring.name
            channel.send(.opened, name, descriptor: keyring.lockDescriptor)
        }
        return FrontDoor(
            fileSystem, options: keyring.options(era: 0), tracksUse: request.options.idleLock != nil,
            keeper: keyring.keeper)
    }

    private func serve(_ door: FrontDoor, _ keyring: ServedKeyring, _ channel: Channel, _ connection: Int32) throws {
        let board = keyring.board
        var options = Server.Options()
        options.threadStarter = { SecretStack.startThread(byteCount: $0, signals: $1, $2) }
        let server = try Server(serving: door, descriptor: connection, options: options) {
            board.keep(initRequest: $0)
        }
        close(connection)
        let invalidations = Invalidations.Client(socket: ServerChild.Place.invalidations)
        door.connect { invalidations.invalidate($0) }
        let notifier = server.notifier
        keyring.events.connect { notifier.wake($0) }
        // Said before the first request is taken: a server that is killed after its first answer has served. No server
        // finds out by asking its mount: killed while it waits there, it could not end before its successor answers,
        // which is only started at its end.
        door.tellStart(isFirst: board.servers == 1)
        let willServe = { () -> Void in
            board.kernelResends = server.kernelResends
            channel.send(.serving)
        }
        if let request = board.initRequest {
            try server.start(.takingOver(initRequest: request), willServe: willServe)
        } else if board.servers > 1 {
            try server.start(.reclaiming, willServe: willServe)
        } else {
            // Nothing is taken from anybody: better that it is told that threads cannot be started.
            try server.start()
            channel.send(.serving)
        }
        let caretaker = Caretaker(
            door: door, keyring: keyring, server: server, channel: channel, idleLimit: request.options.idleLock)
        try caretaker.start()
        if let lease = keyring.lease { try LeaseWatch(lease, door: door, keyring: keyring).start() }
        defer { keyring.endAudit() }
        switch server.wait() {
        case .unmounted:
            door.fileSystem?.drain()
            try keyring.close(leavesLock: false)
        case .stopped where caretaker.isLeaving:
            door.fileSystem?.leave()
            try keyring.close(leavesLock: true)
        case .stopped:
            door.fileSystem?.drain()
            try keyring.close(leavesLock: false)
        case .failed(let number):
            door.fileSystem?.leave()
            try keyring.close(leavesLock: true)
            throw Failure("the connection to the kernel broke", errno: number)
        }
    }
}
