import ArgumentParser
import Glibc
import KeyServices

struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract:
            """
            Write the secrets of a mounted keyring to a directory, a dotenv file, JSON, manifests of Kubernetes, a sops file, or a \
            store of pass.
            """,
        discussion: """
            What is written, but for the last two, is readable to whoever gets hold of it, and lies on a disk from then on. A sops file \
            is sealed for age recipients: NAME.yaml, NAME.json or NAME.env; with any other ending it holds one secret, whose path \
            PLACE then is. A store of pass is sealed by gpg for keys that it has. For a copy that is sealed see 'letterlock backup'; for a program that needs secrets, 'letterlock run'.
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

    @Option(
        help: ArgumentHelp(
            "Whom it is sealed for: age1… for sops, a key's fingerprint for pass; may be repeated.",
            valueName: "recipient"))
    var recipient: [String] = []

    @Flag(help: "Say that what is not sealed is meant to be so.")
    var inClear = false

    func run() throws {
        let format = try ExchangeFormat.parse(format) ?? ExchangeFormat(ofTarget: target)
        guard format.isSealed != recipient.isEmpty else {
            throw Failure(
                format.isSealed ? "for whom is it to be sealed?" : "--recipient is for what is sealed",
                hint: "--format sops --recipient age1…, or --format pass --recipient FINGERPRINT", code: .usage)
        }
        if format == .pass { for recipient in recipient { try PassStore.check(recipient: recipient) } }
        guard inClear || format.isSealed else {
            throw Failure(
                "an export is readable to whoever gets hold of it", hint: "say with --in-clear that this is meant",
                code: .usage)
        }
        try Control.checkIsOnMount(place)
        let count = try write(format)
        guard target != "-" else { return }
        Output.line(
            "\(count) \(count == 1 ? "secret is" : "secrets are") \(format.isSealed ? "sealed" : "in clear") in \(target)"
        )
    }

    /// - Returns: How many.
    private func write(_ format: ExchangeFormat) throws(Failure) -> Int {
        let text = SecretValue()
        let entries: [ExchangeEntry]
        switch format {
        case .directory:
            entries = try readTree()
            try writeDirectory(entries)
            return entries.count
        case .pass:
            entries = try readTree()
            try writeDirectory(try PassStore.sealed(entries, for: recipient))
            return entries.count
        case .json:
            entries = try readTree()
            try SecretJSON.write(entries, into: text)
        case .dotenv:
            entries = try readTree()
            try dotenv(entries, into: text)
        case .kubernetes:
            entries = try readTree()
            try KubernetesSecrets.write(
                entries, directory: try nameOfPlace(), asJSON: target.hasSuffix(".json"), into: text)
        case .sops: entries = try sops(into: text)
        }
        try write(text)
        return entries.count
    }

    private func nameOfPlace() throws(Failure) -> String {
        switch Paths.resolved(place) {
        case .success(let path): path.split(separator: "/").last.map { String($0) } ?? "/"
        case .failure(let number): throw Failure(place, errno: number.value)
        }
    }

    private func sops(into text: SecretValue) throws(Failure) -> [ExchangeEntry] {
        var recipients: [AgeRecipient] = []
        for text in recipient {
            guard let recipient = AgeRecipient(text) else {
                throw Failure(
                    "'\(text)' is no recipient of age's", hint: "a character is wrong or missing", code: .usage)
            }
            recipients.append(recipient)
        }
        let form = SopsWriter.Form(ofFile: target)
        var entries: [ExchangeEntry] = []
        if form == .binary {
            entries = [try ExchangeTree.readFile(place)]
            entries[0].path = ["data"]
        } else {
            entries = try readTree()
        }
        if form == .dotenv {
            entries = try named(entries).map { ExchangeEntry(path: [$0.name], value: $0.entry.value) }
        }
        try SopsWriter.write(entries, form, for: recipients, into: text)
        return entries
    }

    private func dotenv(_ entries: [ExchangeEntry], into text: SecretValue) throws(Failure) {
        for (name, entry) in try named(entries) {
            try entry.value.withBytes { (bytes: UnsafeRawBufferPointer) throws(Failure) in
                try DotEnv.write(name, bytes, from: entry.name, into: text)
            }
        }
    }

    /// As variables are called.
    private func named(_ entries: [ExchangeEntry]) throws(Failure) -> [(name: String, entry: ExchangeEntry)] {
        var names: [String: String] = [:]
        var found: [(name: String, entry: ExchangeEntry)] = []
        for entry in entries {
            let name = SecretEnvironment.name(of: entry.name)
            if let other = names.updateValue(entry.name, forKey: name) {
                throw Failure(
                    "'\(other)' and '\(entry.name)' would both be \(name)", hint: "export to JSON or a directory")
            }
            found.append((name, entry))
        }
        return found
    }

    private func readTree() throws(Failure) -> [ExchangeEntry] {
        try ExchangeTree.read(place) { Output.warn("\($0) is no regular file, and is left out") }
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
