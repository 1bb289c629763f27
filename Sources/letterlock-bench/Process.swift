import Glibc

/// A program that was started here and is ended here, by its own process id.
final class Process {
    let pid: pid_t
    private var status: Int32?

    /// - Parameter log: The file that takes what it says.
    init(_ argv: [String], environment more: [String: String] = [:], log: String) throws(Failure) {
        var actions = posix_spawn_file_actions_t()
        var attributes = posix_spawnattr_t()
        posix_spawn_file_actions_init(&actions)
        posix_spawnattr_init(&attributes)
        defer {
            posix_spawn_file_actions_destroy(&actions)
            posix_spawnattr_destroy(&attributes)
        }
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_APPEND, 0o600)
        posix_spawn_file_actions_adddup2(&actions, 1, 2)
        // What the bench blocks for itself is not blocked for what it starts; a terminal's ^C is the bench's alone.
        var none = sigset_t()
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETPGROUP))
        var words: [UnsafeMutablePointer<CChar>?] = argv.map { strdup($0) }
        words.append(nil)
        for (name, value) in more { setenv(name, value, 1) }
        defer { for word in words { free(word) } }
        var pid: pid_t = 0
        let number = posix_spawnp(&pid, argv[0], &actions, &attributes, words, environ)
        guard number == 0 else { throw Failure("cannot run \(argv[0]): \(String(cString: strerror(number)))") }
        self.pid = pid
    }

    deinit { if status == nil { end() } }

    var hasEnded: Bool {
        if status != nil { return true }
        var raw: Int32 = 0
        guard waitpid(pid, &raw, WNOHANG) == pid else { return false }
        status = raw
        return true
    }

    /// Its exit code, or 128 and the signal that ended it.
    func wait() -> Int32 {
        var raw = status ?? 0
        if status == nil { while waitpid(pid, &raw, 0) < 0, errno == EINTR {} }
        status = raw
        return raw & 0x7F == 0 ? raw >> 8 & 0xFF : 128 + raw & 0x7F
    }

    /// Waits for its end; helps after 30 seconds.
    func end() {
        for _ in 0..<3000 {
            if hasEnded { return }
            usleep(10_000)
        }
        kill(pid, SIGTERM)
        for _ in 0..<300 {
            if hasEnded { return }
            usleep(10_000)
        }
        kill(pid, SIGKILL)
        _ = wait()
    }

    /// Runs a program that has to succeed.
    static func run(_ argv: [String], environment: [String: String] = [:], log: String) throws(Failure) {
        let status = try Process(argv, environment: environment, log: log).wait()
        guard status == 0 else { throw Failure("\(argv[0]) ended with \(status), see \(log)") }
    }

    /// Whether there is such a program in the path.
    static func exists(_ program: String) -> Bool {
        guard let path = getenv("PATH") else { return false }
        return String(cString: path).split(separator: ":").contains { access("\($0)/\(program)", X_OK) == 0 }
    }

    /// Memory that a process has resident now, in MiB.
    static func residentMebibytes(_ pid: pid_t) throws -> Double {
        let status = String(decoding: try File.contents("/proc/\(pid)/status"), as: UTF8.self)
        guard let line = status.split(separator: "\n").first(where: { $0.hasPrefix("VmRSS:") }),
            let kibibytes = Double(line.split(separator: " ").dropFirst().first ?? "")
        else { throw Failure("process \(pid) is gone") }
        return kibibytes / 1024
    }
}
