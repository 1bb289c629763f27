import ArgumentParser

struct Run: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Run a program with variables from a mounted keyring; ends with what the program ends with.",
        discussion: """
            Of each file that may be read there are NAME_FILE, its path, and NAME, its value without the newline at its end. \
            web/db-password is WEB_DB_PASSWORD. Names that begin with a dot are passed over, as are values with zero bytes or \
            of 128 KiB and more (they have NAME_FILE alone). Prefer NAME_FILE: an environment is inherited by every child, \
            and does not change when the secret does.
            """)

    @Option(
        help: ArgumentHelp("Where the keyring is mounted, or a directory there.", valueName: "mountpoint"),
        completion: .directory)
    var env: String

    @Flag(help: "NAME_FILE alone: no value in the environment.")
    var filesOnly = false

    @Argument(parsing: .postTerminator, help: "The program and its arguments, after --.")
    var command: [String]

    func run() throws {
        guard !command.isEmpty else {
            throw Failure("what to run is missing", hint: "letterlock run --env MOUNTPOINT -- CMD …", code: .usage)
        }
        try Self.checkMounted(env)
        try SecretEnvironment(of: env, withValues: !filesOnly).execute(command)
    }

    /// Of nothing but a keyring: a place where it is not mounted has other files, or none.
    private static func checkMounted(_ path: String) throws(Failure) {
        if case .success(let place) = Paths.resolved(path),
            MountTable().letterlocks.contains(where: { Paths.contains($0.mountpoint, place) })
        {
            return
        }
        // Which says why not.
        _ = try Control(at: path)
    }
}
