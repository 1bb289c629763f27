import Glibc
import Testing

/// The mount outlives its server.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class OutliveTests {
    private let mounted: Mounted
    init() throws { mounted = try Mounted() }

    /// Kills the server that serves now, and waits until another one does.
    private func killServer(_ signal: Int32 = SIGKILL) throws {
        let old = try mounted.process("server")
        kill(old, signal)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    @Test func openDescriptorsAndStreamsGoOn() throws {
        let value = pattern(200_000, seed: 5)
        try put(value, mounted("f"))
        let reader = try OpenFile(mounted("f"), O_RDONLY)
        let orphan = try OpenFile(mounted("gone"), O_RDWR | O_CREAT)
        try orphan.write("still here")
        expectDone(unlink(mounted("gone")))
        let appender = try OpenFile(mounted("log"), O_WRONLY | O_CREAT | O_APPEND)
        try appender.write("one ")
        try killServer()
        var bytes = [UInt8](repeating: 0, count: value.count)
        #expect(pread(reader.descriptor, &bytes, bytes.count, 0) == value.count)
        #expect(bytes == value)
        var found = [UInt8](repeating: 0, count: 10)
        #expect(pread(orphan.descriptor, &found, 10, 0) == 10 && String(decoding: found, as: UTF8.self) == "still here")
        try appender.write("two")
        for file in [reader, orphan, appender] { try file.close() }
        #expect(try text(mounted("log")) == "one two")
    }

    @Test func aFileWithoutANameIsWrittenOnAndGetsOne() throws {
        let (temporary, follow): (Int32, Int32) = (0o20_200_000, 0x400)
        let file = try OpenFile(mounted.path, temporary | O_RDWR, mode: 0o600)
        let unnamed = try OpenFile(mounted.path, temporary | O_RDWR)
        try file.write("one ")
        try killServer()
        try file.write("two")
        #expect(try file.text() == "one two")
        try unnamed.close()
        expectDone(linkat(AT_FDCWD, "/proc/self/fd/\(file.descriptor)", AT_FDCWD, mounted("named"), follow))
        try killServer()
        try file.close()
        #expect(try text(mounted("named")) == "one two")
        try mounted.remount()
        #expect(try text(mounted("named")) == "one two")
        #expect(try attributes(mounted("named")).st_nlink == 1)
    }

    @Test func aValueThatIsBeingWrittenIsGatheredOn() throws {
        mounted.mayCrash = true
        try put("old", mounted("f"))
        let writer = try OpenFile(mounted("f"), O_WRONLY | O_TRUNC)
        try writer.write("first half, ")
        try killServer()
        #expect(try text(mounted("f")) == "old", "half a value is nobody's")
        try writer.write("second half")
        try killServer(SIGSEGV)
        try writer.close()
        #expect(try text(mounted("f")) == "first half, second half")
    }

    @Test func whoHasBegunToReadAValueReadsItToItsEnd() throws {
        try put(pattern(8000, seed: 1), mounted("f"))
        try put(pattern(8000, seed: 2), mounted("f"))
        // Just replaced: the next reader reads past the page cache, and is remembered.
        let reader = try OpenFile(mounted("f"), O_RDONLY)
        var bytes = [UInt8](repeating: 0, count: 8000)
        #expect(pread(reader.descriptor, &bytes, 4000, 0) == 4000)
        try put(pattern(8000, seed: 3), mounted("f"))
        try killServer()
        let rest = bytes.withUnsafeMutableBytes { pread(reader.descriptor, $0.baseAddress! + 4000, 4000, 4000) }
        #expect(rest == 4000 && bytes == pattern(8000, seed: 2))
        try reader.close()
        #expect(try contents(mounted("f")) == pattern(8000, seed: 3))
    }

    @Test func theStatusTellsWhatHasHappened() throws {
        try killServer()
        let status = try text(mounted.control("status"))
        #expect(status.contains("\"restarts\":1") && status.contains("killed by signal 9"), "\(status)")
        #expect(status.contains("\"kernel_resends\":1") && status.contains("\"generation\":2"), "\(status)")
        let process = try mounted.process("guardian")
        let memory = try text("/proc/\(process)/status").split(separator: "\n").first { $0.hasPrefix("VmRSS:") }
        #expect(memory != nil)
    }

    /// Errors are better than a mount that hangs for ever.
    private func expectGivenUp() {
        #expect(eventually { Workspace.mountpoints(below: self.mounted.workspace.path).isEmpty })
        let guardian = mounted.guardian
        #expect(eventually { kill(guardian, 0) != 0 })
    }

    @Test func aServerThatCannotComeBackIsGivenUp() throws {
        try put("x", mounted("f"))
        try check(rename(mounted.store + "/records.sqlite", mounted.store + "/elsewhere"))
        kill(try mounted.process("server"), SIGKILL)
        expectGivenUp()
        // Nothing is lost.
        try check(rename(mounted.store + "/elsewhere", mounted.store + "/records.sqlite"))
        try mounted.mount()
        #expect(try text(mounted("f")) == "x")
    }

    @Test func aRequestThatNoServerSurvivesIsGivenUp() throws {
        mounted.mayCrash = true
        try put("x", mounted("f"))
        for _ in 0..<40 {
            guard let server = try? mounted.process("server") else { break }
            kill(server, SIGSEGV)
            // It may answer a few requests yet.
            #expect(eventually { kill(server, 0) != 0 })
        }
        expectGivenUp()
        try mounted.mount()
        #expect(try text(mounted("f")) == "x")
    }

    @Test func anUpgradeReplacesTheServer() throws {
        try put("x", mounted("f"))
        let open = try OpenFile(mounted("f"), O_RDONLY)
        let old = try mounted.process("server")
        let outcome = try mounted.workspace.letterlock("upgrade", mounted.path)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        #expect(try mounted.process("server") != old)
        let status = try text(mounted.control("status"))
        #expect(status.contains("\"upgrades\":1") && status.contains("\"generation\":2"), "\(status)")
        var byte: UInt8 = 0
        #expect(pread(open.descriptor, &byte, 1, 0) == 1 && byte == UInt8(ascii: "x"))
        try open.close()
    }

    /// The program that is installed may be anything; the server that serves is kept until another one has shown that it
    /// can.
    @Test func anUpgradeToWhatCannotServeIsNone() throws {
        let workspace = try Workspace()
        let installed = workspace("letterlock")
        let (store, path) = (workspace.store, workspace("mnt"))
        func install(_ program: String) throws {
            try workspace.done(["cp", program, installed + ".new"])
            try check(rename(installed + ".new", installed))
        }
        func server() throws -> pid_t {
            let status = try text(path + "/.letterlock/status")
            let digits = status[try #require(status.firstRange(of: "\"server\":{\"pid\":")).upperBound...]
            return try #require(pid_t(digits.prefix { $0.isNumber }))
        }
        try install(try Workspace.program())
        try workspace.done([installed, "init", store, "--key-service", workspace.keyService])
        try workspace.done([installed, "mount", store, path, "--key-service", workspace.keyService])
        try put("x", path + "/f")
        let old = try server()
        for program in ["/bin/false", "/bin/true", "/etc/passwd"] {
            try install(program)
            let outcome = try workspace.letterlock("upgrade", path)
            #expect(outcome.status == 1 && !outcome.complaint.isEmpty, "\(program): \(outcome)")
            #expect(try server() == old && text(path + "/f") == "x")
        }
        try check(unlink(installed))
        #expect(try workspace.letterlock("upgrade", path).status == 1)
        #expect(try server() == old)
        try install(try Workspace.program())
        #expect(try workspace.letterlock("upgrade", path).status == 0)
        #expect(try server() != old && text(path + "/f") == "x")
        try workspace.done([installed, "umount", path])
    }

    @Test(arguments: [SIGTERM, SIGINT])
    func aGuardianThatIsToldToEndUnmounts(_ signal: Int32) throws {
        try put("x", mounted("f"))
        let open = try OpenFile(mounted("f"), O_RDONLY)
        let processes = [mounted.guardian, mounted.server]
        kill(mounted.guardian, signal)
        #expect(eventually { Workspace.mountpoints(below: self.mounted.workspace.path).isEmpty })
        // Taken away though it was busy: whoever has a file open goes on with it.
        #expect(try open.text() == "x")
        try open.close()
        #expect(eventually { processes.allSatisfy { kill($0, 0) != 0 } })
        try mounted.mount()
        #expect(try text(mounted("f")) == "x")
    }

    @Test func anIdleMountLocksItself() throws {
        try mounted.remount("idle_lock=1")
        try put("x", mounted("f"))
        let open = try OpenFile(mounted("f"), O_RDONLY)
        #expect(eventually { (try? self.mounted.answer("lock")) == "locked" })
        var byte: UInt8 = 0
        #expect(pread(open.descriptor, &byte, 1, 0) == -1 && errno == ENOKEY)
        try mounted.command("1", "unlock")
        #expect(try text(mounted("f")) == "x")
    }

    /// Whoever does not look at what write(2) returns shall not store half a value.
    @Test func aValueOfWhichAPartWasRefusedWhileLockedReplacesNone() throws {
        try put("the old one", mounted("value"))
        let file = open(mounted("value"), O_WRONLY | O_TRUNC)
        try #require(file >= 0)
        #expect(write(file, "half", 4) == 4)
        try mounted.command("1", "lock")
        #expect(write(file, " and", 4) == -1 && errno == ENOKEY)
        try mounted.command("1", "unlock")
        #expect(write(file, " end", 4) == 4)
        #expect(close(file) == 0)
        #expect(try text(mounted("value")) == "the old one")
    }

    @Test func lockedNothingIsReadUntilItIsUnlocked() throws {
        try put("secret", mounted("f"))
        let open = try OpenFile(mounted("f"), O_RDONLY)
        #expect(try text(mounted("f")) == "secret")
        try mounted.command("1", "lock")
        #expect(try mounted.answer("lock") == "locked")
        var byte: UInt8 = 0
        #expect(pread(open.descriptor, &byte, 1, 0) == -1 && errno == ENOKEY)
        expectErrno(ENOKEY) { _ = try contents(mounted("f")) }
        let status = try text(mounted.control("status"))
        for part in [
            "\"state\":\"locked\"", "\"keyring\":\"trial\"", "\"primary\":null", "\"key_services\":[\"keyfile\"]",
        ] {
            #expect(status.contains(part), "\(status)")
        }
        let upgraded = try mounted.workspace.letterlock("upgrade", mounted.path)
        #expect(upgraded.status == 0, "\(upgraded.complaint)")
        let server = try mounted.process("server")
        kill(server, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != server } ?? false })
        expectErrno(ENOKEY) { _ = try contents(mounted("f")) }
        try mounted.command("1", "unlock")
        #expect(pread(open.descriptor, &byte, 1, 0) == 1 && byte == UInt8(ascii: "s"))
        try open.close()
        #expect(try text(mounted("f")) == "secret")
    }

    @Test func aMountWhoseGuardianDiesIsTakenAwayByItsServer() throws {
        try put("x", mounted("f"))
        kill(mounted.guardian, SIGKILL)
        #expect(eventually { Workspace.mountpoints(below: self.mounted.workspace.path).isEmpty })
        let server = mounted.server
        #expect(eventually { kill(server, 0) != 0 })
        try mounted.mount()
        #expect(try text(mounted("f")) == "x")
    }

    /// - Parameter isKnown: The kernel has the attributes of the mount's root yet.
    @Test(arguments: [false, true])
    func aDeadMountIsTakenAwayByTheNextMount(isKnown: Bool) throws {
        try put("x", mounted("f"))
        let processes = [mounted.guardian, mounted.server]
        if isKnown { _ = try attributes(mounted.path) }
        // Stopped first, so that neither can act on the other's death.
        for process in processes { kill(process, SIGSTOP) }
        for process in processes { kill(process, SIGKILL) }
        #expect(eventually { processes.allSatisfy { kill($0, 0) != 0 } })
        expectErrno(ENOTCONN) { _ = try attributes(mounted("f")) }
        let outcome = try mounted.workspace.letterlock(
            "mount", mounted.store, mounted.path, "--key-service", mounted.workspace.keyService)
        #expect(outcome.status == 0 && outcome.complaint.contains("was taken away"), "\(outcome.complaint)")
        #expect(try text(mounted("f")) == "x")
    }
}
