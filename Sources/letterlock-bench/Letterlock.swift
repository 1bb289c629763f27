import Glibc

/// The program that this package is about, with one of its two ways to cache.
final class Letterlock: Subject {
    private let program: String
    private let workspace: String
    private let option: String?
    private var serverProcess: pid_t?
    override var isVariant: Bool { isOneOfSeveral }
    private let isOneOfSeveral: Bool
    private let policy: String?

    /// - Parameters:
    ///   - option: What it is mounted with.
    ///   - policy: The rules that every opening is judged by.
    init(
        program: String, _ option: String? = nil, policy: String? = nil, isVariant: Bool = false, workspace: String,
        log: String
    ) {
        (self.program, self.workspace, self.option, isOneOfSeveral) = (program, workspace, option, isVariant)
        self.policy = policy
        super.init(
            name: "letterlock" + (option.map { " " + $0 } ?? "") + (policy == nil ? "" : " with a policy"),
            path: workspace + "/mount", log: log)
    }

    /// Lets this very user do what it does anyway, by rules that look at the program too.
    static let benchPolicy = """
        default = "deny"
        [[rule]]
        name = "the benchmark"
        effect = "allow"
        paths = ["/**"]
        operations = ["read", "write", "list", "control"]
        exes = ["/**"]
        uids = [\(getuid())]
        """

    override var serverID: pid_t? { serverProcess }
    private var keyService: String { "keyfile:\(workspace)/key" }
    private var environment: [String: String] { ["LETTERLOCK_STATE_DIRECTORY": workspace + "/state"] }
    private var store: String { workspace + "/store" }

    override func create() throws(Failure) {
        for name in ["", "/mount"] { try check(mkdir(workspace + name, 0o700), workspace + name) }
        var key = [UInt8](repeating: 0, count: 32)
        try check(getentropy(&key, 32), "getentropy")
        try File.write(workspace + "/key", key)
        try run(["init", store, "--name", "bench", "--key-service", keyService])
    }

    override func remove() { File.removeTree(workspace) }

    override func mount() throws(Failure) {
        let options = option.map { ["-o", $0] } ?? []
        try run(["mount", store, path, "--key-service", keyService] + options)
        isMounted = true
        serverProcess = try serverFromStatus()
        if let policy { try File.write(path + "/.letterlock/policy", Array(policy.utf8), flags: O_WRONLY) }
    }

    override func unmount() {
        guard isMounted else { return }
        isMounted = false
        if (try? run(["umount", path])) == nil { umount2(path, Int32(MNT_DETACH)) }
        serverProcess = nil
    }

    /// Kills the serving process, as a crash does, and leaves the rest to its guardian.
    func killServer() throws(Failure) {
        guard let server = serverProcess else { throw Failure("\(name) has no server") }
        try check(kill(server, SIGKILL), "kill")
    }

    /// After a kill: who serves now.
    func findServer() throws(Failure) { serverProcess = try serverFromStatus() }

    func rotate() throws(Failure) {
        try File.write(path + "/.letterlock/keys/rotate", Array("1\n".utf8), flags: O_WRONLY)
    }

    private func run(_ words: [String]) throws(Failure) {
        try Process.run([program] + words, environment: environment, log: log)
    }

    private func serverFromStatus() throws(Failure) -> pid_t {
        let status = String(decoding: try File.contents(path + "/.letterlock/status"), as: UTF8.self)
        guard let server = status.firstRange(of: "\"server\""),
            let field = status[server.upperBound...].firstRange(of: "\"pid\":"),
            let pid = pid_t(status[field.upperBound...].drop { !$0.isNumber }.prefix { $0.isNumber })
        else { throw Failure("status names no server") }
        return pid
    }
}

/// The same file system without a guardian.
final class Alone: Served {
    private let program: String
    private let alone: String
    private let workspace: String

    init(program: String, alone: String, workspace: String, log: String) {
        (self.program, self.alone, self.workspace) = (program, alone, workspace)
        super.init(name: "without guardian", path: workspace + "/mount", log: log)
    }

    override var isVariant: Bool { true }
    private var key: String { workspace + "/key" }
    override var serverCommand: [String] { [alone, workspace + "/store", path, key] }

    override func create() throws(Failure) {
        for name in ["", "/mount"] { try check(mkdir(workspace + name, 0o700), workspace + name) }
        var bytes = [UInt8](repeating: 0, count: 32)
        try check(getentropy(&bytes, 32), "getentropy")
        try File.write(key, bytes)
        try Process.run(
            [program, "init", workspace + "/store", "--name", "alone", "--key-service", "keyfile:" + key],
            environment: ["LETTERLOCK_STATE_DIRECTORY": workspace + "/state"], log: log)
    }
    override func remove() { File.removeTree(workspace) }
}
