import Glibc

/// A directory of one test: a store's place, a mount point, a key file, and what Letterlock remembers.
final class Workspace {
    let path: String
    private(set) var environment: [String: String]

    init() throws {
        signal(SIGPIPE, SIG_IGN)
        var template = Array("\(Self.variable("TMPDIR") ?? "/tmp")/letterlock-test.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw Errno(errno) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        environment = [
            "PATH": (Self.variable("PATH") ?? "/usr/bin:/bin") + ":/usr/sbin:/sbin",
            "HOME": path + "/home", "LC_ALL": "C", "LETTERLOCK_STATE_DIRECTORY": path + "/state",
            "SWIFT_BACKTRACE": "enable=no", "PYENV_VERSION": "system",
            "TMPDIR": Self.variable("TMPDIR") ?? "/tmp",
        ]
        // Other users have to reach the mount point.
        try check(chmod(path, 0o711))
        for name in ["home", "mnt"] { try check(mkdir(self(name), 0o755)) }
        try put(pattern(32, seed: UInt64(getpid()) &+ 77), self("key"), mode: 0o600)
    }

    deinit {
        // Whatever a failed test left mounted below.
        for mountpoint in Self.mountpoints(below: path).reversed() { umount2(mountpoint, Int32(MNT_DETACH)) }
        _ = try? run(["rm", "-rf", "--one-file-system", path])
    }

    func callAsFunction(_ name: String) -> String { "\(path)/\(name)" }

    /// A file that has a server die when it is made: see `Failpoint` in SecretTree. For what is mounted after this.
    func allowFailpoints() -> String {
        environment["LETTERLOCK_FAILPOINT"] = self("failpoint")
        return self("failpoint")
    }

    /// A file that tells debug builds how far their schedules' clocks are ahead. For what is mounted after this.
    func setClock() -> String {
        environment["LETTERLOCK_CLOCK"] = self("clock")
        return self("clock")
    }

    var store: String { self("store") }
    var keyService: String { "keyfile:" + self("key") }

    func run(
        _ argv: [String], environment more: [String: String] = [:], directory: String? = nil,
        input: String? = nil,
        descriptors: [Int32: Int32] = [:], seconds: Int32 = 60
    ) throws -> Outcome {
        try start(argv, environment: more, directory: directory, input: input, descriptors: descriptors)
            .wait(seconds: seconds)
    }

    func start(
        _ argv: [String], environment more: [String: String] = [:], directory: String? = nil,
        input: String? = nil,
        descriptors: [Int32: Int32] = [:]
    ) throws -> Child {
        try Child(
            argv, environment: environment.merging(more) { $1 }, directory: directory ?? path,
            input: input.map { Array($0.utf8) }, descriptors: descriptors)
    }

    /// Runs a program that has to succeed.
    @discardableResult
    func done(
        _ argv: [String], environment more: [String: String] = [:], directory: String? = nil,
        input: String? = nil,
        seconds: Int32 = 60
    ) throws -> Outcome {
        let outcome = try run(argv, environment: more, directory: directory, input: input, seconds: seconds)
        guard outcome.status == 0 else {
            throw HarnessError(
                "\(argv.joined(separator: " ")) ended with \(outcome.status): \(outcome.complaint)\(outcome.text)"
            )
        }
        return outcome
    }

    /// Runs a shell script that has to succeed.
    @discardableResult
    func shell(_ script: String, directory: String? = nil, seconds: Int32 = 60) throws -> Outcome {
        try done(["bash", "-euo", "pipefail", "-c", script], directory: directory, seconds: seconds)
    }

    func letterlock(_ arguments: String..., input: String? = nil, descriptors: [Int32: Int32] = [:]) throws
        -> Outcome
    {
        try run([try Self.program()] + arguments, input: input, descriptors: descriptors)
    }

    /// The program under test: $LETTERLOCK, else what was built beside this bundle.
    static func program() throws -> String {
        if let given = variable("LETTERLOCK") { return given }
        var built = try linkTarget("/proc/self/exe")
        built = built[..<(built.lastIndex(of: "/") ?? built.startIndex)] + "/letterlock"
        guard access(built, X_OK) == 0 else {
            throw HarnessError("\(built) is not there: build the program first")
        }
        return built
    }

    static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }

    /// Mount points below `path`, in the order they were mounted.
    static func mountpoints(below path: String) -> [String] {
        guard let table = try? text("/proc/self/mountinfo") else { return [] }
        return table.split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ")
            return fields.count > 4 && fields[4].hasPrefix(path + "/") ? String(fields[4]) : nil
        }
    }
}
