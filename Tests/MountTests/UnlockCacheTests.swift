import CLinux
import Glibc
import Testing

/// `-o unlock-cache=`: what opened a keyring opens it once more, for a while. A kernel without keys fails these tests.
@Suite("The unlock cache", .serialized, .enabled(if: !Mounted.isPlain))
final class UnlockCacheTests {
    private let work: Workspace
    private var mountpoint: String { work("mnt") }

    init() throws {
        work = try Workspace()
        try put("a passphrase\n", work("right"), mode: 0o600)
        try put("another\n", work("wrong"), mode: 0o600)
        let made = try run(["init", work.store, "--name", "trial", "--passphrase-file", work("right")])
        guard made.status == 0 else { throw HarnessError(made.complaint) }
    }

    deinit {
        _ = try? run(["umount", mountpoint])
        _ = try? run(["lock", work.store])
    }

    private func run(_ words: [String]) throws -> Outcome { try work.run([try Workspace.program()] + words) }

    private func mount(_ options: String? = nil, with file: String? = nil) throws -> Outcome {
        try run(
            ["mount", work.store, mountpoint] + (options.map { ["-o", $0] } ?? [])
                + (file.map { ["--passphrase-file", work($0)] } ?? []))
    }

    private func unmount() throws { try #require(try run(["umount", mountpoint]).status == 0) }

    /// Mounts it with what opens it, and unmounts it.
    private func warm(_ options: String = "unlock-cache=10m") throws {
        let mounted = try mount(options, with: "right")
        try #require(mounted.status == 0 && mounted.complaint.isEmpty, "\(mounted.complaint)")
        try put("value", mountpoint + "/secret")
        try unmount()
    }

    /// Without anybody who could be asked: nothing but the cache opens it.
    private func opensByItself(_ options: String = "unlock-cache=10m") throws -> Bool {
        let mounted = try mount(options)
        guard mounted.status == 0 else { return false }
        #expect(try text(mountpoint + "/secret") == "value")
        try unmount()
        return true
    }

    private func file() throws -> String {
        work("state/") + (try #require(try names(work("state")).first { $0.hasSuffix(".unlock") }))
    }

    /// The kernel's key, as /proc/keys lists it.
    private func key() throws -> (id: Int, line: String)? {
        let history = try file().split(separator: "/").last!.dropLast(".unlock".count)
        guard let line = try text("/proc/keys").split(separator: "\n").first(where: { $0.contains(history) }),
            let id = Int(line.prefix { $0 != " " }, radix: 16)
        else { return nil }
        return (id, String(line))
    }

    @Test func whatOpenedItOpensItOnceMoreIfThatIsWanted() throws {
        #expect(try !opensByItself())
        try warm("noatime")
        #expect(try !opensByItself())
        try warm()
        #expect(try opensByItself() && opensByItself())
        // A wrong passphrase is not looked at, as none is asked for; without the option it is.
        #expect(try mount("unlock-cache=10m", with: "wrong").status == 0)
        try unmount()
        #expect(try mount(with: "wrong").status == 3)
        #expect(try !opensByItself("noatime"))
        // A service has a session keyring of its own, which does not hold the user's.
        let script =
            "import ctypes, os, sys; c = ctypes.CDLL(None); assert c.syscall(250, 1, None) > 0; os.execv(sys.argv[1], sys.argv[1:])"
        let alone = try work.run(
            [
                "/usr/bin/python3", "-c", script, try Workspace.program(), "mount", work.store, mountpoint, "-o",
                "unlock-cache=10m",
            ])
        #expect(alone.status == 0, "\(alone.complaint)")
        try unmount()
        // The log tells.
        let log = work("state/audit/") + (try #require(try names(work("state/audit")).first))
        let told = try text(log).split(separator: "\n").filter { $0.contains(#""type":"opened""#) }
        #expect(told.filter { $0.contains(#""unlock":"cache""#) }.count == 4 && told.count > 3)
        #expect(try run(["audit", "verify", log]).status == 0)
    }

    @Test func onlyItsPossessorMayLookAtItAndNobodyMayHaveItLiveLonger() throws {
        try warm()
        let (id, line) = try #require(try key())
        #expect(line.contains(" 0b000000 ") && line.contains(" user "), "\(line)")
        #expect(line.contains("9m") || line.contains("10m"), "\(line)")
        #expect(try attributes(file()).permissions == 0o600)
        // KEYCTL_SET_TIMEOUT, KEYCTL_SETPERM, KEYCTL_UPDATE.
        for (operation, argument) in [(15, 100_000), (5, 0x3F3F_0000), (2, 0)] as [(Int32, Int)] {
            let answer = ll_keyctl(operation, id, argument, 0, 0)
            let number = errno
            #expect(answer == -1 && number == EACCES, "\(operation): \(number)")
        }
        // Nobody else's: not with the key's number either.
        let other = try work.run([
            "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/bin/python3", "-c",
            """
            import ctypes, os
            c = ctypes.CDLL(None, use_errno=True); b = ctypes.create_string_buffer(64)
            print(c.syscall(250, 11, ctypes.c_long(\(id)), b, 64), os.strerror(ctypes.get_errno()))
            """,
        ])
        #expect(other.line == "-1 Permission denied", "\(other.text)\(other.complaint)")
    }

    @Test func statusTellsForHowLong() throws {
        func left() throws -> Int? {
            let json = try run(["status", work.store, "--json"]).text
            let place = try #require(json.firstRange(of: "\"unlock_cache_seconds\":"))
            return Int(json[place.upperBound...].prefix { $0.isNumber })
        }
        #expect(try left() == nil)
        try warm()
        #expect(try (1...600).contains(left() ?? 0))
        #expect(try run(["status", work.store]).text.contains("unlock cache"))
        #expect(try run(["lock", work.store]).status == 0)
        #expect(try left() == nil)
        #expect(try !run(["status", work.store]).text.contains("unlock cache"))
    }

    @Test func itEndsAtItsTimeAndIsNotMadeLongerByUse() throws {
        try warm("unlock-cache=2")
        #expect(try opensByItself("unlock-cache=10m"))
        #expect(try eventually { try key() == nil || !opensByItself("unlock-cache=10m") })
        #expect(try !names(work("state")).contains { $0.hasSuffix(".unlock") })
    }

    @Test func aLockTakesItAway() throws {
        try warm()
        #expect(try mount("unlock-cache=10m").status == 0)
        #expect(try run(["lock", mountpoint]).status == 0)
        #expect(try !names(work("state")).contains { $0.hasSuffix(".unlock") })
        try unmount()
        #expect(try !opensByItself())
        // Unlocked again with what opens it, it is kept again; locked by its directory, mounted or not.
        #expect(try mount("unlock-cache=10m", with: "right").status == 0)
        #expect(try run(["lock", work.store]).status == 0)
        expectErrno(ENOKEY) { _ = try contents(mountpoint + "/secret") }
        #expect(try run(["unlock", mountpoint, "--passphrase-file", work("right")]).status == 0)
        try unmount()
        #expect(try opensByItself())
        #expect(try run(["lock", work.store]).status == 0)
        #expect(try !opensByItself())
        #expect(try run(["lock", work("home")]).status == 1)
    }

    @Test func anotherRootKeyEndsIt() throws {
        try warm()
        let kept = try contents(file())
        try put("a new one\n", work("new"), mode: 0o600)
        let changed = try run([
            "unlock-with", "change", work.store, "passphrase", "--passphrase-file", work("right"),
            "--new-passphrase-file", work("new"),
        ])
        #expect(changed.status == 0, "\(changed.complaint)")
        #expect(try !names(work("state")).contains { $0.hasSuffix(".unlock") })
        #expect(try !opensByItself())
        // A half that somebody has put away is of no use.
        let place = work("state/") + (try #require(try names(work("state")).first { $0.hasSuffix(".epoch") }))
        try put(kept, place.replacing(".epoch", with: ".unlock"), mode: 0o600)
        #expect(try !opensByItself())
    }

    @Test func neitherHalfIsOfUseAloneNorOneThatWasChanged() throws {
        try warm()
        let whole = try contents(file())
        let path = try file()
        // Its end among it.
        for place in [0, 8, 16, 17, 30, 50, whole.count - 1] {
            var changed = whole
            changed[place] ^= 1
            try put(changed, path, mode: 0o600)
            #expect(try !opensByItself(), "byte \(place)")
            try warm()
        }
        // Another time's half of the kernel's does not open this time's file.
        let earlier = try contents(file())
        try #require(try run(["lock", work.store]).status == 0)
        try warm()
        try put(earlier, path, mode: 0o600)
        #expect(try !opensByItself())
        // The kernel's alone.
        try warm()
        try check(unlink(path))
        #expect(try !opensByItself())
    }

    @Test func whatMakesNoSenseIsRefused() throws {
        for option in ["unlock-cache=", "unlock-cache=2d", "unlock-cache=soon", "unlock-cache"] {
            #expect(try mount(option, with: "right").status == 2, "\(option)")
        }
        try put(pattern(32, seed: 4), work("key2"), mode: 0o600)
        let lease = try run([
            "mount", work.store, mountpoint, "-o", "lease=1h,unlock-cache=10m", "--key-service",
            "keyfile:" + work("key2"),
        ])
        #expect(lease.status == 2 && lease.complaint.contains("exclude"), "\(lease.complaint)")
        try warm("unlock-cache=0")
        #expect(try !opensByItself("unlock-cache=10m"))
    }
}
