import Glibc

/// A program that reads a secret and writes another, through pipes alone.
struct Filter {
    private let path: String
    private let arguments: [String]

    /// - Parameter program: A name that the search path knows.
    init(_ program: String, _ arguments: [String], hint: String) throws(Failure) {
        let directories = (getenv("PATH").map { String(cString: $0) } ?? "/usr/bin:/bin").split(separator: ":")
        let places = directories.filter { $0.hasPrefix("/") }.map { "\($0)/\(program)" }
        let found = places.first { access($0, X_OK) == 0 }
        guard let found else { throw Failure("\(program) is not installed", hint: hint, code: .commandNotFound) }
        path = found
        self.arguments = arguments
    }

    /// Runs it with an open file for its standard input.
    ///
    /// - Returns: What it has written; nil if it failed, which it has told on standard error.
    func run(reading descriptor: Int32) throws(Failure) -> SecretValue? {
        let output = try Spawning.pipe()
        defer { close(output.reading) }
        let child = try start(descriptor, output.writing)
        let result = Result { () throws(Failure) in try SecretValue.read(output.reading, path) }
        return try finish(child, result)
    }

    /// Runs it with a value for its standard input.
    func run(on value: SecretValue) throws(Failure) -> SecretValue? {
        let input = try Spawning.pipe()
        let output: (reading: Int32, writing: Int32)
        do throws(Failure) { output = try Spawning.pipe() } catch {
            close(input.reading)
            close(input.writing)
            throw error
        }
        defer { close(output.reading) }
        defer { close(input.reading) }
        let child: pid_t
        do throws(Failure) { child = try start(input.reading, output.writing) } catch {
            close(input.writing)
            throw error
        }
        return try finish(child, Result { () throws(Failure) in try exchange(value, input.writing, output.reading) })
    }

    private func start(_ input: Int32, _ output: Int32) throws(Failure) -> pid_t {
        defer { close(output) }
        var spawning = Spawning(path, arguments)
        spawning.name = Paths.lastComponent(path)
        spawning.descriptors = [(input, STDIN_FILENO), (output, STDOUT_FILENO)]
        return try spawning.start()
    }

    /// Writes while it reads: neither pipe may hold the other up. Closes the one that is written to.
    private func exchange(_ value: SecretValue, _ input: Int32, _ output: Int32) throws(Failure) -> SecretValue {
        var input = input
        defer { if input >= 0 { close(input) } }
        _ = fcntl(input, F_SETFL, O_NONBLOCK)
        let found = SecretValue()
        var done = 0
        while true {
            if input >= 0, done == value.byteCount {
                close(input)
                input = -1
            }
            var waiting = [
                pollfd(fd: output, events: Int16(POLLIN), revents: 0),
                pollfd(fd: input, events: Int16(POLLOUT), revents: 0),
            ]
            guard poll(&waiting, 2, -1) >= 0 || errno == EINTR else { throw Failure("poll", errno: errno) }
            if waiting[1].revents != 0 {
                let count = value.withBytes { write(input, $0.baseAddress! + done, $0.count - done) }
                // It has read enough, or has ended: its status tells.
                if count < 0, errno != EAGAIN, errno != EINTR { done = value.byteCount }
                done += max(count, 0)
            }
            if waiting[0].revents != 0, try !found.readSome(output, path) { return found }
        }
    }

    private func finish(_ child: pid_t, _ result: Result<SecretValue, Failure>) throws(Failure) -> SecretValue? {
        var status: Int32 = 0
        // Whoever writes more than is taken is not waited for.
        if case .failure = result { kill(child, SIGKILL) }
        while waitpid(child, &status, 0) < 0, errno == EINTR {}
        let value = try result.get()
        return status == 0 ? value : nil
    }
}
