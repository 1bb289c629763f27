import Access
import ArgumentParser
import Glibc
import Sodium

/// Asks a policy about somebody who need not be there.
struct PolicyTest: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "test", abstract: "Explain what a policy says of somebody.",
        discussion: "What is not given of him is nobody's: uid 65534, no program, no unit.")

    @Argument(help: "Where the keyring is mounted whose policy is asked.", completion: .directory)
    var mountpoint: String?

    @Option(help: ArgumentHelp("Ask this policy instead.", valueName: "file"), completion: .file())
    var file: String?

    @Option(help: "The path, from the mount's root.")
    var path: String

    @Option(help: "read, write, list or control.")
    var operation: String = "read"

    @Option(help: "The user, by name or number.")
    var uid: String?

    @Option(help: "The group, by name or number.")
    var gid: String?

    @Option(parsing: .upToNextOption, help: "Further groups.")
    var groups: [String] = []

    @Option(help: "Where the program lies.", completion: .file())
    var exe: String?

    @Option(help: ArgumentHelp("The systemd unit.", valueName: "unit"))
    var unit: String?

    @Option(help: "The control group.")
    var cgroup: String?

    @Option(help: ArgumentHelp("The time of the day.", valueName: "HH:MM"))
    var at: String?

    @Option(help: "Openings that the process has had.")
    var opens: Int = 0

    @Option(help: ArgumentHelp("Fail unless that is the answer: allow or deny.", valueName: "answer"))
    var expect: String?

    func run() throws {
        let policy = try policy()
        guard let operation = Access.Operation(rawValue: operation) else {
            throw Failure("no such operation: \(operation)", hint: "read, write, list or control", code: .usage)
        }
        guard path.hasPrefix("/") else { throw Failure("a path from the mount's root begins with /", code: .usage) }
        guard expect == nil || ["allow", "deny"].contains(expect) else {
            throw Failure("--expect is allow or deny", code: .usage)
        }
        let minute = try at.map { text throws(Failure) in
            guard let minute = TimeWindow.minute(text) else {
                throw Failure("--at is a time of the day, as in 08:00", code: .usage)
            }
            return minute
        }
        let (decision, reasons) = policy.explain(
            operation, on: Array(path.utf8), for: try requester(), minuteOfDay: minute, opens: opens)
        let answer = decision.isAllowed ? "allow" : "deny"
        Output.line("\(answer) \(operation.rawValue) \(Output.printable(path)): \(decision.rule)")
        for reason in reasons { Output.line("  " + reason) }
        if let expect, expect != answer { throw Failure("the policy says \(answer), not \(expect)") }
    }

    private func policy() throws -> Access.Policy {
        if let file { return try PolicyFile(file).policy }
        guard let mountpoint else {
            throw Failure("which policy", hint: "name a mount point, or --file FILE", code: .usage)
        }
        let text = try Control(at: mountpoint).text("policy")
        do throws(PolicyMistakes) { return try Policy.parse(text, accounts: .ofThisMachine(), isNew: false) } catch {
            throw Failure("the server's policy is not understood", hint: "is it of the same version as this program?")
        }
    }

    private func requester() throws(Failure) -> Requester {
        let accounts = Accounts.ofThisMachine()
        let nobody: UInt32 = 65_534
        var groups: [UInt32] = []
        for group in self.groups { groups.append(try Self.number(group, accounts.groups, "group")) }
        var program = exe
        if let exe, case .success(let resolved) = Paths.resolved(exe) { program = resolved }
        let process = ProcessIdentity(
            supposedPID: 1, exe: program, cgroup: cgroup ?? unit.map { "/system.slice/" + $0 } ?? "/",
            groups: groups, hash: program.flatMap(Self.hash))
        return Requester(
            uid: try uid.map { text throws(Failure) in try Self.number(text, accounts.users, "user") } ?? nobody,
            gid: try gid.map { text throws(Failure) in try Self.number(text, accounts.groups, "group") } ?? nobody,
            process: process)
    }

    private static func number(_ text: String, _ known: [String: UInt32], _ kind: String) throws(Failure) -> UInt32 {
        guard let number = UInt32(text) ?? known[text] else {
            throw Failure("there is no \(kind) '\(text)' on this machine", code: .usage)
        }
        return number
    }

    private static func hash(of path: String) -> [UInt8]? {
        guard let bytes = try? SmallFile.read(path) else { return nil }
        var hash = SHA256()
        bytes.withUnsafeBytes { hash.add($0) }
        return hash.finish()
    }
}
