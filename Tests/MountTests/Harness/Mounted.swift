import Glibc
import Synchronization
import Testing

/// A mounted keyring of one test, unmounted at the end of its life whatever happened.
final class Mounted {
    let workspace: Workspace
    private let options: [String]
    private(set) var server: pid_t = 0
    private(set) var guardian: pid_t = 0
    /// Set by a test that has its server crash. Any other server that does fails its test: the guardian hides it from
    /// applications so well that it would not be noticed.
    var mayCrash = false

    /// MOUNTTESTS_PLAIN=1 runs on the disk itself, to check what the tests expect of any POSIX file system.
    static let isPlain = Workspace.variable("MOUNTTESTS_PLAIN") != nil

    init(options: String...) throws {
        workspace = try Workspace()
        self.options = options
        if Self.isPlain {
            try check(chmod(path, 0o700))
            return
        }
        let made = try workspace.letterlock(
            "init", workspace.store, "--name", "trial", "--key-service", workspace.keyService)
        guard made.status == 0 else { throw HarnessError("init: \(made.complaint)") }
        try mount()
    }

    deinit {
        if server != 0 {
            noticeCrash()
            let left = try? workspace.letterlock("umount", path)
            if left?.status != 0 { killServer() }
            Watchdog.shared.forget(guardian)
        }
    }

    var path: String { workspace("mnt") }
    var store: String { workspace.store }
    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }
    func control(_ name: String) -> String { "\(path)/.letterlock/\(name)" }

    func mount(_ more: String...) throws {
        guard !Self.isPlain else { return }
        var words = ["mount", workspace.store, path, "--key-service", workspace.keyService]
        for option in options + more { words += ["-o", option] }
        let outcome = try workspace.run([try Workspace.program()] + words)
        guard outcome.status == 0 else {
            throw HarnessError("mount ended with \(outcome.status): \(outcome.complaint)")
        }
        server = try process("server")
        guardian = try process("guardian")
        Watchdog.shared.watch(guardian)
    }

    /// The processes that the guardian has started: the server, and a spare one.
    func children() throws -> [pid_t] {
        let guardian = try process("guardian")
        return try text("/proc/\(guardian)/task/\(guardian)/children").split(separator: " ").compactMap { pid_t($0) }
    }

    /// The process that serves now, or its guardian, as the mount says.
    func process(_ name: String) throws -> pid_t { pid_t(try number("pid", of: name)) }

    /// How often a server was started for one that had died.
    func restarts() throws -> Int { try number("restarts", of: "guardian") }

    /// Fails the test if a server has ended otherwise than by SIGKILL or SIGTERM.
    private func noticeCrash() {
        guard !mayCrash, let status = try? text(control("status")),
            let field = status.firstRange(of: "\"last_end\":\"")
        else { return }
        let end = status[field.upperBound...].prefix { $0 != "\"" }
        let isAsked = end.contains("been killed by signal 9") || end.contains("been killed by signal 15")
        if !isAsked { Issue.record("a server that nobody has killed: \(end)") }
    }

    /// A number that `status` tells of one of the processes.
    private func number(_ field: String, of process: String) throws -> Int {
        let status = try text(control("status"))
        guard let server = status.firstRange(of: "\"\(process)\""),
            let start = status[server.upperBound...].firstRange(of: "\"\(field)\":"),
            let number = Int(status[start.upperBound...].drop { !$0.isNumber }.prefix { $0.isNumber })
        else { throw HarnessError("status does not tell it: \(status)") }
        return number
    }

    /// Unmounts as an administrator does.
    func unmount() throws {
        guard !Self.isPlain else { return }
        noticeCrash()
        let outcome = try workspace.letterlock("umount", path)
        guard outcome.status == 0 else {
            throw HarnessError("umount ended with \(outcome.status): \(outcome.complaint)")
        }
        Watchdog.shared.forget(guardian)
        server = 0
    }

    func remount(_ more: String...) throws {
        try unmount()
        guard !more.isEmpty else { return try mount() }
        try mount(more.joined(separator: ","))
    }

    /// SIGKILL for guardian and server, and the dead mount taken away.
    func killServer() {
        guard server != 0 else { return }
        Watchdog.shared.forget(guardian)
        let processes = [guardian, server]
        for process in processes { kill(process, SIGKILL) }
        umount2(path, Int32(MNT_DETACH))
        _ = eventually { processes.allSatisfy { kill($0, 0) != 0 } }
        server = 0
    }

    /// One command into a control file, in one write(2).
    func command(_ command: String, _ name: String) throws(Errno) {
        let file = try OpenFile(control(name), O_WRONLY)
        try file.write(command)
        try file.close()
    }

    /// What a control file reads as, without its newline.
    func answer(_ name: String) throws -> String {
        var answer = try text(control(name))
        if answer.last == "\n" { answer.removeLast() }
        return answer
    }
}

/// Kills servers of tests that hang, so that a hanging request fails its test and not the whole run.
final class Watchdog: Sendable {
    static let shared = Watchdog()
    static let patienceSeconds = 150
    private let deadlines = Mutex<[pid_t: Int]>([:])

    private init() {
        var thread = pthread_t()
        pthread_create(
            &thread, nil,
            { _ in
                while true {
                    sleep(1)
                    Watchdog.shared.bite()
                }
            }, nil)
        pthread_detach(thread)
    }

    func watch(_ server: pid_t, seconds: Int = patienceSeconds) {
        deadlines.withLock { $0[server] = time(nil) + seconds }
    }
    func forget(_ server: pid_t) { _ = deadlines.withLock { $0.removeValue(forKey: server) } }

    private func bite() {
        let now = time(nil)
        let late = deadlines.withLock { deadlines in
            let late = deadlines.filter { $0.value < now }.map(\.key)
            for server in late { deadlines.removeValue(forKey: server) }
            return late
        }
        for server in late { kill(server, SIGKILL) }
    }
}

extension Mounted {
    /// Unmounts after `letGo`, which has to close what the test holds open, and mounts again.
    func remountHolding(_ letGo: () throws -> Void) throws {
        try letGo()
        try remount()
    }
}
