import Glibc
import Testing

/// systemd's descriptor store, played by the test: a mount that outlives its guardian.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class DescriptorStoreTests {
    private let work: Workspace
    private let socket: NotifySocket
    /// What the service has given to be kept.
    private var kept: [(name: String, descriptor: Int32)] = []

    init() throws {
        work = try Workspace()
        socket = try NotifySocket(work("notify"))
        let made = try work.letterlock("init", work.store, "--key-service", work.keyService)
        #expect(made.status == 0, "\(made.complaint)")
    }

    deinit { for (_, descriptor) in kept { close(descriptor) } }

    /// Starts the service as systemd would, and waits for its word that it is ready.
    private func start() throws -> Child {
        let first: Int32 = 3
        let given = Dictionary(uniqueKeysWithValues: kept.enumerated().map { (first + Int32($0), $1.descriptor) })
        let names = kept.map(\.name).joined(separator: ":")
        let program = try Workspace.program()
        let child = try work.start(
            [
                "sh", "-c",
                "export LISTEN_PID=$$ LISTEN_FDS=\(kept.count) LISTEN_FDNAMES=\(names); exec \"$0\" \"$@\"",
                program, "mount", "-f", "--fd-store", "--key-service", work.keyService, work.store, work("mnt"),
            ], environment: ["NOTIFY_SOCKET": work("notify")], descriptors: given)
        while try !take().contains("READY=1") {}
        return child
    }

    /// One notification; what is to be kept is kept.
    private func take() throws -> String {
        let (state, descriptor) = try socket.receiveWithDescriptor()
        let name = state.split(separator: "\n").first { $0.hasPrefix("FDNAME=") }?.dropFirst("FDNAME=".count)
        if let name {
            for (old, descriptor) in kept where old == name { close(descriptor) }
            kept.removeAll { $0.name == name }
            if state.hasPrefix("FDSTORE=1") { kept.append((String(name), descriptor)) }
        }
        return state
    }

    @Test func aRestartOfTheServiceBreaksNoOpenFile() throws {
        let first = try start()
        #expect(kept.count == 5)
        try put("value", work("mnt/f"))
        // In a process of its own: this one starts programs, whose copies of open files are closed as they begin, and
        // the kernel asks the mount's server about that.
        try check(mkfifo(work("go"), 0o600))
        let application = try work.start([
            "bash", "-c",
            "exec 3<mnt/f 4>mnt/g; echo -n 'first, ' >&4; touch ready; read -r _ <go; cat <&3; echo -n second >&4",
        ])
        #expect(eventually { exists(self.work("ready")) })
        kill(first.pid, SIGUSR2)
        #expect(try first.wait().status == 0)

        let second = try start()
        try put("go\n", work("go"))
        let outcome = try application.wait()
        #expect(outcome.status == 0 && outcome.text == "value", "\(outcome.complaint)")
        #expect(try text(work("mnt/g")) == "first, second")

        // Not even the guardian's sudden death.
        kill(second.pid, SIGKILL)
        _ = try second.wait()
        let third = try start()
        #expect(try text(work("mnt/f")) == "value")

        // A stop is another thing: the mount goes, and nothing is kept.
        kill(third.pid, SIGTERM)
        #expect(try third.wait().status == 0)
        while !kept.isEmpty { _ = try take() }
        #expect(Workspace.mountpoints(below: work.path).isEmpty)
    }

    @Test func aMountThatWasTakenAwayMeanwhileIsMadeAnew() throws {
        let first = try start()
        try put("value", work("mnt/f"))
        kill(first.pid, SIGUSR2)
        #expect(try first.wait().status == 0)
        umount2(work("mnt"), Int32(MNT_DETACH))
        let second = try start()
        #expect(try text(work("mnt/f")) == "value")
        kill(second.pid, SIGTERM)
        #expect(try second.wait().status == 0)
    }
}
