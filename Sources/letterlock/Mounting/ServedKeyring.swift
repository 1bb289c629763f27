import Access
import Fuse
import Glibc
import Keyring
import SecretFS
import SecretTree
import Sodium
import Storage
import Synchronization

/// The keyring that a server has open, as long as it is unlocked: opens it, closes it, and keeps its epoch.
final class ServedKeyring: Sendable {
    private struct State {
        var opened: OpenKeyring?
        var keeper: EpochKeeper?
    }

    let request: MountRequest
    let board: Board
    let shared: SharedKey
    let events: EventStream
    private let hookBoard: HookBoard
    private struct HookBoard: @unchecked Sendable { let memory: UnsafeMutableRawBufferPointer }
    let log: ServerLog
    /// Over the memory that the guardian keeps: one for all that this server opens.
    private let ledger: Ledger
    /// The store's lock, which the guardian shares; -1 until it is known.
    private let lock: Atomic<Int32>
    /// Nil if the mount has none.
    let lease: Lease?
    private let state = Mutex(State())
    private let keyServices = KeyServiceMeter()
    /// Nobody was asked for what opened it.
    private let isFromCache = Atomic(false)
    /// One for all that this server opens; nil before the first, and if nothing is recorded.
    private let audit = Mutex<AuditLog?>(nil)

    /// - Parameter stream: The memory of the event stream, and behind it the hooks' board.
    init(
        _ request: MountRequest, board: Board, shared: SharedKey, stream: UnsafeMutableRawBufferPointer, lock: Int32,
        log: ServerLog
    ) {
        self.request = request
        self.board = board
        self.shared = shared
        let (events, hooks) = (stream[..<EventStream.byteCount], stream[EventStream.byteCount...])
        self.events = EventStream(memory: UnsafeMutableRawBufferPointer(rebasing: events))
        hookBoard = HookBoard(memory: UnsafeMutableRawBufferPointer(rebasing: hooks))
        self.lock = Atomic(lock)
        self.log = log
        ledger = Ledger(memory: board.ledgerMemory)
        lease = Lease(request.options, board)
    }

    /// Opens the store and what is in it.
    ///
    /// - Parameters:
    ///   - source: What opens it; nil for the key that the guardian keeps.
    ///   - takesOver: The kernel knows this mount from an earlier server, or from before it was locked.
    ///   - whenUnsound: If given, the store is looked at while it is served; told if it cannot be trusted.
    func open(_ source: (any KeyService)?, takesOver: Bool, whenUnsound: (@Sendable (Failure) -> Void)? = nil)
        throws(Failure) -> (SecretFS, OpenKeyring)
    {
        let known = lock.load(ordering: .relaxed)
        var opened = try StoreOpening.open(
            request.store,
            key: source.map { .service(MeteredKeyService(service: $0, meter: keyServices)) } ?? .shared(shared),
            readOnly: request.options.isReadOnly,
            purpose: "mounted at \(request.mountpoint)",
            acceptsRollback: request.options.acceptsRollback, takesOver: takesOver, whenUnsound: whenUnsound,
            inheritedLock: known >= 0 ? known : nil)
        let keeper = EpochKeeper(opened, log: log)
        do throws(Failure) { try attachAudit(opened, takesOver: takesOver) } catch {
            if known >= 0 { opened.store.leaveLock() }
            try? keeper.close()
            throw error
        }
        // After a takeover readers wait; it is remembered in a moment.
        if !takesOver { keeper.remember() }
        opened.keyring.share(shared)
        board.isLocked = false
        if source != nil {
            lease?.begin()
            if let seconds = request.options.unlockCache,
                let warning = UnlockCaching.keep(opened.keyring, seconds: seconds)
            {
                if takesOver { log.warn(warning) } else { opened.warnings.append(warning) }
            }
        }
        if known < 0 { lock.store(fcntl(opened.store.lockDescriptor, F_DUPFD_CLOEXEC, 64), ordering: .relaxed) }
        state.withLock { $0 = State(opened: opened, keeper: keeper) }
        var options = options(era: board.nextEra())
        options.lastVerification = TimeMemory.verification(history: opened.keyring.historyName).last
        let backups = BackupMemory(history: opened.keyring.historyName)
        let warn = log
        options.backups = SecretFSOptions.BackupNotes(
            last: { backups.last },
            note: { time, isRemembered in
                backups.note(time)
                if !isRemembered { warn.warn(BackupMemory.forgotten) }
            }, catalogues: backups.catalogues,
            recipient: { text throws(Errno) in
                do throws(Failure) { return try KeySource.recipient(text) } catch { throw Errno(EINVAL) }
            })
        if request.options.runsHooks == true, let memory = hookBoard.memory.baseAddress {
            let starter = HookStarter(
                mountpoint: request.mountpoint, keyring: opened.keyring.name, isDetached: log.isDetached)
            options.hooks = HookStage(
                board: memory, descriptor: ServerChild.Place.events, place: EventStream.byteCount,
                start: { starter.start($0, ServerChild.Place.events) })
        }
        return (SecretFS(opened.tree, options: options), opened)
    }

    /// Has what opened the keyring a while ago open it again, if that is wanted and there.
    func takeCachedKey() -> Bool {
        guard request.options.unlockCache != nil, let found = try? UnlockCaching.cache(ofStore: request.store),
            found.configuration.withUnsafeBytes({ found.cache.open($0, into: shared) })
        else { return false }
        isFromCache.store(true, ordering: .relaxed)
        return true
    }

    /// Opens the audit log, or gives it the keys of a keyring that was locked.
    private func attachAudit(_ opened: OpenKeyring, takesOver: Bool) throws(Failure) {
        if let audit = audit.withLock({ $0 }) {
            do { audit.attach(try AuditLog.Keys(of: opened.tree)) } catch { throw Messages.failure(for: error) }
            return
        }
        let log = try AuditOpening.open(
            AuditPlace(request.options), opened, memory: ledger.auditMemory, takesOver: takesOver,
            isFromCache: isFromCache.load(ordering: .relaxed), log: self.log)
        audit.withLock { $0 = log }
        if !takesOver { rememberAudit(opened) }
    }

    /// For those who change the keyring while nobody serves it.
    private func rememberAudit(_ opened: OpenKeyring) {
        do { try AuditPlace(request.options).remember(in: opened) } catch {
            log.warn("where the audit log is cannot be remembered: \(Messages.failure(for: error).message)")
        }
    }

    /// Has the key service unseal once more.
    func askAgain() -> LeaseAnswer {
        guard let keyring = state.withLock({ $0.opened?.keyring }) else { return .granted }
        do throws(Failure) {
            let service = MeteredKeyService(service: try request.keys.service(), meter: keyServices)
            do throws(KeyringError) {
                guard try !keyring.slots(openedBy: service).isEmpty else { return LeaseAnswer(.wrongSecret) }
                return .granted
            } catch { return LeaseAnswer(error) }
        } catch { return .unanswered(error.message) }
    }

    /// Signs what was recorded. When no request is served any more.
    func endAudit() { audit.withLock { $0 }?.close() }

    /// Brings to disk what is not yet, and remembers how far that is.
    func remember() { state.withLock { $0.keeper }?.remember() }

    /// Closes the store.
    ///
    /// - Parameter leavesLock: The guardian keeps the lock for the next one.
    func close(leavesLock: Bool) throws(Failure) {
        let last = state.withLock { state in
            defer { state = State() }
            return state
        }
        if leavesLock { last.opened?.store.leaveLock() }
        try last.keeper?.close()
    }

    /// A server before this one has opened it.
    var hasSharedKey: Bool { (try? shared.key()) ?? nil != nil }

    var lockDescriptor: Int32 { lock.load(ordering: .relaxed) }

    // MARK: Locking

    /// What the front door asks of this server.
    var keeper: FrontDoor.Keeper {
        FrontDoor.Keeper(
            open: { [self] secret throws(Errno) in try unlock(secret) },
            close: { [self] fileSystem in
                if let keyring = state.withLock({ $0.opened?.keyring }) { UnlockCaching.cache(of: keyring).forget() }
                // Whoever comes after this server, should it die now, is locked.
                shared.wipe()
                board.isLocked = true
                fileSystem.leave()
                audit.withLock { $0 }?.detach()
                try? close(leavesLock: true)
                log.note("\(request.mountpoint) is locked")
            },
            describe: { [self] in
                try? StoreDescription.summary(of: request.store, inheritedLock: lockDescriptor)
            })
    }

    /// Opens it again, with a passphrase that was written, or by asking the key service once more.
    private func unlock(_ typed: UnsafeRawBufferPointer) throws(Errno) -> SecretFS {
        do throws(Failure) {
            let (fileSystem, _) = try open(try request.keys.service(typed: typed), takesOver: true)
            log.note("\(request.mountpoint) is unlocked")
            return fileSystem
        } catch {
            log.warn("\(request.mountpoint) cannot be unlocked: \(error.message)")
            throw Errno(error.errno)
        }
    }

    // MARK: Options

    func options(era: Int) -> SecretFSOptions {
        var options = SecretFSOptions(ownerUID: getuid(), ownerGID: getgid(), events: events)
        options.uid = request.options.uid
        options.gid = request.options.gid
        options.umask = request.options.umask ?? 0
        options.cacheMode = request.options.cache == .kernel ? .kernel : .none
        options.isReadOnly = request.options.isReadOnly
        options.mountpoint = request.mountpoint
        options.storePath = request.store
        options.keyFilePath = request.keys.keyFilePath
        options.programVersion = Program.version
        options.generation = Int(board.servers)
        options.era = era
        options.guardianProcess = board.guardian
        options.clockAtMount = board.clockAtMount
        options.ledger = ledger
        options.audit = audit.withLock { $0 }
        if let lease { options.leaseReport = { lease.report } }
        let keyServices = keyServices
        options.keyServiceReport = { keyServices.report }
        let board = board
        options.guardianReport = {
            SecretFSOptions.GuardianReport(
                restarts: Int(board.restarts), lastEnd: board.lastEnd, kernelResends: board.kernelResends,
                upgrades: Int(board.upgrades),
                upgradeFailure: board.upgrades == 0 || board.hasUpgraded ? nil : board.upgradeText)
        }
        return options
    }
}
