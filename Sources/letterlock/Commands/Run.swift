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
        try Control.checkIsOnMount(env)
        try SecretEnvironment(of: env, withValues: !filesOnly).execute(command)
    }
}
