import CLinux
import Glibc

/// Starts this program once more for a small thing.
enum Spawning {
    /// - Parameter program: A descriptor of it.
    static func start(_ program: Int32, _ arguments: [String]) throws(Failure) -> pid_t {
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        var argv: [UnsafeMutablePointer<CChar>?] = (["letterlock"] + arguments).map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        var process: pid_t = 0
        let number = posix_spawn(&process, "/proc/self/fd/\(program)", nil, &attributes, argv, environ)
        guard number == 0 else { throw Failure("cannot start a process", errno: number) }
        return process
    }
}
