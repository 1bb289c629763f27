import Access
import ArgumentParser
import SecretTree

struct HooksCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hooks", abstract: "Say what is run, or signalled, after values have changed.",
        subcommands: [HooksSet.self, HooksShow.self, HooksCheck.self])
}

/// Hooks on disk, as their author wrote them.
private struct HooksFile {
    let text: String
    let hooks: Hooks

    /// - Parameter path: `-` for standard input.
    init(_ path: String) throws(Failure) {
        let bytes: [UInt8]
        do throws(SystemErrorNumber) {
            bytes = try SmallFile.read(path == "-" ? "/dev/stdin" : path, limit: Document.byteLimit + 1)
        } catch { throw Failure(path, errno: error.value) }
        guard bytes.count <= Document.byteLimit, var text = String(validating: bytes, as: UTF8.self) else {
            throw Failure("\(path): hooks are UTF-8 of at most \(Document.byteLimit) bytes")
        }
        do throws(PolicyMistakes) { hooks = try Hooks.parse(text) } catch {
            throw DocumentMistakes.failure(error, in: path)
        }
        if text.hasSuffix("\n") { text.removeLast() }
        self.text = text.isEmpty ? "# no hooks" : text
    }
}

struct HooksSet: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "set", abstract: "Replace the hooks of a mounted keyring by a file's, all of them.",
        discussion: "They are sealed with the keyring, and hold when the command returns.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    @Argument(help: "The hooks; - for standard input.", completion: .file())
    var file: String

    func run() throws {
        let file = try HooksFile(file)
        let control = try Control(at: mountpoint)
        try LongDocument.write(file.text, to: "hooks", control)
        let count = file.hooks.all.count
        Output.line("\(count) \(count == 1 ? "hook holds" : "hooks hold")")
        // As to who has the right to change the programs, this process may know less than the mount's.
        if count > 0, try control.json("status")["hooks"].elements.isEmpty {
            Output.warn("this mount runs none of them: it was made with hooks=off, or is not its owner's own")
        }
    }
}

struct HooksShow: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "show", abstract: "Print a mounted keyring's hooks.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String

    func run() throws { Output.line(try Control(at: mountpoint).text("hooks")) }
}

struct HooksCheck: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "check", abstract: "Tell every mistake in hooks, by line; changes nothing.")

    @Argument(help: "The hooks; - for standard input.", completion: .file())
    var file: String

    func run() throws { Output.line("\(self.file): \(try HooksFile(file).hooks.all.count) hooks") }
}
