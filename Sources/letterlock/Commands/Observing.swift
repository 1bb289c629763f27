import ArgumentParser
import Glibc

struct Readers: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Show who last read which secret, and who still goes by an old value.",
        discussion: "Known since the server has started; --json tells when that was.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Argument(help: "Only this file, or what lies below this directory.", completion: .file())
    var path: String?

    @Flag(help: "Only those who have not read the value that holds now.")
    var stale = false

    @Flag(help: "As JSON.")
    var json = false

    func run() throws {
        let control = try Control(at: mountpoint)
        guard !json else { return Output.line(try control.text("readers")) }
        var table = Table(header: ["PATH", "UID", "PID", "PROGRAM", "UNIT", "READ", "VALUE"])
        let wanted = path.map { Self.inMount($0, control.mountpoint) }
        var count = 0
        for reader in try control.json("readers")["readers"].elements {
            let isStale = reader["stale"] == .bool(true)
            if stale, !isStale { continue }
            if let wanted, !Paths.contains(wanted, reader["path"].words) { continue }
            count += 1
            table.add(
                ["path", "uid", "pid", "exe", "unit", "read"].map { reader[$0].words } + [isStale ? "old" : "current"])
        }
        guard count > 0 else { return Output.line(stale ? "nobody goes by an old value" : "nobody has read anything") }
        table.show()
    }

    /// A path from the mount's root, of one that leads into it or is such already.
    private static func inMount(_ path: String, _ mountpoint: String) -> String {
        let absolute = Paths.absolute(path)
        guard Paths.contains(mountpoint, absolute) else { return path.hasPrefix("/") ? path : "/" + path }
        let rest = absolute.dropFirst(mountpoint.count)
        return rest.isEmpty ? "/" : String(rest)
    }
}

struct Metrics: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Print a mounted keyring's metrics in Prometheus' text format.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Option(
        help: ArgumentHelp(
            "Put them into this file in one step, readable for all: for node_exporter's textfile collector.",
            valueName: "file"), completion: .file())
    var textfile: String?

    func run() throws {
        let text = try Control(at: mountpoint).text("metrics")
        guard let textfile else { return Output.line(text) }
        do throws(SystemErrorNumber) { try SmallFile.replace(textfile, with: text + "\n", mode: 0o644) } catch {
            throw Failure(textfile, errno: error.value)
        }
    }
}
