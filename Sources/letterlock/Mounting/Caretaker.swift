import CLinux
import Fuse
import Glibc
import SecretFS
import Synchronization
import Threads

/// The thread beside a server's workers: brings the mount to disk now and then, locks it when it
/// is idle, and does what the guardian says.
final class Caretaker: Sendable {
    /// How often what has changed is brought to disk and its epoch remembered (milliseconds).
    private static let rememberingTime: Int32 = 5000
    /// When a server that has started is done with that, and with those who waited for it (milliseconds).
    private static let settlingTime: Int32 = 1000
    /// How long a request may take that somebody else would have to do again (seconds).
    private static let leavingLimit: Double = 20

    private let door: FrontDoor
    private let keyring: ServedKeyring
    private let server: Server
    private let channel: Channel
    /// Seconds without any use after which the keyring is locked; nil for never.
    private let idleLimit: Int64?
    private let leaves = Atomic(false)

    init(door: FrontDoor, keyring: ServedKeyring, server: Server, channel: Channel, idleLimit: Int64?) {
        self.door = door
        self.keyring = keyring
        self.server = server
        self.channel = channel
        self.idleLimit = idleLimit
    }

    /// The server ends for another one's sake.
    var isLeaving: Bool { leaves.load(ordering: .acquiring) }

    func start() throws(Failure) {
        let number = startThread { self.run() }
        guard number == 0 else { throw Failure("cannot start a thread", errno: number) }
    }

    private func run() {
        var hasSettled = false
        while true {
            var waiting = pollfd(fd: channel.descriptor, events: Int16(POLLIN), revents: 0)
            if poll(&waiting, 1, hasSettled ? waitingTime : Self.settlingTime) == 0 {
                keyring.remember()
                // What starting and a burst have left; not at once, when readers wait for all of it.
                ProcessHygiene.forgetStart()
                ll_malloc_trim()
                hasSettled = true
            }
            if waiting.revents != 0, !heed() { return }
            if let idleLimit, !door.isLocked, door.idleSeconds >= idleLimit { door.lockKeyring() }
        }
    }

    private var waitingTime: Int32 {
        guard let idleLimit, !door.isLocked else { return Self.rememberingTime }
        return Int32(min(Int64(Self.rememberingTime), max(1, idleLimit - door.idleSeconds) * 1000))
    }

    /// False if there is nothing more to hear.
    private func heed() -> Bool {
        guard let message = channel.receive() else {
            guardianIsGone()
            return false
        }
        switch message.kind {
        case .leave:
            leaves.store(true, ordering: .releasing)
            server.stop(atMost: Self.leavingLimit)
        case .abandon: server.stop(atMost: Self.leavingLimit)
        default: break
        }
        return true
    }

    /// Nobody would restart this server, or give its mount to another one: it ends the mount while it can.
    private func guardianIsGone() {
        guard !keyring.request.usesDescriptorStore else {
            leaves.store(true, ordering: .releasing)
            server.stop(atMost: Self.leavingLimit)
            return
        }
        keyring.log.warn("the guardian of \(keyring.request.mountpoint) is gone: unmounting")
        do {
            // Without a look at what is mounted: this process must never wait for its own mount.
            try Fuse.Mount.unmount(keyring.request.mountpoint, lazily: true)
        } catch {
            keyring.log.warn(Messages.failure(for: error).message)
            server.stop(atMost: Self.leavingLimit)
        }
    }
}
