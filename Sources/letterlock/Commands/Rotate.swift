import ArgumentParser
import Glibc

struct Rotate: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a new key-encryption key version and make it the primary.",
        discussion: "No file is touched: what is written from now on is sealed under the new version.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Option(help: ArgumentHelp("Rotate only if N is the latest version still.", valueName: "N"))
    var ifLatest: UInt32?

    // A rotation has ended when its command returns; the flag is there for those who give it to every job.
    @Flag(help: .hidden)
    var wait = false

    @Flag(help: "Say which version it would make, and do nothing.")
    var dryRun = false

    @Flag(help: "Tell about it as JSON.")
    var json = false

    func run() throws {
        let control = try Control(at: mountpoint)
        if dryRun {
            guard let latest = UInt32(try control.text("keys/rotate")) else {
                throw Failure("keys/rotate is no number")
            }
            if let ifLatest, ifLatest != latest { throw control.explain(ESTALE, reading: false, "keys/rotate", nil) }
            return Output.line(
                json ? "{\"latest\":\(latest),\"next\":\(latest + 1)}" : "KEK version \(latest + 1) would be made")
        }
        try control.write(ifLatest.map { "if-latest=\($0)" } ?? "1", to: "keys/rotate")
        let primary = try control.text("keys/primary")
        Output.line(json ? "{\"primary\":\(primary)}" : "KEK version \(primary) is the primary")
    }
}
