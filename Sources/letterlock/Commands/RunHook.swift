import ArgumentParser
import SecretFS

/// What a server starts a hook with. Not for people.
struct RunHook: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "run-hook", abstract: "Run a hook for its server.", shouldDisplay: false)

    @Option var place: Int
    @Option var ticket: UInt64
    @Option var timeout: Int
    @Option var mountpoint: String
    @Option var keyring: String
    @Option var name: String
    @Option var user: String?
    @Option var unit: String?
    @Option var signal: Int32?
    @Flag var detached = false
    @Argument(parsing: .postTerminator) var command: [String] = []

    func run() throws {
        let log = ServerLog(isDetached: detached)
        guard let run = HookRun(board: HookStarter.board, at: place, ticket: ticket) else { return }
        if let unit {
            let count = UnitProcesses.signal(unit, signal ?? 1)
            if count == 0 { log.warn("hook \(name): \(unit) does not run") }
            return run.end(count > 0 ? .exited : .notStarted, count > 0 ? 0 : UnitProcesses.notFound)
        }
        let program = HookProgram(
            name: name, mountpoint: mountpoint, keyring: keyring, user: user, timeout: timeout, command: command,
            log: log)
        let (outcome, number) = program.run(run)
        run.end(outcome, number)
    }
}
