import CLinux
import Glibc

/// Starts this very program once more, in the background, as the server of a mount.
struct ServerProcess {
    /// Descriptor numbers that the server finds its two pipes at.
    static let readyDescriptor: Int32 = 3
    static let passphraseDescriptor: Int32 = 4

    /// Starts `letterlock arguments…` in a session of its own, without a terminal, in `/`.
    ///
    /// - Parameters:
    ///   - ready: The end of the ready pipe that the server writes to.
    ///   - passphrase: The end of the pipe that the passphrase comes out of; -1 for none.
    static func start(_ arguments: [String], ready: Int32, passphrase: Int32) throws(Failure) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0)
        posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO)
        posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDERR_FILENO)
        posix_spawn_file_actions_adddup2(&actions, ready, readyDescriptor)
        if passphrase >= 0 { posix_spawn_file_actions_adddup2(&actions, passphrase, passphraseDescriptor) }
        posix_spawn_file_actions_addclosefrom_np(&actions, passphrase >= 0 ? 5 : 4)
        posix_spawn_file_actions_addchdir_np(&actions, "/")
        // No signal that the caller blocks or ignores shall be so for the server.
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        let newSession: Int32 = 0x80  // POSIX_SPAWN_SETSID
        posix_spawnattr_setflags(
            &attributes, Int16(newSession | Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)))

        var argv: [UnsafeMutablePointer<CChar>?] = (["letterlock"] + arguments).map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        var process: pid_t = 0
        let number = posix_spawn(&process, "/proc/self/exe", &actions, &attributes, argv, environ)
        guard number == 0 else {
            throw Failure("cannot start the server", errno: number, hint: "is /proc mounted?")
        }
        return process
    }

    /// A pipe whose ends no other program inherits, each of them numbered from 10 on.
    ///
    /// Numbers that low ones are copied from must not be among those that are copied to.
    static func pipe() throws(Failure) -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe2(&ends, O_CLOEXEC) == 0 else { throw Failure("pipe", errno: errno) }
        var high: [Int32] = []
        for end in ends {
            high.append(fcntl(end, F_DUPFD_CLOEXEC, 10))
            close(end)
        }
        guard high[0] >= 0, high[1] >= 0 else { throw Failure("pipe", errno: errno) }
        return (high[0], high[1])
    }
}
