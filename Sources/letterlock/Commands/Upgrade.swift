import ArgumentParser
import CLinux
import Glibc

struct Upgrade: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Replace the serving process with the program that is installed now; no open file breaks.",
        discussion: """
            The new server first shows that it can read the store; if it cannot, the old one goes on and the reason is told.
            The guardian of the mount stays what it is until the next mount.
            """)

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    private static let patienceSeconds = 60

    func run() throws {
        let control = try Control(at: mountpoint)
        let before = try control.json("status")
        guard let guardian = before["guardian"]["pid"].integer.flatMap({ Int32(exactly: $0) }),
            let upgrades = before["guardian"]["upgrades"].integer
        else { throw Failure("the mount on \(mountpoint) has no guardian that could upgrade it") }
        guard kill(guardian, SIGUSR1) == 0 else { throw Failure("the guardian, process \(guardian)", errno: errno) }
        let after = try outcome(control, upgrades)
        if let reason = after["guardian"]["upgrade_failure"].string {
            throw Failure("not upgraded: \(reason)", hint: "the old server goes on")
        }
        let server = after["server"]
        Output.line(
            "\(mountpoint) is served by process \(server["pid"].words), version \(server["version"].words)")
    }

    private func outcome(_ control: Control, _ upgrades: Int) throws(Failure) -> JSON {
        for _ in 0..<Self.patienceSeconds * 100 {
            usleep(10_000)
            let status = try control.json("status")
            if let now = status["guardian"]["upgrades"].integer, now != upgrades { return status }
        }
        throw Failure("no upgrade within \(Self.patienceSeconds) s", hint: "see the system log")
    }
}
