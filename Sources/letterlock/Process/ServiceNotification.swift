import Glibc

/// systemd's readiness protocol, sd_notify(3): a datagram to the socket that NOTIFY_SOCKET names.
enum ServiceNotification {
    static func ready(status: String) {
        send("READY=1\nSTATUS=\(Output.printable(status))\nMAINPID=\(getpid())")
    }
    static func stopping() { send("STOPPING=1") }

    private static func send(_ state: String) {
        guard let path = getenv("NOTIFY_SOCKET") else { return }
        LocalDatagram.send(state, to: String(cString: path))
    }
}
