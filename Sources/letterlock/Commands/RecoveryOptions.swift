import ArgumentParser
import Glibc
import Keyring
import Sodium

/// Where a recovery phrase is shown: on a terminal, or in a file of its owner's alone. What is no terminal may be a log.
struct RecoveryOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "Write the recovery phrase into a new file (mode 0600), not on the terminal.", valueName: "file"),
        completion: .file())
    var recoveryFile: String?

    /// Before anything is changed.
    func place() throws(Failure) -> RecoveryPlace {
        if let recoveryFile { return try RecoveryPlace(path: recoveryFile) }
        guard isatty(STDOUT_FILENO) == 1 else {
            throw Failure(
                "standard output is no terminal, and a recovery phrase must not end in a log",
                hint: "have it written with --recovery-file FILE", code: .usage)
        }
        return RecoveryPlace()
    }
}

/// A recovery phrase on its way to whoever puts it away.
final class RecoveryPlace {
    private let path: String?
    private let descriptor: Int32
    private var isKept = false

    /// The terminal.
    init() {
        path = nil
        descriptor = STDOUT_FILENO
    }

    /// A file that is not there yet.
    init(path: String) throws(Failure) {
        let opened = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0o600)
        // Before this value is whole: its end would remove what was there.
        guard opened >= 0 else { throw Failure(path, errno: errno, hint: "the file must not be there yet") }
        self.path = path
        descriptor = opened
    }

    deinit {
        guard let path else { return }
        close(descriptor)
        // Nothing is opened by it.
        if !isKept { unlink(path) }
    }

    /// Makes a phrase. A file holds it from now on, a terminal shows it: before the keyring depends on it.
    func makeService() throws -> RecoveryService {
        let phrase = try RecoveryPhrase.make()
        if path == nil { Output.line("recovery phrase, to be printed and put away:") }
        let isWritten = phrase.withUnsafeBytes { phrase in
            write(descriptor, phrase.baseAddress, phrase.count) == phrase.count && write(descriptor, "\n", 1) == 1
        }
        guard isWritten, path == nil || fsync(descriptor) == 0 else {
            throw Failure("cannot write the recovery phrase", errno: errno)
        }
        return RecoveryService(phrase: phrase)
    }

    /// The keyring opens with it.
    func tell() {
        isKept = true
        if let path { Output.line("the recovery phrase is in \(path): print it, put it away, and remove the file") }
    }
}
