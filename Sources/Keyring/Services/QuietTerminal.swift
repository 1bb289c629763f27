internal import Glibc
internal import Sodium
internal import Synchronization

/// The controlling terminal, for asking something that must not be seen.
struct QuietTerminal: ~Copyable {
    private let descriptor: Int32

    init() throws(KeyringError) {
        descriptor = open("/dev/tty", O_RDWR | O_CLOEXEC | O_NOCTTY)
        guard descriptor >= 0 else {
            throw .serviceUnavailable(
                "there is no terminal to ask for the passphrase on\nuse --passphrase-file or --passphrase-fd")
        }
    }

    deinit { close(descriptor) }

    /// Reads one line without echo. A signal that ends or stops the process finds the terminal as it was before.
    ///
    /// - Returns: How many bytes of `buffer` it takes, its newline included.
    borrowing func readLine(_ prompt: String, into buffer: inout SecretBytes) throws(KeyringError) -> Int {
        while true {
            let signals = CaughtSignals()
            let count = try read(prompt, into: &buffer, signals)
            let caught = signals.end()
            if let count { return count }
            // Now that the terminal is itself again, the signal does what it does. After a stop, ask anew.
            if let caught { deliver(caught) }
        }
    }

    /// Sends a signal to this very thread, which takes it before it goes on, even if it holds signals back otherwise.
    private borrowing func deliver(_ number: Int32) {
        var only = sigset_t()
        var mask = sigset_t()
        sigemptyset(&only)
        sigaddset(&only, number)
        pthread_sigmask(SIG_UNBLOCK, &only, &mask)
        raise(number)
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }

    /// Nil if a signal came first.
    private borrowing func read(
        _ prompt: String, into buffer: inout SecretBytes, _ signals: borrowing CaughtSignals
    ) throws(KeyringError) -> Int? {
        var loud = termios()
        guard tcgetattr(descriptor, &loud) == 0 else { throw .io(path: "/dev/tty", errno: errno) }
        var quiet = loud
        quiet.c_lflag &= ~tcflag_t(ECHO)
        quiet.c_lflag |= tcflag_t(ICANON | ISIG)
        guard tcsetattr(descriptor, TCSAFLUSH, &quiet) == 0 else { throw .io(path: "/dev/tty", errno: errno) }
        defer {
            tcsetattr(descriptor, TCSAFLUSH, &loud)
            say("\n")
        }
        say(prompt)
        guard try signals.waitUntilReadable(descriptor) else { return nil }
        // A terminal gives one line a read.
        let got = buffer.withUnsafeMutableBytes { Glibc.read(descriptor, $0.baseAddress!, $0.count) }
        if got < 0 { throw .io(path: "/dev/tty", errno: errno) }
        return got
    }

    private borrowing func say(_ text: String) {
        var text = text
        text.withUTF8 { _ = write(descriptor, $0.baseAddress, $0.count) }
    }
}

/// Holds signals back while the terminal is quiet, and tells which one came.
private struct CaughtSignals: ~Copyable {
    private static let numbers = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP]
    private static let caught = Atomic<Int32>(0)

    private var mask = sigset_t()
    private var actions: [sigaction] = []

    init() {
        Self.caught.store(0, ordering: .relaxed)
        var blocked = sigset_t()
        sigemptyset(&blocked)
        for number in Self.numbers { sigaddset(&blocked, number) }
        pthread_sigmask(SIG_BLOCK, &blocked, &mask)
        for number in Self.numbers {
            var action = sigaction()
            action.__sigaction_handler.sa_handler = { CaughtSignals.caught.store($0, ordering: .relaxed) }
            var old = sigaction()
            sigaction(number, &action, &old)
            actions.append(old)
        }
    }

    /// False if a signal came. Signals are let in while waiting and at no other time, so that none is missed.
    borrowing func waitUntilReadable(_ descriptor: Int32) throws(KeyringError) -> Bool {
        var poll = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        var open = mask
        for number in Self.numbers { sigdelset(&open, number) }
        // Another thread may be the one that the signal interrupts: look at what it left every now and then.
        var pause = timespec(tv_sec: 0, tv_nsec: 100_000_000)
        while true {
            let ready = ppoll(&poll, 1, &pause, &open)
            let number = errno
            if Self.caught.load(ordering: .relaxed) != 0 { return false }
            if ready > 0 { return true }
            if ready < 0, number != EINTR { throw .io(path: "/dev/tty", errno: number) }
        }
    }

    /// Puts everything back. Which signal came, if one did.
    consuming func end() -> Int32? {
        let number = Self.caught.load(ordering: .relaxed)
        return number == 0 ? nil : number
    }

    deinit {
        for (number, action) in zip(Self.numbers, actions) {
            var action = action
            sigaction(number, &action, nil)
        }
        var mask = mask
        pthread_sigmask(SIG_SETMASK, &mask, nil)
    }
}
