internal import Glibc
public import Sodium

/// Where a passphrase comes from: never arguments, never the environment.
public enum SecretInput {
    /// The longest passphrase, in bytes.
    public static let limit = 4096

    /// All that a descriptor gives, without one newline at the end.
    public static func read(descriptor: Int32) throws(KeyringError) -> SecretBytes {
        try line(of: try SecretFile.read(descriptor, "file descriptor \(descriptor)", limit: limit))
    }

    /// All that a file holds, without one newline at the end.
    public static func read(path: String) throws(KeyringError) -> SecretBytes {
        try line(of: try SecretFile.read(path, limit: limit, refusesReadableByOthers: false))
    }

    /// Asks on the terminal, without echo.
    ///
    /// - Parameter again: The second question, for a new passphrase; the answers have to be the same.
    /// - Throws: `.serviceUnavailable` without a terminal, or if nothing was entered, or twice not the same.
    public static func ask(_ prompt: String, again: String? = nil) throws(KeyringError) -> SecretBytes {
        let terminal = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)
        guard terminal >= 0 else {
            throw .serviceUnavailable(
                "there is no terminal to ask for the passphrase on: use --passphrase-file or --passphrase-fd")
        }
        defer { close(terminal) }
        let quiet = try QuietTerminal(terminal)
        defer { quiet.restore() }
        let first = try answer(to: prompt, on: terminal)
        guard first.byteCount > 0 else { throw .serviceUnavailable("the passphrase is empty") }
        guard let again else { return first }
        let second = try answer(to: again, on: terminal)
        let isSame = first.withUnsafeBytes { one in second.withUnsafeBytes { one.elementsEqual($0) } }
        guard isSame else { throw .serviceUnavailable("the two passphrases are not the same") }
        return first
    }

    private static func answer(to prompt: String, on terminal: Int32) throws(KeyringError) -> SecretBytes {
        say(prompt, on: terminal)
        defer { say("\n", on: terminal) }
        do {
            var buffer = try SecretBytes(byteCount: limit)
            // A terminal gives one line a read.
            let count = buffer.withUnsafeMutableBytes { Glibc.read(terminal, $0.baseAddress!, $0.count) }
            guard count >= 0 else { throw KeyringError.io(path: "/dev/tty", errno: errno) }
            return try copy(buffer, count)
        } catch let error as KeyringError {
            throw error
        } catch {
            throw .cannotLock
        }
    }

    private static func say(_ text: String, on terminal: Int32) {
        var text = text
        text.withUTF8 { _ = write(terminal, $0.baseAddress, $0.count) }
    }

    private static func line(of text: consuming SecretBytes) throws(KeyringError) -> SecretBytes {
        let line = try copy(text, text.byteCount)
        guard line.byteCount > 0 else { throw .serviceUnavailable("the passphrase is empty") }
        return line
    }

    /// The first `count` bytes without a newline at their end.
    private static func copy(_ source: borrowing SecretBytes, _ count: Int) throws(KeyringError) -> SecretBytes {
        let length = source.withUnsafeBytes {
            SecretFile.lineByteCount(UnsafeRawBufferPointer(rebasing: $0[0..<count]))
        }
        do {
            var bytes = try SecretBytes(byteCount: length)
            source.withUnsafeBytes { source in
                bytes.withUnsafeMutableBytes {
                    $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[0..<length]))
                }
            }
            return bytes
        } catch { throw .cannotLock }
    }
}

/// A terminal without echo, which gets it back also when a signal ends the program.
private final class QuietTerminal {
    private let descriptor: Int32
    private let before: termios
    private static let deadly = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP]

    init(_ descriptor: Int32) throws(KeyringError) {
        var settings = termios()
        guard tcgetattr(descriptor, &settings) == 0 else { throw .io(path: "/dev/tty", errno: errno) }
        self.descriptor = descriptor
        before = settings
        // Held back until echo is on again: then they do what they always do.
        Self.mask(SIG_BLOCK)
        settings.c_lflag &= ~tcflag_t(ECHO)
        tcsetattr(descriptor, TCSAFLUSH, &settings)
        // With ISIG the terminal would send signals that are held back: a key press for one ends the line instead.
    }

    func restore() {
        var settings = before
        tcsetattr(descriptor, TCSAFLUSH, &settings)
        Self.mask(SIG_UNBLOCK)
    }

    private static func mask(_ how: Int32) {
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in deadly { sigaddset(&signals, signal) }
        pthread_sigmask(how, &signals, nil)
    }
}
