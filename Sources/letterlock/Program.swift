import ArgumentParser
import Glibc

/// The program under each of its names. The only place that turns an error into an exit code.
enum Program {
    static let version = "0.1.0"

    static func run(_ arguments: [String]) -> ExitCode {
        let name = Paths.lastComponent(arguments.first ?? "")
        let words = Array(arguments.dropFirst())
        do {
            switch name {
            case "mount.fuse.letterlock": try MountHelper.mount(words)
            case "umount.fuse.letterlock": try MountHelper.unmount(words)
            default:
                var command = try Letterlock.parseAsRoot(separated(words))
                try command.run()
            }
            return .done
        } catch let failure as Failure {
            Output.report(failure)
            return failure.code
        } catch {
            return explain(error, words)
        }
    }

    /// `-ocache=none` as `-o cache=none`. The parser would take it for an option of the name `-ocache`.
    private static func separated(_ words: [String]) -> [String] {
        guard words.first == "mount" else { return words }
        let end = words.firstIndex(of: "--") ?? words.endIndex
        return words[..<end].flatMap { word in
            let isJoined = word.hasPrefix("-o") && !word.hasPrefix("-o=") && word.contains("=")
            return isJoined ? ["-o", String(word.dropFirst("-o".count))] : [word]
        } + words[end...]
    }

    /// What ArgumentParser says: help and version on standard output, everything else as a usage error.
    private static func explain(_ error: any Error, _ words: [String]) -> ExitCode {
        let parsersCode = Letterlock.exitCode(for: error)
        if parsersCode == .success {
            let isAsked = words.contains { ["-h", "--help", "-help", "help", "--version"].contains($0) }
            Output.write(
                Letterlock.fullMessage(for: error) + "\n", to: isAsked ? STDOUT_FILENO : STDERR_FILENO)
            return isAsked ? .done : .usage
        }
        guard parsersCode == .validationFailure else {
            let failure = Messages.failure(for: error)
            Output.report(failure)
            return failure.code
        }
        Output.report(
            usageFailure(message: Letterlock.message(for: error), full: Letterlock.fullMessage(for: error)))
        return .usage
    }

    /// The parser's sentence in this program's form, and the usage line as the hint.
    private static func usageFailure(message: String, full: String) -> Failure {
        var text = String(message.split(separator: "\n").first ?? "wrong usage")
        if text.hasPrefix("Error: ") { text.removeFirst("Error: ".count) }
        while text.hasSuffix(".") { text.removeLast() }
        let second = text.dropFirst().first
        if second?.isLowercase == true || second == " " {
            text = text.prefix(1).lowercased() + text.dropFirst()
        }
        let usage = full.split(separator: "\n").first { $0.hasPrefix("Usage: ") }
        return Failure(text, hint: usage.map { "usage: " + $0.dropFirst("Usage: ".count) }, code: .usage)
    }
}
