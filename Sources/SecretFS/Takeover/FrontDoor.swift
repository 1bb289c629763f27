public import Fuse
internal import Glibc
public import Keyring
import SecretTree
import Synchronization
import Threads

/// What the kernel talks to for as long as a server runs: it lets requests through to the keyring's file system while
/// that is unlocked, and answers itself those that an earlier server has done already.
///
/// Locking takes the file system away, with its keys; unlocking makes a new one, which takes up what applications hold
/// open just as the successor of a dead server does.
public final class FrontDoor: FileSystem, @unchecked Sendable {
    /// Who knows how to open and close the keyring.
    public struct Keeper: Sendable {
        /// Opens it; of `secret` what a person typed.
        public var open: @Sendable (_ secret: UnsafeRawBufferPointer) throws(Errno) -> SecretFS
        /// Closes it, leaving what is being gathered to the next one, and takes its keys away.
        public var close: @Sendable (SecretFS) -> Void
        /// What can be told of the keyring without its keys; nil if the store cannot be read.
        public var describe: @Sendable () -> KeyringSummary?

        public init(
            open: @escaping @Sendable (UnsafeRawBufferPointer) throws(Errno) -> SecretFS,
            close: @escaping @Sendable (SecretFS) -> Void, describe: @escaping @Sendable () -> KeyringSummary?
        ) {
            self.open = open
            self.close = close
            self.describe = describe
        }
    }

    // Unchecked: guarded by `lock`.
    private var inner: SecretFS?
    private let lock = ReadWriteLock()
    /// One locking or unlocking at a time.
    private let changing = Mutex<Void>(())
    private let ledger: Ledger?
    private let keeper: Keeper
    let options: SecretFSOptions
    /// Somebody asks how long it was not used.
    private let tracksUse: Bool
    /// Has the kernel drop a node's pages.
    private let pages = Mutex(Pages())
    /// Not the closure by itself: each time a generic container hands one out it puts another layer around what it keeps.
    private struct Pages: Sendable { var invalidate: (@Sendable (UInt64) -> Void)? }
    /// When something was last asked for, in seconds of CLOCK_BOOTTIME; requests of the control directory do not count.
    private let lastUse = Atomic<Int64>(SecretFS.bootSeconds)
    /// The root directory's attributes as they were when it was locked.
    private var root = stat()

    /// - Parameters:
    ///   - fileSystem: nil for a keyring that is locked.
    ///   - tracksUse: `idleSeconds` will be asked for.
    public init(_ fileSystem: SecretFS?, options: SecretFSOptions, tracksUse: Bool, keeper: Keeper) {
        inner = fileSystem
        ledger = options.ledger
        self.options = options
        self.tracksUse = tracksUse
        self.keeper = keeper
        root.st_ino = UInt(NodeID.root.rawValue)
        root.st_mode = S_IFDIR | 0o700
        root.st_nlink = 2
        root.st_uid = options.ownerUID
        root.st_gid = options.ownerGID
    }

    /// Has the kernel told of what it must drop.
    ///
    /// - Parameter invalidate: Drops a node's pages; called by a thread that may wait for it.
    public func connect(_ invalidate: @escaping @Sendable (UInt64) -> Void) {
        pages.withLock { $0.invalidate = invalidate }
        lock.reading { inner?.connect(invalidate) }
    }

    public var isLocked: Bool { lock.reading { inner == nil } }

    /// Seconds since something was last asked for.
    public var idleSeconds: Int64 { SecretFS.bootSeconds - lastUse.load(ordering: .relaxed) }

    /// The file system, for who ends it when no request is served any more; nil if it is locked.
    public var fileSystem: SecretFS? { lock.reading { inner } }

    // MARK: Locking

    /// Takes the keys away. On return no secret can be read, not through open descriptors either.
    public func lockKeyring() {
        changing.withLock { _ in
            let taken = lock.writing { () -> SecretFS? in
                guard let fileSystem = inner else { return nil }
                if let attributes = try? fileSystem.tree.attributes(of: .root) {
                    root = stat(attributes, fileSystem.options)
                }
                inner = nil
                return fileSystem
            }
            guard let fileSystem = taken else { return }
            options.events.tell(Event(.locked))
            // Not under the lock: the kernel may hold pages for which somebody waits to be refused.
            fileSystem.dropPages(of: (try? fileSystem.tree.files()) ?? [])
            keeper.close(fileSystem)
        }
    }

    /// - Throws: EKEYREJECTED and the like; it stays locked then.
    public func unlockKeyring(_ secret: UnsafeRawBufferPointer) throws(Errno) {
        try changing.withLock { _ throws(Errno) in
            guard isLocked else { return }
            let fileSystem = try keeper.open(secret)
            lock.writing { inner = fileSystem }
            lastUse.store(SecretFS.bootSeconds, ordering: .relaxed)
            options.events.tell(Event(.unlocked))
            if let invalidate = pages.withLock({ $0 }).invalidate { fileSystem.connect(invalidate) }
        }
    }

    /// The control file `status` while it is locked.
    var lockedStatus: String { options.lockedStatus(keeper.describe()).line }

    // MARK: Letting through

    private func noteUse(of node: UInt64) {
        guard tracksUse, ControlNode(node) == nil else { return }
        lastUse.store(SecretFS.bootSeconds, ordering: .relaxed)
    }

    /// - Parameter handle: Of a write, which leaves a gap if it is refused.
    func pass<R>(
        _ node: UInt64, writing handle: UInt64? = nil, _ body: (SecretFS) throws(Errno) -> R
    ) throws(Errno) -> R {
        try lock.reading { () throws(Errno) -> R in
            guard let inner else {
                // Before it can be unlocked.
                if let handle { noteGap(ofHandle: handle) }
                throw Errno(ENOKEY)
            }
            noteUse(of: node)
            return try body(inner)
        }
    }

    /// Lets a request through, or calls `other` while the keyring is locked.
    func pass<R>(
        _ node: UInt64, whileLocked other: () throws(Errno) -> R, _ body: (SecretFS) throws(Errno) -> R
    ) throws(Errno) -> R {
        let result = try lock.reading { () throws(Errno) -> R? in
            guard let inner else { return nil }
            noteUse(of: node)
            return try body(inner)
        }
        if let result { return result }
        return try other()
    }

    /// As the root directory looks while it is locked.
    var lockedRoot: stat { lock.reading { root } }

    /// True if an earlier server has done what is asked for: it died before its answer came through.
    func isDone(_ caller: Caller) -> Bool {
        guard caller.isResend, ledger?.hasDone(caller.unique) == true else { return false }
        inner?.recordDone(caller)
        return true
    }

    /// Handles are closed though the keyring is locked. What was being gathered is given up.
    func forgetHandle(_ handle: UInt64, of node: UInt64) {
        if node == ControlNode.events.number { return options.closeEvents(handle) }
        guard let ledger, lock.reading({ inner == nil }) else { return }
        for cell in cells(ofHandle: handle) { ledger.giveBack(cell) }
    }

    /// A write was refused because the keyring is locked: what is gathered has a gap, and is to replace nothing.
    private func noteGap(ofHandle handle: UInt64) {
        for cell in cells(ofHandle: handle) where cell.kind == .writer { cell.marks.insert(.hasFailed) }
    }

    private func cells(ofHandle handle: UInt64) -> [LedgerCell] {
        let (kind, number): (LedgerCell.Kind, UInt64)
        switch Handle(handle) {
        case .writer(let found): (kind, number) = (.writer, found)
        case .directReader(let found): (kind, number) = (.reader, found)
        case .reader, .control: return []
        }
        return ledger?.cells().filter { $0.kind == kind && $0.handle == number } ?? []
    }
}
