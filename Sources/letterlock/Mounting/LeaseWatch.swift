import Glibc
import SecretFS

/// The thread that asks the key service again when a lease is over: by itself, as an answer may take as long as a network does.
final class LeaseWatch: Sendable {
    private let door: FrontDoor
    private let keyring: ServedKeyring
    private let lease: Lease

    init(_ lease: Lease, door: FrontDoor, keyring: ServedKeyring) {
        self.lease = lease
        self.door = door
        self.keyring = keyring
    }

    func start() throws(Failure) {
        var thread = pthread_t()
        let this = Unmanaged.passRetained(self)
        let number = pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<LeaseWatch>.fromOpaque(argument!).takeRetainedValue().run()
                return nil
            }, this.toOpaque())
        guard number == 0 else {
            this.release()
            throw Failure("cannot start a thread", errno: number)
        }
        pthread_detach(thread)
    }

    private func run() {
        while true {
            // What is locked may be unlocked meanwhile, for a new lease.
            sleep(UInt32(door.isLocked ? lease.longestPause : lease.pause))
            if !door.isLocked, lease.isOver { ask() }
        }
    }

    private func ask() {
        let place = keyring.request.mountpoint
        switch keyring.askAgain() {
        case .granted: lease.begin()
        case .refused(let why):
            keyring.log.warn("\(place): \(why); the lease of its keys is over")
            door.lockKeyring()
        case .unanswered(let why):
            lease.note(why)
            keyring.log.warn("\(place): the lease of its keys is not renewed: \(why)")
            guard lease.hasEnded else { return }
            keyring.log.warn("\(place): the time of grace is over")
            door.lockKeyring()
        }
    }
}
