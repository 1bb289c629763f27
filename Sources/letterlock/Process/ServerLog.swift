import Glibc

/// Where a server says what its administrator should know: its terminal, or the system log when it has none.
struct ServerLog: Sendable {
    /// Serving in the background: there is no standard error.
    let isDetached: Bool

    func warn(_ message: String) { say(message, severity: 4) { Output.warn(message) } }
    func note(_ message: String) {
        say(message, severity: 5) {
            Output.write("letterlock: \(Output.printable(message))\n", to: STDERR_FILENO)
        }
    }

    /// - Parameter severity: As syslog(3) numbers it; the facility is `daemon`.
    private func say(_ message: String, severity: Int32, onTerminal show: () -> Void) {
        guard isDetached else { return show() }
        let facility: Int32 = 3
        LocalDatagram.send(
            "<\(facility << 3 | severity)>letterlock[\(getpid())]: \(Output.printable(message))",
            to: "/dev/log")
    }
}
