import ArgumentParser
import Glibc

struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Take secrets into a mounted keyring: from a directory, a dotenv file, JSON or manifests of Kubernetes.",
        discussion: """
            Of a dotenv file each variable is a file of its name; of JSON each string is a file, each object a directory; of \
            Kubernetes' manifests each Secret is a directory NAME, or NAMESPACE/NAME, each of its keys a file. Values are taken as they \
            are, byte by byte. Everything is read and checked before the first file is written.
            """)

    @Argument(help: "A directory or a file; - for standard input.", completion: .file())
    var source: String

    @Argument(help: "Where the keyring is mounted, or a directory there.", completion: .directory)
    var place: String

    @Option(help: ArgumentHelp("\(ExchangeFormat.names); by default as the source looks.", valueName: "format"))
    var format: String?

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
        let format = try ExchangeFormat.parse(format) ?? ExchangeFormat(ofSource: source)
        try Control.checkIsOnMount(place)
        let entries = try read(format)
        try ExchangeTree.check(entries, below: place, replaces: replace)
        if dryRun {
            for entry in entries { Output.line(Output.printable("\(place)/\(entry.name)")) }
            return
        }
        try ExchangeTree.write(entries, below: place, mode: mode)
        Output.line("\(entries.count) \(entries.count == 1 ? "secret" : "secrets") taken into \(place)")
        if source != "-" { Output.line("the source is still there in clear: remove it when it is no longer needed") }
    }

    private func read(_ format: ExchangeFormat) throws(Failure) -> [ExchangeEntry] {
        if format == .directory {
            return try ExchangeTree.read(source) { Output.warn("\($0) is no regular file, and is left out") }
        }
        let descriptor = source == "-" ? STDIN_FILENO : open(source, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(source, errno: errno) }
        defer { if source != "-" { close(descriptor) } }
        let name = source == "-" ? "standard input" : source
        let text = try SecretValue.read(descriptor, name)
        return try text.withBytes { (bytes: UnsafeRawBufferPointer) throws(Failure) -> [ExchangeEntry] in
            switch format {
            case .json: try SecretJSON.read(bytes, name)
            case .kubernetes: try KubernetesSecrets.read(try SecretYAML.read(bytes, name), name) { Output.warn($0) }
            case .dotenv, .directory: try DotEnv.read(bytes, name)
            }
        }
    }
}

struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            "Write the secrets of a mounted keyring in clear: to a directory, a dotenv file, JSON or manifests of Kubernetes.",
        discussion: """
            What is written is readable to whoever gets hold of it, and lies on a disk from then on. For a copy that is sealed see \
            'letterlock backup'; for a program that needs secrets, 'letterlock run'.
            """)

    @Argument(help: "Where the keyring is mounted, or a directory there.", completion: .directory)
    var place: String

    @Argument(help: "A file or directory that is new; - for standard output.", completion: .file())
    var target: String

    @Option(
        help: ArgumentHelp(
            "\(ExchangeFormat.names); by default json for NAME.json, kubernetes for NAME.yaml, else dotenv.",
            valueName: "format"))
    var format: String?

    @Flag(help: "Say that this is meant.")
    var inClear = false

    func run() throws {
        guard inClear else {
            throw Failure(
                "an export is readable to whoever gets hold of it", hint: "say with --in-clear that this is meant",
                code: .usage)
        }
        let format = try ExchangeFormat.parse(format) ?? ExchangeFormat(ofTarget: target)
        try Control.checkIsOnMount(place)
        let entries = try ExchangeTree.read(place) { Output.warn("\($0) is no regular file, and is left out") }
        switch format {
        case .directory: try writeDirectory(entries)
        case .json:
            let text = SecretValue()
            try SecretJSON.write(entries, into: text)
            try write(text)
        case .dotenv: try write(try dotenv(entries))
        case .kubernetes:
            let text = SecretValue()
            try KubernetesSecrets.write(
                entries, directory: try nameOfPlace(), asJSON: target.hasSuffix(".json"), into: text)
            try write(text)
        }
        if target != "-" {
            Output.line("\(entries.count) \(entries.count == 1 ? "secret is" : "secrets are") in clear in \(target)")
        }
    }

    private func nameOfPlace() throws(Failure) -> String {
        switch Paths.resolved(place) {
        case .success(let path): path.split(separator: "/").last.map { String($0) } ?? "/"
        case .failure(let number): throw Failure(place, errno: number.value)
        }
    }

    private func dotenv(_ entries: [ExchangeEntry]) throws(Failure) -> SecretValue {
        let text = SecretValue()
        var names: [String: String] = [:]
        for entry in entries {
            let name = SecretEnvironment.name(of: entry.name)
            if let other = names.updateValue(entry.name, forKey: name) {
                throw Failure(
                    "'\(other)' and '\(entry.name)' would both be \(name)", hint: "export to JSON or a directory")
            }
            try entry.value.withBytes { (bytes: UnsafeRawBufferPointer) throws(Failure) in
                try DotEnv.write(name, bytes, from: entry.name, into: text)
            }
        }
        return text
    }

    private func write(_ text: SecretValue) throws(Failure) {
        guard target != "-" else { return try text.write(to: STDOUT_FILENO, "standard output") }
        let descriptor = open(target, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Failure(target, errno: errno, hint: "the file must not be there yet") }
        defer { close(descriptor) }
        do { try text.write(to: descriptor, target) } catch {
            unlink(target)
            throw error
        }
    }

    private func writeDirectory(_ entries: [ExchangeEntry]) throws(Failure) {
        guard target != "-" else { throw Failure("standard output is no directory", code: .usage) }
        guard mkdir(target, 0o700) == 0 else {
            throw Failure(target, errno: errno, hint: "the directory must not be there yet")
        }
        try ExchangeTree.write(entries, below: target, mode: 0o600)
    }
}
