import ArgumentParser
import Glibc

struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            """
            Take secrets into a mounted keyring: from a directory, a dotenv file, JSON, manifests of Kubernetes, \
            a sops file, or a store of pass.
            """,
        discussion: """
            Of a dotenv file each variable is a file of its name; of JSON each string is a file, each object a directory; of \
            Kubernetes' manifests each Secret is a directory NAME, or NAMESPACE/NAME, each of its keys a file. What sops has sealed for \
            an age recipient is opened with an identity, and taken only if its MAC is right; a store of pass is opened \
            by gpg. Values are taken as they are, byte by byte. Everything is read and checked before the first file is written.
            """)

    @Argument(help: "A directory or a file; - for standard input.", completion: .file())
    var source: String

    @Argument(help: "Where the keyring is mounted, or a directory there.", completion: .directory)
    var place: String

    @Option(help: ArgumentHelp("\(ExchangeFormat.names); by default as the source looks.", valueName: "format"))
    var format: String?

    @Option(
        help: ArgumentHelp(
            "A file of age identities that open a sops file; by default that of SOPS_AGE_KEY_FILE, or sops' own.",
            valueName: "file"),
        completion: .file())
    var identity: [String] = []

    @Option(help: ArgumentHelp("The mode of the files.", valueName: "mode"))
    var mode = "600"

    @Flag(help: "Give files that are there another value.")
    var replace = false

    @Flag(help: "Show what would be written, and write nothing.")
    var dryRun = false

    func run() throws {
        guard let mode = mode_t(mode, radix: 8), mode <= 0o777 else {
            throw Failure("'\(self.mode)' is no mode", hint: "for example 640", code: .usage)
        }
        guard source != "-" || format != nil else {
            throw Failure("say with --format what standard input is", code: .usage)
        }
        let format = try ExchangeFormat.parse(format)
        try Control.checkIsOnMount(place)
        let entries = try ExchangeSource(source, format, identityFiles: identity).read()
        try ExchangeTree.check(entries, below: place, replaces: replace)
        if dryRun {
            for entry in entries { Output.line(Output.printable("\(place)/\(entry.name)")) }
            return
        }
        try ExchangeTree.write(entries, below: place, mode: mode)
        Output.line("\(entries.count) \(entries.count == 1 ? "secret" : "secrets") taken into \(place)")
        if source != "-" { Output.line("the source is still there: remove it when it is no longer needed") }
    }
}
