import ArgumentParser

struct KeyList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Show the versions: their state, age, and how many files each protects.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Flag(help: "As JSON, an element a version.")
    var json = false

    func run() throws {
        let control = try Control(at: mountpoint)
        guard !json else { return Output.line(try control.text("keys/list")) }
        var table = Table(header: ["VERSION", "STATE", "CREATED", "FILES", "NOTE"])
        for version in try control.json("keys/list").elements {
            var notes: [String] = []
            if case .text(let reason) = version["reason"], !reason.isEmpty { notes.append(reason) }
            if case .text(let time) = version["destroy_at"], time != "-" {
                notes.append("destroyed at \(time)")
            }
            table.add([
                version["version"].words, version["state"].words, version["created"].words,
                version["files"].words,
                notes.joined(separator: "; "),
            ])
        }
        table.show()
    }
}
