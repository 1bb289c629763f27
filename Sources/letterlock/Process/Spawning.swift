import CLinux
import Glibc

/// Starts a program: most often this one once more, as a guardian in the background, a server, a helper.
struct Spawning {
    /// What is executed: a path, also one of /proc/self.
    var path: String
    var arguments: [String]
    /// What it is told that it is called.
    var name = "letterlock"
    /// This process's own if nil.
    private var environment: [String]?
    /// Leads a process group of its own.
    private var leadsGroup = false
    /// Descriptors of this process, and the numbers that they are found at.
    var descriptors: [(from: Int32, to: Int32)] = []
    /// In a session of its own, in `/`, with every signal as if it were new.
    var isDetached = false
    /// Without standard streams, and with no descriptor from this number on.
    var closesFrom: Int32?

    /// This very program, whatever lies at its path by now.
    static let ownProgram = "/proc/self/exe"

    /// Numbers below this are given to descriptors.
    private static let firstCopy: Int32 = 64

    init(_ path: String, _ arguments: [String]) {
        self.path = path
        self.arguments = arguments
    }

    /// The program behind a descriptor.
    init(program: Int32, _ arguments: [String]) {
        // Its number must not be among those that are given.
        let copy = fcntl(program, F_DUPFD_CLOEXEC, Self.firstCopy)
        self.init("/proc/self/fd/\(copy)", arguments)
        programCopy = copy
    }
    private var programCopy: Int32 = -1

    /// Somebody else's program, in a process group of its own.
    init(command: [String], environment: [String]) {
        self.init(command[0], Array(command.dropFirst()))
        name = command[0]
        self.environment = environment
        leadsGroup = true
    }

    func start() throws(Failure) -> pid_t {
        do throws(SystemErrorNumber) { return try spawn() } catch {
            throw Failure("cannot start \(arguments[0])", errno: error.value, hint: "is /proc mounted?")
        }
    }

    func spawn() throws(SystemErrorNumber) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        // Copied first: what is copied from must not be among what is copied to.
        let copies = descriptors.map { (fcntl($0.from, F_DUPFD_CLOEXEC, Self.firstCopy), $0.to) }
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
            for (copy, _) in copies { close(copy) }
            if programCopy >= 0 { close(programCopy) }
        }
        if closesFrom != nil {
            posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDWR, 0)
            posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDOUT_FILENO)
            posix_spawn_file_actions_adddup2(&actions, STDIN_FILENO, STDERR_FILENO)
        }
        for (copy, place) in copies { posix_spawn_file_actions_adddup2(&actions, copy, place) }
        if let closesFrom { posix_spawn_file_actions_addclosefrom_np(&actions, closesFrom) }
        if isDetached { posix_spawn_file_actions_addchdir_np(&actions, "/") }
        // No signal that this process blocks or ignores shall be so for the other.
        var none = sigset_t()
        var all = sigset_t()
        sigemptyset(&none)
        sigfillset(&all)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setsigdefault(&attributes, &all)
        var flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF)
        if isDetached { flags |= 0x80 }  // POSIX_SPAWN_SETSID
        if leadsGroup { flags |= Int32(POSIX_SPAWN_SETPGROUP) }
        posix_spawnattr_setflags(&attributes, Int16(flags))
        let words: [UnsafeMutablePointer<CChar>?] = ([name] + arguments).map { strdup($0) } + [nil]
        let variables = environment.map { $0.map { strdup($0) } + [nil] }
        defer { for text in words + (variables ?? []) { free(text) } }
        var process: pid_t = 0
        let number: Int32
        if let variables {
            number = posix_spawn(&process, path, &actions, &attributes, words, variables)
        } else {
            number = posix_spawn(&process, path, &actions, &attributes, words, environ)
        }
        guard number == 0 else { throw SystemErrorNumber(number) }
        return process
    }

    /// A pipe whose ends no other program inherits.
    static func pipe() throws(Failure) -> (reading: Int32, writing: Int32) {
        var ends: [Int32] = [-1, -1]
        guard Glibc.pipe2(&ends, O_CLOEXEC) == 0 else { throw Failure("pipe", errno: errno) }
        return (ends[0], ends[1])
    }
}
