import CLinux
import Glibc

/// A server that the guardian has started.
final class ServerChild {
    let process: pid_t
    let channel: Channel
    /// It answers the kernel.
    var isServing = false
    /// What it said of its failure.
    var failure: Failure?

    /// Descriptor numbers at which a server finds what it shares with its guardian.
    enum Place {
        static let channel: Int32 = 3
        static let board: Int32 = 4
        static let key: Int32 = 5
        static let events: Int32 = 6
        static let invalidations: Int32 = 7
        static let passphrase: Int32 = 8
    }

    /// What is given to a server.
    struct Inheritance {
        var board: Int32
        var key: Int32
        var events: Int32
        var invalidations: Int32
        var passphrase: Int32?
    }

    /// Starts `program` (a descriptor of it) in a session of its own, with nothing but what it is given, standard
    /// streams as here, and every signal as if it were new.
    init(_ program: Int32, _ arguments: [String], _ given: Inheritance) throws(Failure) {
        let (own, other) = try Channel.pair()
        defer { close(other.descriptor) }
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        let places: [(from: Int32, to: Int32)] = [
            (other.descriptor, Place.channel), (given.board, Place.board), (given.key, Place.key),
            (given.events, Place.events), (given.invalidations, Place.invalidations),
        ]
        // Copies with high numbers first: none of those that are copied to may be among those that are copied from.
        var high: [Int32] = []
        defer { for descriptor in high { close(descriptor) } }
        func add(_ from: Int32, _ to: Int32) {
            let copy = fcntl(from, F_DUPFD_CLOEXEC, 64)
            high.append(copy)
            posix_spawn_file_actions_adddup2(&actions, copy, to)
        }
        for (from, to) in places { add(from, to) }
        if let passphrase = given.passphrase { add(passphrase, Place.passphrase) }
        posix_spawn_file_actions_addchdir_np(&actions, "/")
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let newSession: Int32 = 0x80  // POSIX_SPAWN_SETSID
        posix_spawnattr_setflags(
            &attributes, Int16(newSession | Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)))
        // Its number too must not be among those that are copied to.
        let executable = fcntl(program, F_DUPFD_CLOEXEC, 64)
        high.append(executable)
        var argv: [UnsafeMutablePointer<CChar>?] = (["letterlock"] + arguments).map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        var process: pid_t = 0
        // The very program that was opened, whatever lies at its path by now.
        let number = posix_spawn(&process, "/proc/self/fd/\(executable)", &actions, &attributes, argv, environ)
        guard number == 0 else {
            close(own.descriptor)
            throw Failure("cannot start the server", errno: number, hint: "is /proc mounted?")
        }
        self.process = process
        channel = own
    }

    deinit { close(channel.descriptor) }
}
