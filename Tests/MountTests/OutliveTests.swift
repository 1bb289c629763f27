import Glibc
import Synchronization
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

    @Test func anUpgradeReplacesTheServer() throws {
        try put("x", mounted("f"))
        let open = try OpenFile(mounted("f"), O_RDONLY)
        let old = try mounted.process("server")
        let outcome = try mounted.workspace.letterlock("upgrade", mounted.path)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        #expect(try mounted.process("server") != old)
        var byte: UInt8 = 0
        #expect(pread(open.descriptor, &byte, 1, 0) == 1 && byte == UInt8(ascii: "x"))
        try open.close()
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

    @Test func aDeadMountIsTakenAwayByTheNextMount() throws {
        try put("x", mounted("f"))
        let processes = [mounted.guardian, mounted.server]
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

    /// Writers and readers see no error and lose nothing, though the server is killed again and again.
    @Test func killedUnderLoadNobodyNotices() throws {
        let kills = Workspace.variable("LETTERLOCK_SOAK_KILLS").flatMap(Int.init) ?? 25
        let seed = UInt64(Workspace.variable("LETTERLOCK_SOAK_SEED").flatMap(Int.init) ?? Int(getpid()))
        print("seed \(seed), \(kills) kills")
        let (path, stops) = (mounted.path, Flag())
        try put([UInt8](repeating: 0, count: 5000), mounted("value"))
        let crew = [
            Soaker("names", stops) { number in try Soak.names(path, number) },
            Soaker("appending", stops) { number in try Soak.append(path, number) },
            Soaker("replacing", stops) { number in try Soak.replace(path, number) },
            Soaker("reading", stops) { _ in try Soak.readWhole(path) },
        ]
        var random = seed
        for _ in 0..<kills {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            usleep(UInt32(random >> 33) % 120_000)
            kill(try mounted.process("server"), random >> 60 == 0 ? SIGSEGV : SIGKILL)
        }
        stops.raised.store(true, ordering: .releasing)
        for soaker in crew { #expect(soaker.end() == nil) }
        #expect(crew.allSatisfy { $0.count > 0 })
        try mounted.unmount()
        let verified = try mounted.workspace.letterlock(
            "verify", mounted.store, "--key-service", mounted.workspace.keyService)
        #expect(verified.status == 0, "\(verified.text)\(verified.complaint)")
    }
}

final class Flag: Sendable { let raised = Atomic(false) }

/// A thread that does something again and again until it is told to stop or it fails.
private final class Soaker: @unchecked Sendable {
    // Written by the thread, read when it has ended.
    private(set) var count = 0
    private var failure: String?
    private var thread = pthread_t()
    private let name: String
    private let stops: Flag
    private let body: (Int) throws -> Void

    init(_ name: String, _ stops: Flag, _ body: @escaping (Int) throws -> Void) {
        self.name = name
        self.stops = stops
        self.body = body
        pthread_create(
            &thread, nil,
            { argument in
                Unmanaged<Soaker>.fromOpaque(argument!).takeUnretainedValue().run()
                return nil
            }, Unmanaged.passUnretained(self).toOpaque())
    }

    private func run() {
        while !stops.raised.load(ordering: .acquiring) {
            do { try body(count) } catch {
                failure = "\(name): \(error) in round \(count)"
                return
            }
            count += 1
        }
    }

    /// What went wrong; nil if nothing did.
    func end() -> String? {
        pthread_join(thread, nil)
        return failure
    }
}

private enum Soak {
    static func names(_ path: String, _ number: Int) throws {
        let directory = "\(path)/d\(number)"
        try check(mkdir(directory, 0o700))
        let file = try OpenFile(directory + "/x", O_WRONLY | O_CREAT | O_EXCL)
        try file.write("abc")
        try file.close()
        try check(rename(directory + "/x", directory + "/y"))
        try check(link(directory + "/y", directory + "/z"))
        guard try text(directory + "/z") == "abc" else { throw HarnessError("a link reads wrong") }
        for name in ["y", "z"] { try check(unlink(directory + "/" + name)) }
        try check(rmdir(directory))
    }

    static func append(_ path: String, _ number: Int) throws {
        let file = try OpenFile(path + "/log", O_WRONLY | O_CREAT | O_APPEND)
        try file.write("\(100_000 + number)\n")
        try file.close()
        guard number % 10 == 0 else { return }
        let lines = try text(path + "/log").split(separator: "\n")
        guard lines.count == number + 1, lines.last == "\(100_000 + number)" else {
            throw HarnessError("\(lines.count) lines and not \(number + 1)")
        }
    }

    static func replace(_ path: String, _ number: Int) throws {
        let file = try OpenFile(path + "/value", O_WRONLY | O_TRUNC)
        let part = String(repeating: number % 2 == 0 ? "a" : "b", count: 1000)
        for _ in 0..<5 { try file.write(part) }
        try file.close()
    }

    static func readWhole(_ path: String) throws {
        let value = try contents(path + "/value")
        guard value.count == 5000, Set(value).count == 1 else { throw HarnessError("a torn value") }
    }
}
