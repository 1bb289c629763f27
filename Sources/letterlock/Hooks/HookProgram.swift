import CLinux
import Glibc
import SecretFS

/// A hook's command: run with a clean environment, nothing inherited, and no longer than it may.
struct HookProgram {
    let name: String
    let mountpoint: String
    let keyring: String
    let user: String?
    /// Milliseconds.
    let timeout: Int
    let command: [String]
    let log: ServerLog

    typealias End = (outcome: HookRow.Outcome, number: Int32)

    private static let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    /// Between the request to end and the end (milliseconds).
    private static let grace = 2000
    private static let lineLimit = 100

    /// Runs the command to its end, or to the end of its time.
    func run(_ run: borrowing HookRun) -> End {
        do throws(SystemErrorNumber) {
            endEarlier(run)
            try checkTrust()
            let paths = run.paths
            let environment = try become(areMore: paths.areMore)
            let (process, output) = try start(paths.bytes, environment)
            run.note(command: process)
            return watch(process, output)
        } catch {
            log.warn("hook \(name): \(command.first ?? ""): \(SystemError.text(error.value))")
            return (.notStarted, error.value)
        }
    }

    /// Ends what an earlier runner of this run has started, and was killed before it could end.
    private func endEarlier(_ run: borrowing HookRun) {
        guard let process = run.command else { return }
        log.warn("hook \(name): who watched \(command[0]) was killed: it is ended, and begun again")
        kill(-process, SIGKILL)
        _ = ProcessTable.awaitEnd(of: process, seconds: Int32(Self.grace / 1000))
    }

    /// Nobody but root and whoever serves the mount may be able to change what is run.
    private func checkTrust() throws(SystemErrorNumber) {
        guard let program = command.first else { throw SystemErrorNumber(ENOENT) }
        guard let weak = try ProgramTrust.weakness(of: program) else { return }
        log.warn("hook \(name): \(program) is not run, as others than root and its user could change \(weak)")
        throw SystemErrorNumber(EPERM)
    }

    /// Takes the user's rights, if one is named.
    ///
    /// - Returns: the command's environment.
    private func become(areMore: Bool) throws(SystemErrorNumber) -> [String] {
        if let user {
            errno = 0
            guard let account = getpwnam(user)?.pointee else { throw SystemErrorNumber(errno == 0 ? ENOENT : errno) }
            guard account.pw_uid == geteuid() || initgroups(user, account.pw_gid) == 0, setgid(account.pw_gid) == 0,
                setuid(account.pw_uid) == 0
            else { throw SystemErrorNumber(errno) }
            // Changing users may have taken this back.
            _ = ll_prctl(4, 0)  // PR_SET_DUMPABLE
        }
        var environment = [
            "PATH=\(Self.path)", "LANG=C.UTF-8", "LETTERLOCK_MOUNTPOINT=\(mountpoint)", "LETTERLOCK_KEYRING=\(keyring)",
            "LETTERLOCK_HOOK=\(name)",
        ]
        if areMore { environment.append("LETTERLOCK_MORE_PATHS=1") }
        if let account = getpwuid(geteuid())?.pointee {
            let (home, login) = (String(cString: account.pw_dir), String(cString: account.pw_name))
            environment += ["HOME=\(home)", "USER=\(login)", "LOGNAME=\(login)"]
        }
        return environment
    }

    private func start(_ paths: [UInt8], _ environment: [String]) throws(SystemErrorNumber) -> (pid_t, Int32) {
        var (input, output): ([Int32], [Int32]) = ([-1, -1], [-1, -1])
        guard pipe2(&input, O_CLOEXEC) == 0, pipe2(&output, O_CLOEXEC) == 0 else { throw SystemErrorNumber(errno) }
        // A pipe has room for them.
        _ = write(input[1], paths, paths.count)
        close(input[1])
        umask(0o022)
        var files = rlimit()
        if getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files) == 0 {
            files.rlim_cur = min(files.rlim_cur, 1024)
            setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &files)
        }
        defer {
            close(input[0])
            close(output[1])
        }
        var spawning = Spawning(command: command, environment: environment)
        spawning.descriptors = [
            (input[0], STDIN_FILENO), (output[1], STDOUT_FILENO), (output[1], STDERR_FILENO),
        ]
        spawning.closesFrom = 3
        do throws(SystemErrorNumber) { return (try spawning.spawn(), output[0]) } catch {
            close(output[0])
            throw error
        }
    }

    // MARK: Watching

    private func watch(_ process: pid_t, _ output: Int32) -> End {
        let end = ll_pidfd_open(process)
        _ = fcntl(output, F_SETFL, O_NONBLOCK)
        var log = HookOutput(name: name, limit: Self.lineLimit, log: log)
        let deadline = Self.now + timeout
        var isOver = false
        while !isOver {
            let rest = deadline - Self.now
            guard rest > 0 else { break }
            var waiting = [
                pollfd(fd: end, events: Int16(POLLIN), revents: 0),
                pollfd(fd: log.isClosed ? -1 : output, events: Int16(POLLIN), revents: 0),
            ]
            _ = poll(&waiting, 2, Int32(min(rest, 60_000)))
            if waiting[1].revents != 0 { log.take(output) }
            isOver = waiting[0].revents != 0
        }
        if !isOver {
            kill(-process, SIGTERM)
            var waiting = pollfd(fd: end, events: Int16(POLLIN), revents: 0)
            _ = poll(&waiting, 1, Int32(Self.grace))
            // Also what the command itself has left behind.
            kill(-process, SIGKILL)
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        log.take(output)
        log.finish()
        guard isOver else {
            self.log.warn("hook \(name): \(command[0]) took longer than \(timeout) ms and was killed")
            return (.timedOut, 0)
        }
        let signal = status & 0x7f
        let result: End = signal == 0 ? (.exited, status >> 8 & 0xff) : (.killed, signal)
        if status != 0 {
            self.log.warn(
                "hook \(name): \(command[0]) \(signal == 0 ? "ended with \(result.number)" : "was killed by signal \(signal)")"
            )
        }
        return result
    }

    private static var now: Int {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return time.tv_sec * 1000 + time.tv_nsec / 1_000_000
    }
}

/// What a command says, a line each to the log; not more than anybody reads.
struct HookOutput {
    let name: String
    let limit: Int
    let log: ServerLog
    private(set) var isClosed = false
    private var line: [UInt8] = []
    private var count = 0
    private static let lineLimit = 1000

    init(name: String, limit: Int, log: ServerLog) {
        self.name = name
        self.limit = limit
        self.log = log
    }

    /// Takes what there is.
    mutating func take(_ descriptor: Int32) {
        var chunk = [UInt8](repeating: 0, count: 4096)
        while !isClosed {
            let got = read(descriptor, &chunk, chunk.count)
            if got < 0, errno == EINTR { continue }
            if got < 0, errno == EAGAIN { return }
            guard got > 0 else {
                isClosed = true
                return
            }
            for byte in chunk[..<got] {
                if byte == UInt8(ascii: "\n") { say() } else if line.count < Self.lineLimit { line.append(byte) }
            }
        }
    }

    mutating func finish() { if !line.isEmpty { say() } }

    private mutating func say() {
        count += 1
        if count <= limit {
            log.note("hook \(name): \(String(decoding: line, as: UTF8.self))")
        } else if count == limit + 1 {
            log.note("hook \(name): it says more than is kept")
        }
        line.removeAll()
    }
}
