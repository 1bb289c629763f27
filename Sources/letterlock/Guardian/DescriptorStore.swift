import CLinux
import Glibc

/// systemd's descriptor store (sd_pid_notify_with_fds(3)): what is kept there outlives this process, and is given to the
/// next one of the same unit.
struct DescriptorStore {
    struct Kept {
        var connection: Int32
        var board: Int32
        var key: Int32
        var events: Int32
        var lock: Int32

        /// Lets it all go; the store's lock too, of which systemd goes on having a copy.
        func close() {
            let setLock: Int32 = 37  // F_OFD_SETLK
            var nothing = flock()
            nothing.l_type = Int16(F_UNLCK)
            nothing.l_whence = Int16(SEEK_SET)
            _ = fcntl(lock, setLock, &nothing)
            for descriptor in [connection, board, key, events, lock] { Glibc.close(descriptor) }
        }
    }

    private static let names = ["connection", "board", "key", "events", "lock"]
    private static let prefix = "letterlock-"
    private static let firstDescriptor: Int32 = 3

    /// Wanted, and there is a systemd to ask.
    let isUsed: Bool

    init(isWanted: Bool) { isUsed = isWanted && getenv("NOTIFY_SOCKET") != nil }

    /// What an earlier process left (sd_listen_fds(3)); nil if that is not everything.
    func takeUp() -> Kept? {
        defer {
            for name in ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"] { unsetenv(name) }
        }
        guard isUsed, let process = text("LISTEN_PID"), Int32(process) == getpid(),
            let count = text("LISTEN_FDS").flatMap({ Int32($0) }), (0...64).contains(count),
            let names = text("LISTEN_FDNAMES")?.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        else { return nil }
        var found: [String: Int32] = [:]
        for (index, name) in names.prefix(Int(count)).enumerated() {
            let descriptor = Self.firstDescriptor + Int32(index)
            _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
            if name.hasPrefix(Self.prefix) { found[String(name.dropFirst(Self.prefix.count))] = descriptor }
        }
        guard let connection = found["connection"], let board = found["board"], let key = found["key"],
            let events = found["events"], let lock = found["lock"]
        else { return nil }
        return Kept(connection: connection, board: board, key: key, events: events, lock: lock)
    }

    func keep(_ kept: Kept) {
        guard isUsed else { return }
        forget()
        for (name, descriptor) in zip(Self.names, [kept.connection, kept.board, kept.key, kept.events, kept.lock]) {
            send("FDSTORE=1\nFDNAME=\(Self.prefix)\(name)", descriptor)
        }
    }

    /// The mount ends: nothing is to be kept.
    func forget() {
        guard isUsed else { return }
        for name in Self.names { send("FDSTOREREMOVE=1\nFDNAME=\(Self.prefix)\(name)", -1) }
    }

    private func send(_ state: String, _ descriptor: Int32) {
        guard let path = text("NOTIFY_SOCKET") else { return }
        LocalDatagram.send(state, to: path, descriptor: descriptor)
    }

    private func text(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }
}
