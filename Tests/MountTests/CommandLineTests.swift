import CLinux
import Glibc
import Testing

@Suite("The command line", .enabled(if: !Mounted.isPlain))
struct CommandLineTests {
    let work: Workspace

    init() throws { work = try Workspace() }

    private func makeStore(_ service: String? = nil) throws {
        let made = try work.letterlock("init", work.store, "--key-service", service ?? work.keyService)
        guard made.status == 0 else { throw HarnessError("init: \(made.complaint)") }
    }

    private func mount(_ more: String...) throws -> Outcome {
        try work.run(
            [try Workspace.program(), "mount", work.store, work("mnt"), "--key-service", work.keyService]
                + more)
    }

    /// `letterlock: what went wrong`, lower case, no full stop, at most a hint more.
    private func expectMessage(_ outcome: Outcome, status: Int32, at place: SourceLocation = #_sourceLocation) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        let lines = outcome.complaint.split(separator: "\n", omittingEmptySubsequences: false)
        #expect(lines.count == 2 || lines.count == 3, "\(outcome.complaint)", sourceLocation: place)
        #expect(lines.last == "", sourceLocation: place)
        for line in lines.dropLast() { #expect(line.last != ".", "\(line)", sourceLocation: place) }
        #expect(outcome.complaint.hasPrefix("letterlock: "), "\(outcome.complaint)", sourceLocation: place)
        // Abbreviations are written as they are.
        let message = outcome.complaint.dropFirst("letterlock: ".count)
        #expect(
            message.first?.isUppercase == false || message.hasPrefix("KEK"), "\(outcome.complaint)",
            sourceLocation: place)
        #expect(outcome.bytes.isEmpty, sourceLocation: place)
    }

    @Test func initMakesAPrivateDirectoryAndRefusesAFullOne() throws {
        try makeStore()
        #expect(try attributes(work.store).permissions == 0o700)
        for name in try names(work.store) {
            #expect(try attributes("\(work.store)/\(name)").permissions & 0o077 == 0, "\(name)")
        }
        let before = try names(work.store)
        expectMessage(try work.letterlock("init", work.store, "--key-service", work.keyService), status: 1)
        #expect(try names(work.store) == before)
        try check(mkdir(work("full"), 0o755))
        try put("", work("full/file"))
        expectMessage(try work.letterlock("init", work("full"), "--key-service", work.keyService), status: 1)
        #expect(try names(work("full")) == ["file"])
        try check(mkdir(work("empty"), 0o755))
        #expect(try work.letterlock("init", work("empty"), "--key-service", work.keyService).status == 0)
        #expect(try attributes(work("empty")).permissions == 0o700)
    }

    @Test(arguments: [
        ["frobnicate"], ["mount"], ["mount", "store"], ["init"], ["mount", "--nonsense", "a", "b"],
        ["key", "disable"],
        ["completions", "tcsh"], ["rotate"], ["status"], ["umount"], ["verify"], [],
    ])
    func wrongUsageIsExitCode2(words: [String]) throws {
        let outcome = try work.run([try Workspace.program()] + words)
        #expect(outcome.status == 2, "\(outcome.complaint)")
        #expect(!outcome.complaint.isEmpty)
    }

    @Test func wrongValuesAreUsageToo() throws {
        try makeStore()
        expectMessage(try mount("-o", "nonsense"), status: 2)
        expectMessage(try mount("-o", "cache=sometimes"), status: 2)
        expectMessage(try mount("-o", "umask=999"), status: 2)
        expectMessage(try work.letterlock("init", work("new"), "--key-service", "nonsense:x"), status: 2)
        #expect(!exists(work("new")))
    }

    @Test func versionHelpAndCompletionsAreThere() throws {
        let version = try work.letterlock("--version")
        #expect(version.status == 0)
        #expect(version.line.hasPrefix("letterlock ") && version.line.last?.isNumber == true)
        let help = try work.letterlock("--help")
        #expect(help.status == 0)
        for name in ["init", "mount", "umount", "status", "rotate", "key", "verify", "completions"] {
            #expect(help.text.contains("  \(name)"), "\(name)")
            let own = try work.letterlock(name, "--help")
            #expect(own.status == 0 && own.text.contains("USAGE: letterlock \(name)"), "\(name)")
        }
        for shell in ["bash", "zsh", "fish"] {
            let script = try work.letterlock("completions", shell)
            #expect(script.status == 0 && script.text.contains("letterlock"), "\(shell)")
            if shell == "bash" { #expect(try work.run(["bash", "-n"], input: script.text).status == 0) }
        }
    }

    @Test func aMountIsThereWhenItsCommandReturns() throws {
        try makeStore()
        let outcome = try mount()
        #expect(outcome.status == 0, "\(outcome.complaint)")
        try put("value", work("mnt/secret"))
        #expect(try text(work("mnt/secret")) == "value")
        #expect(
            try work.done(["findmnt", "-n", "-r", "-o", "SOURCE,FSTYPE", work("mnt")]).line
                == "store fuse.letterlock")
        let options = try work.done(["findmnt", "-n", "-r", "-o", "OPTIONS", work("mnt")]).line.split(separator: ",")
        #expect(Set(options).isSuperset(of: ["rw", "nosuid", "nodev", "default_permissions", "allow_other"]))
        let again = try work.letterlock("umount", work("mnt"))
        #expect(again.status == 0, "\(again.complaint)")
        #expect(try names(work("mnt")) == [])
        // Its server has ended: the store is free at once.
        #expect(try mount().status == 0)
        #expect(try text(work("mnt/secret")) == "value")
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
        expectMessage(try work.letterlock("umount", work("mnt")), status: 1)
    }

    @Test func mountOptionsMayBeJoinedToTheirLetter() throws {
        try makeStore()
        for joined in ["-oro", "-oumask=077,ro", "-o=ro"] {
            let outcome = try mount(joined)
            #expect(outcome.status == 0, "\(joined): \(outcome.complaint)")
            expectErrno(EROFS) { try put("", work("mnt/new")) }
            #expect(try work.letterlock("umount", work("mnt")).status == 0)
        }
    }

    @Test func theNameIsTheSourceOfTheMount() throws {
        let made = try work.letterlock(
            "init", work.store, "--name", "prod eu", "--key-service", work.keyService)
        #expect(made.status == 0, "\(made.complaint)")
        #expect(try mount().status == 0)
        #expect(try work.done(["findmnt", "-n", "-r", "-o", "SOURCE", work("mnt")]).line == "prod\\x20eu")
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
    }

    @Test func aSecondMountSaysWhoHoldsTheStore() throws {
        try makeStore()
        #expect(try mount().status == 0)
        try check(mkdir(work("other"), 0o755))
        let second = try work.letterlock("mount", work.store, work("other"), "--key-service", work.keyService)
        expectMessage(second, status: 6)
        #expect(second.complaint.contains(work("mnt")), "\(second.complaint)")
        #expect(try work.letterlock("verify", work.store, "--key-service", work.keyService).status == 6)
        expectMessage(try mount(), status: 6)
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
        #expect(
            try work.letterlock("mount", work.store, work("other"), "--key-service", work.keyService).status
                == 0)
        #expect(try work.letterlock("umount", work("other")).status == 0)
    }

    @Test func aBusyMountIsNotTakenAway() throws {
        try makeStore()
        #expect(try mount().status == 0)
        let file = try OpenFile(work("mnt/f"), O_RDWR | O_CREAT)
        try file.write("kept")
        expectMessage(try work.letterlock("umount", work("mnt")), status: 6)
        #expect(try file.text() == "kept")
        try file.close()
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
    }

    @Test func inTheForegroundItTellsSystemdAndEndsAtSIGTERM() throws {
        try makeStore()
        let socket = try NotifySocket(work("notify"))
        let server = try work.start(
            [
                try Workspace.program(), "mount", work.store, work("mnt"), "-f", "--key-service",
                work.keyService,
            ],
            environment: ["NOTIFY_SOCKET": work("notify")])
        let state = try socket.receive()
        #expect(state.split(separator: "\n").contains("READY=1"), "\(state)")
        #expect(state.split(separator: "\n").contains("MAINPID=\(server.pid)"), "\(state)")
        try put("value", work("mnt/secret"))
        kill(server.pid, SIGTERM)
        #expect(try server.wait().status == 0)
        #expect(try socket.receive().contains("STOPPING=1"))
        #expect(try names(work("mnt")) == [])
        #expect(try mount().status == 0)
        #expect(try text(work("mnt/secret")) == "value")
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
    }

    @Test func mountAndFstabWork() throws {
        try makeStore()
        let helpers = try MountHelpers()
        defer { withExtendedLifetime(helpers) {} }
        let option = "key-service=" + work.keyService
        try work.done(["mount", "-t", "fuse.letterlock", work.store, work("mnt"), "-o", option])
        try put("by mount(8)", work("mnt/secret"))
        try work.done(["umount", work("mnt")])
        try put(
            "\(work.store) \(work("mnt")) fuse.letterlock noauto,nofail,\(option),cache=none 0 0\n",
            work("fstab"))
        // umount(8) may return before the server has ended.
        #expect(try eventually { try work.run(["mount", "--fstab", work("fstab"), work("mnt")]).status == 0 })
        #expect(try text(work("mnt/secret")) == "by mount(8)")
        try work.done(["umount", work("mnt")])
        #expect(try names(work("mnt")) == [])
    }

    @Test func statusOfAMountAndOfAStore() throws {
        try makeStore()
        let store = try work.letterlock("status", work.store)
        #expect(store.status == 0 && store.text.contains("store"), "\(store.complaint)")
        let storeJSON = try work.done([try Workspace.program(), "status", work.store, "--json"])
        let python = "import json,sys; s=json.load(sys.stdin); print(s['keyring'], s['state'])"
        #expect(try work.done(["python3", "-c", python], input: storeJSON.text).line == "store locked")
        #expect(try mount().status == 0)
        try put("x", work("mnt/a"))
        let table = try work.letterlock("status", work("mnt"))
        #expect(table.status == 0 && table.text.contains("unlocked") && table.text.contains("KEK version 1"))
        let json = try work.done([try Workspace.program(), "status", work("mnt"), "--json"])
        let fields = """
            import json, sys
            s = json.load(sys.stdin)
            print(s['keyring'], s['state'], s['primary'], s['files'], s['problems'], len(s['store_id']) >= 32)
            assert s['server']['pid'] > 1 and s['server']['version']
            """
        #expect(
            try work.done(["python3", "-c", fields], input: json.text).line == "store unlocked 1 1 [] True")
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
        #expect(try work.letterlock("status", work("mnt")).status == 1)
    }

    @Test func rotateAndKeyCommandsDoWhatTheirControlFilesDo() throws {
        try makeStore()
        #expect(try mount().status == 0)
        try put("x", work("mnt/a"))
        let rotated = try work.letterlock("rotate", work("mnt"))
        #expect(rotated.status == 0, "\(rotated.complaint)")
        #expect(try text(work("mnt/.letterlock/keys/primary")) == "2\n")
        expectMessage(try work.letterlock("rotate", work("mnt"), "--if-latest", "1"), status: 1)
        let list = try work.letterlock("key", "list", work("mnt"))
        #expect(list.status == 0 && list.text.contains("primary") && list.text.contains("enabled"))
        #expect(try work.letterlock("key", "disable", work("mnt"), "1").status == 0)
        expectErrno(EKEYREVOKED) { _ = try text(work("mnt/a")) }
        expectMessage(try work.letterlock("key", "disable", work("mnt"), "2"), status: 1)
        expectMessage(try work.letterlock("key", "disable", work("mnt"), "9"), status: 1)
        #expect(try work.letterlock("key", "enable", work("mnt"), "1").status == 0)
        #expect(try text(work("mnt/a")) == "x")
        #expect(try work.letterlock("key", "promote", work("mnt"), "1").status == 0)
        #expect(try text(work("mnt/.letterlock/keys/primary")) == "1\n")
        #expect(try work.letterlock("umount", work("mnt")).status == 0)
        let verified = try work.letterlock("verify", work.store, "--key-service", work.keyService)
        #expect(verified.status == 0, "\(verified.complaint)")
    }

    @Test func placesThatAreNoStoreOrNoMountPointAreNamed() throws {
        expectMessage(try mount(), status: 1)
        try check(mkdir(work("nothing"), 0o700))
        expectMessage(
            try work.letterlock("mount", work("nothing"), work("mnt"), "--key-service", work.keyService),
            status: 1)
        try put("no store", work("nothing/records.sqlite"))
        let odd = try work.letterlock("mount", work("nothing"), work("mnt"), "--key-service", work.keyService)
        #expect(odd.status == 1 || odd.status == 5, "\(odd.complaint)")
        try makeStore()
        expectMessage(
            try work.letterlock("mount", work.store, work("absent"), "--key-service", work.keyService),
            status: 1)
        try put("", work("file"))
        expectMessage(
            try work.letterlock("mount", work.store, work("file"), "--key-service", work.keyService),
            status: 1)
        expectMessage(try work.letterlock("rotate", work("home")), status: 1)
        expectMessage(try work.letterlock("status", work("absent")), status: 1)
        // Nothing of this has harmed the store.
        #expect(try work.letterlock("verify", work.store, "--key-service", work.keyService).status == 0)
    }
}

/// A datagram socket, as systemd listens on for a service's readiness.
final class NotifySocket {
    private let descriptor: Int32

    init(_ path: String) throws {
        descriptor = try check(socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue), 0))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8.prefix($0.count - 1)) }
        let length = socklen_t(MemoryLayout<sockaddr_un>.size)
        try check(
            withUnsafePointer(to: &address) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                    bind(descriptor, __CONST_SOCKADDR_ARG(__sockaddr__: $0), length)
                }
            })
    }

    deinit { close(descriptor) }

    func receive() throws -> String {
        let (state, other) = try receiveWithDescriptor()
        if other >= 0 { close(other) }
        return state
    }

    /// - Returns: the state, and a descriptor that came along, the caller's, or -1.
    func receiveWithDescriptor() throws -> (state: String, descriptor: Int32) {
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        guard poll(&waiting, 1, 60_000) == 1 else { throw HarnessError("no notification within 60 s") }
        var buffer = [UInt8](repeating: 0, count: 4096)
        var other: Int32 = -1
        let count = try check(ll_receive_with_descriptor(descriptor, &buffer, buffer.count, &other))
        return (String(decoding: buffer[..<count], as: UTF8.self), other)
    }
}

/// The helpers of mount(8) and umount(8), which look for them nowhere but in /sbin, for the time of a test.
final class MountHelpers {
    private var made: [String] = []

    init() throws {
        let program = try Workspace.program()
        for name in ["/sbin/mount.fuse.letterlock", "/sbin/umount.fuse.letterlock"] where !exists(name) {
            try check(symlink(program, name))
            made.append(name)
        }
    }

    deinit { for name in made { unlink(name) } }
}
