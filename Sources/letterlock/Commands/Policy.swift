import Access
import ArgumentParser
import Glibc
import Keyring
import SecretTree

struct PolicyCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "policy", abstract: "Say which programs may read, write and list what, beyond modes.",
        subcommands: [PolicySet.self, PolicyShow.self, PolicyCheck.self, PolicyTest.self])
}

/// A policy on disk, as its author wrote it.
struct PolicyFile {
    let path: String
    let text: String
    let policy: Access.Policy

    /// - Parameter path: `-` for standard input.
    init(_ path: String) throws(Failure) {
        self.path = path
        let bytes: [UInt8]
        do throws(SystemErrorNumber) {
            bytes = try SmallFile.read(path == "-" ? "/dev/stdin" : path, limit: Document.byteLimit + 1)
        } catch { throw Failure(path, errno: error.value) }
        guard bytes.count <= Document.byteLimit else {
            throw Failure("\(path): a policy has at most \(Document.byteLimit) bytes")
        }
        guard var text = String(validating: bytes, as: UTF8.self) else { throw Failure("\(path) is not UTF-8") }
        do throws(PolicyMistakes) {
            policy = try Policy.parse(text, accounts: .ofThisMachine(), isNew: true)
        } catch {
            throw DocumentMistakes.failure(error, in: path)
        }
        // It reads with a newline at its end, whether it has one or not.
        if text.hasSuffix("\n") { text.removeLast() }
        self.text = text
    }

    /// What its author may not have meant.
    func warn() {
        for rule in policy.rules {
            if rule.effect == .allow, rule.isForEveryone, rule.operations.contains(.read) {
                Output.warn("rule '\(rule.name)' lets everybody read")
            }
            for case .exes(let globs) in rule.matchers {
                for glob in globs { Self.warnOfLink(glob.text, rule.name) }
            }
        }
    }

    private static func warnOfLink(_ path: String, _ rule: String) {
        guard case .success(let resolved) = Paths.resolved(path), resolved != path else { return }
        Output.warn("rule '\(rule)': \(path) is a link; a process is known by \(resolved)")
    }
}

struct PolicySet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Replace the policy of a keyring by a file's, whole.",
        discussion: """
            It holds when the command returns, for files that are open too. Of an unmounted store it needs the key: the way \
            back for who has shut himself out.
            """)

    @Argument(help: "Where the keyring is mounted, or the directory of an unmounted one.", completion: .directory)
    var place: String

    @Argument(help: "The policy; - for standard input.", completion: .file())
    var file: String

    @OptionGroup var keys: KeyOptions

    func run() throws {
        let file = try PolicyFile(file)
        file.warn()
        if let control = Control.ifMounted(at: place) {
            try set(file, control)
        } else {
            try set(file, store: try StoreDescription.directory(place), try keys.source())
        }
        let count = file.policy.rules.count
        Output.line("\(count) \(count == 1 ? "rule holds" : "rules hold"); elsewhere \(file.policy.fallback.rawValue)")
    }

    private func set(_ file: PolicyFile, _ control: Control) throws(Failure) {
        guard !file.text.isEmpty else { return try control.write("default = \"modes\"", to: "policy") }
        try LongDocument.write(file.text, to: "policy", control)
    }

    private func set(_ file: PolicyFile, store: String, _ source: KeySource) throws {
        let opened = try StoreOpening.open(
            store, key: .source(source), readOnly: false, purpose: "policy set", acceptsRollback: false)
        for warning in opened.warnings { Output.warn(warning) }
        let keeper = EpochKeeper(opened, log: ServerLog(isDetached: false))
        do {
            try CommandAudit(opened, command: "policy").recording("set", nil) {
                let text = file.text.isEmpty ? "default = \"modes\"" : file.text
                _ = try opened.tree.replace(.policy, with: Array(text.utf8), now: .now())
                try keeper.close()
                return nil
            }
        } catch {
            try? keeper.close()
            throw Messages.failure(for: error)
        }
    }
}

struct PolicyShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Print a mounted keyring's policy.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    func run() throws { Output.line(try Control(at: mountpoint).text("policy")) }
}

struct PolicyCheck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Tell every mistake in a policy, by line; changes nothing.")

    @Argument(help: "The policy; - for standard input.", completion: .file())
    var file: String

    func run() throws {
        let file = try PolicyFile(file)
        file.warn()
        let count = file.policy.rules.count
        let rules = count == 1 ? "1 rule" : "\(count) rules"
        Output.line("\(self.file): \(rules), default \(file.policy.fallback.rawValue)")
    }
}
