import Glibc
import Sodium
import Testing

@testable import Keyring

@Suite struct SecretInputTests {
    /// What is read from a pipe that holds `text`.
    private func read(_ text: [UInt8]) throws -> [UInt8] {
        var ends: [Int32] = [0, 0]
        guard pipe(&ends) == 0 else { preconditionFailure("no pipe") }
        precondition(write(ends[1], text, text.count) == text.count)
        close(ends[1])
        defer { close(ends[0]) }
        let secret = try SecretInput.read(descriptor: ends[0])
        return secret.withUnsafeBytes { [UInt8]($0) }
    }

    @Test func `takes all but one newline at the end`() throws {
        for (text, expected) in [
            ("secret", "secret"), ("secret\n", "secret"), ("secret\n\n", "secret\n"), ("a\nb\n", "a\nb"), (" \n", " "),
        ] {
            #expect(try read(Array(text.utf8)) == Array(expected.utf8))
        }
        #expect(try read([0, 255, 10]) == [0, 255])
    }

    @Test func `refuses an empty passphrase, and one that is too long`() throws {
        #expect(throws: KeyringError.serviceUnavailable("the passphrase is empty\nit is one line of 1 to 4096 bytes")) {
            try read([])
        }
        #expect(throws: KeyringError.serviceUnavailable("the passphrase is empty\nit is one line of 1 to 4096 bytes")) {
            try read([10])
        }
        #expect(try read([UInt8](repeating: 65, count: 4096) + [10]).count == 4096)
        for count in [4097, 4098, 4099, 20000] {
            #expect(throws: KeyringError.serviceUnavailable("the passphrase is longer than 4096 bytes")) {
                try read([UInt8](repeating: 65, count: count))
            }
        }
    }

    @Test func `reads a file`() throws {
        let scratch = Scratch()
        let path = scratch.file("passphrase", Array("open sesame\n".utf8), mode: 0o644)
        let secret = try SecretInput.read(path: path)
        #expect(secret.byteCount == 11)
        do {
            _ = try SecretInput.read(path: scratch.path + "/absent")
            Issue.record("read what is not there")
        } catch { #expect(error == .io(path: scratch.path + "/absent", errno: ENOENT)) }
    }

    @Test(.enabled(if: PseudoTerminal.isThere)) func `asks on the terminal without echo`() async {
        await #expect(processExitsWith: .success) {
            let terminal = try PseudoTerminal()
            terminal.answer(["open sesame\n", "open sesame\n"])
            let secret = try SecretInput.ask("passphrase: ", again: "once more: ")
            guard secret.withUnsafeBytes({ $0.elementsEqual("open sesame".utf8) }) else { exit(3) }
            let shown = terminal.shown()
            guard shown.contains("passphrase: "), shown.contains("once more: "), !shown.contains("sesame") else {
                exit(4)
            }
            guard terminal.echoes else { exit(5) }
        }
    }

    @Test(.enabled(if: PseudoTerminal.isThere)) func `two passphrases that differ are refused`() async {
        await #expect(processExitsWith: .success) {
            let terminal = try PseudoTerminal()
            terminal.answer(["open sesame\n", "open sesam\n"])
            do {
                _ = try SecretInput.ask("passphrase: ", again: "once more: ")
                exit(3)
            } catch KeyringError.serviceUnavailable("the two passphrases are not the same") {}
        }
    }

    @Test(.enabled(if: PseudoTerminal.isThere)) func `a signal finds the terminal with its echo`() async {
        await #expect(processExitsWith: .exitCode(42)) {
            let terminal = try PseudoTerminal()
            PseudoTerminal.current = terminal.slave
            signal(SIGINT) { _ in
                var settings = termios()
                tcgetattr(PseudoTerminal.current, &settings)
                _exit(settings.c_lflag & tcflag_t(ECHO) != 0 ? 42 : 6)
            }
            terminal.answer(["half a passphra\u{3}"])
            _ = try SecretInput.ask("passphrase: ")
        }
    }
}

/// A terminal of the process's own, which becomes its controlling one.
final class PseudoTerminal: @unchecked Sendable {
    nonisolated(unsafe) static var current: Int32 = -1
    /// Whether this machine has pseudo-terminals at all.
    static let isThere = access("/dev/ptmx", R_OK | W_OK) == 0
    struct Failure: Error {}

    private let master: Int32
    let slave: Int32
    // Written by the answering thread, read after it ended.
    private var output: [UInt8] = []
    private var thread = pthread_t()
    private var answers: [String] = []

    init() throws {
        guard setsid() > 0 else { throw Failure() }
        master = posix_openpt(O_RDWR | O_NOCTTY)
        guard master >= 0, grantpt(master) == 0, unlockpt(master) == 0, let name = ptsname(master) else {
            throw Failure()
        }
        slave = open(name, O_RDWR)
        guard slave >= 0 else { throw Failure() }
    }

    /// Types each answer when there is a new prompt.
    func answer(_ answers: [String]) {
        self.answers = answers
        let me = Unmanaged.passRetained(self).toOpaque()
        pthread_create(
            &thread, nil,
            { argument in
                guard let argument else { return nil }
                Unmanaged<PseudoTerminal>.fromOpaque(argument).takeRetainedValue().type()
                return nil
            }, me)
    }

    private func type() {
        var buffer = [UInt8](repeating: 0, count: 256)
        for answer in answers {
            while true {
                let count = read(master, &buffer, buffer.count)
                guard count > 0 else { return }
                output += buffer[..<count]
                if output.suffix(2).elementsEqual(": ".utf8) { break }
            }
            _ = Array(answer.utf8).withUnsafeBytes { write(master, $0.baseAddress, $0.count) }
        }
    }

    /// All that was printed by the time that the last answer had been typed, and what came after.
    func shown() -> String {
        pthread_join(thread, nil)
        var buffer = [UInt8](repeating: 0, count: 256)
        let count = read(master, &buffer, buffer.count)
        if count > 0 { output += buffer[..<count] }
        return String(decoding: output, as: UTF8.self)
    }

    var echoes: Bool {
        var settings = termios()
        return tcgetattr(slave, &settings) == 0 && settings.c_lflag & tcflag_t(ECHO) != 0
    }
}
