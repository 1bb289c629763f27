import Glibc
import Testing

/// What the audit log tells of real accesses, and what happens when it cannot.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class AuditTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }
    private var log: String { work("log/audit.jsonl") }

    init() throws { mounted = try Mounted() }

    /// Mounts anew with the log at its place in the workspace.
    private func remount(_ options: String...) throws {
        try mounted.remount((["audit-log=" + log] + options).joined(separator: ","))
    }

    /// Records as Python's JSON reader finds them, with an expression over each record `r`; one line each.
    private func records(_ expression: String, where condition: String = "True", _ path: String? = nil) throws
        -> [String]
    {
        let script = """
            import json, sys
            for line in open(sys.argv[1]):
                r = json.loads(line)
                if \(condition): print(\(expression))
            """
        let said = try work.done(["python3", "-c", script, path ?? log])
        return said.text.split(separator: "\n").map(String.init)
    }

    private func verify(_ path: String? = nil) throws -> Outcome {
        try work.letterlock("audit", "verify", path ?? log)
    }

    private func killServer() throws {
        let old = try mounted.process("server")
        kill(old, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    /// The log is signed within a second or two of the last record.
    private func awaitSignature() throws {
        #expect(try eventually { try records("r['type']").last == "checkpoint" })
    }

    // MARK: What is told

    @Test func eachAccessIsTwoRecordsWithEverythingAboutIt() throws {
        try put("v", mounted("key"))
        try remount()
        let policy = """
            [[rule]]
            name = "only nobody"
            effect = "allow"
            paths = ["/shut"]
            operations = ["write"]
            uids = [65534]
            """
        try mounted.command(policy, "policy")
        _ = try work.done(["cat", mounted("key")])
        expectErrno(EACCES) { try put("x", mounted("shut")) }
        try mounted.command("1", "keys/rotate")
        let fields =
            "r['type'], r['operation'], r['path'], r['uid'], r['gid'], r['exe'], r['keyring'], r['decision'], r['rule']"
        let read = try records(fields, where: "r.get('path') == '/key' and r['exe'].endswith('/cat')")
        #expect(
            read == ["request", "response"].map { "\($0) read /key 0 0 /usr/bin/cat trial allow default" })
        let answers = try records(
            "r['errno'], r['kek_version'], r['pid'] > 1", where: "r['type'] == 'response' and r.get('path') == '/key'")
        #expect(answers == ["0 1 True"])
        // What is not known is null, and not missing.
        #expect(!(try records("r['unit'], r['exe'], r['kek_version']", where: "r['type'] == 'response'").isEmpty))
        let refused = try records(
            "r['type'], r['decision'], r['rule'], r.get('errno')", where: "r.get('path') == '/shut'")
        #expect(refused == ["request deny only nobody None", "response deny only nobody 13"])
        let control = try records(
            "r['type'], r['call'], r.get('errno')", where: "r.get('path') == '/.letterlock/keys/rotate'")
        #expect(control == ["request control None", "response control 0"])
        // Each response has the id of its request, and comes after it.
        let ids = try records("r['type'], r['id']", where: "'id' in r")
        #expect(ids.count % 2 == 0)
        let pairs = ids.map { $0.split(separator: " ") }
        for (index, pair) in pairs.enumerated() where pair[0] == "response" {
            #expect(pairs[..<index].contains { $0[0] == "request" && $0[1] == pair[1] })
        }
        #expect(try attributes(log).permissions == 0o600)
        #expect(try text(mounted.control("audit/tail")).contains("/.letterlock/keys/rotate"))
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        #expect(try mounted.answer("status").contains("\"audit\":{\"mode\":\"fail-closed\""))
        #expect(try contents(log).split(separator: 10).allSatisfy { !$0.contains(7) })
    }

    @Test func theChainIsWhatItsPageSays() throws {
        try remount()
        for name in ["a", "b", "c"] { try put(name, mounted(name)) }
        try mounted.unmount()
        let script = """
            import hashlib, sys
            prev, count = None, 0
            for line in open(sys.argv[1], 'rb'):
                line = line.rstrip(b'\\n')
                body, rest = line.rsplit(b',"hash":"', 1)
                assert hashlib.blake2b(body, digest_size=32).hexdigest().encode() == rest[:64], line
                assert prev is None or b'"prev":"' + prev + b'"' in body, line
                prev, count = rest[:64], count + 1
            print(count)
            """
        let count = try work.done(["python3", "-c", script, log]).line
        #expect(try verify().text == "ok \(count) records\n")
        try mounted.mount()
    }

    @Test(arguments: ["kernel", "none"])
    func readsAreRecordedWhereTheyReachTheServer(cache: String) throws {
        try put("value", mounted("f"))
        try remount("cache=" + cache)
        let file = try OpenFile(mounted("f"), O_RDONLY)
        for _ in 0..<3 { #expect(try file.read(5, at: 0).count == 5) }
        let reads = try records("r['path']", where: "r.get('call') == 'read' and r['type'] == 'response'")
        #expect(reads == (cache == "none" ? ["/f", "/f", "/f"] : []))
    }

    @Test func pathsCanBeHidden() throws {
        try put("v", mounted("hidden-name"))
        try remount("audit-paths=hmac")
        #expect(try text(mounted("hidden-name")) == "v")
        let whole = try text(log)
        #expect(whole.contains("\"path\":\"hmac:") && !whole.contains("hidden-name"))
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
    }

    @Test func lockingAndUnlockingIsRecorded() throws {
        try remount()
        try mounted.command("1", "lock")
        try mounted.command("1", "unlock")
        try put("x", mounted("after"))
        let lock = try records("r['type'], r.get('errno')", where: "r.get('path') == '/.letterlock/lock'")
        #expect(lock == ["request None", "response 0"])
        #expect(try records("r['type']", where: "r.get('path') == '/after'").count == 2)
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        try awaitSignature()
        #expect(try verify().status == 0)
    }

    // MARK: When it cannot be written

    @Test func aFullLogStopsWhatItWouldHaveToTellAndNothingElse() throws {
        try put("v", mounted("f"))
        try mounted.unmount()
        try check(mkdir(work("log"), 0o700))
        try work.done(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", work("log")])
        try mounted.mount("audit-log=" + log)
        try work.shell("dd if=/dev/zero of='\(work("log/filler"))' bs=4096 count=64 2>/dev/null || true")
        // The last page of the log may have room yet: until there is none for the shortest record of those below.
        var names = "hijklmnopqrstuvwxyz".map(String.init)
        while let name = names.popLast(), mkdir(mounted(name), 0o755) == 0 {}
        #expect(!names.isEmpty)
        for _ in 0..<20 { expectErrno(EIO) { _ = try contents(mounted("f")) } }
        expectErrno(EIO) { try put("new", mounted("g")) }
        expectErrno(EIO, mkdir(mounted("d"), 0o755))
        expectErrno(EIO, unlink(mounted("f")))
        expectErrno(EIO) { try mounted.command("1", "keys/rotate") }
        // Looking is not recorded, and nothing has happened.
        #expect(try attributes(mounted("f")).st_size == 1)
        expectErrno(ENOENT) { _ = try attributes(mounted("g")) }
        expectErrno(ENOENT) { _ = try attributes(mounted("d")) }
        let status = try mounted.answer("status")
        #expect(status.contains("\"state\":\"failing\"") && status.contains("audit log cannot be written"), "\(status)")
        #expect(status.contains("\"primary\":1"))
        // Who shall be woken by that gets to know of it.
        #expect(try mounted.answer("metrics").contains("letterlock_audit_failing 1\n"))
        #expect(try contents(log).last == 10, "no half record is left")
        expectDone(unlink(work("log/filler")))
        #expect(try text(mounted("f")) == "v")
        try put("new", mounted("g"))
        try mounted.command("1", "keys/rotate")
        #expect(try mounted.answer("status").contains("\"state\":\"ok\""))
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        try mounted.unmount()
        #expect(try verify().status == 0)
        expectDone(umount2(work("log"), 0))
        try mounted.mount()
    }

    @Test func bestEffortGoesOnAndCountsWhatIsMissing() throws {
        try put("v", mounted("f"))
        try mounted.unmount()
        try check(mkdir(work("log"), 0o700))
        try work.done(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", work("log")])
        try mounted.mount("audit-log=\(log),audit=best-effort")
        try work.shell("dd if=/dev/zero of='\(work("log/filler"))' bs=4096 count=64 2>/dev/null || true")
        for _ in 0..<20 { #expect(try text(mounted("f")) == "v") }
        try put("w", mounted("f"))
        expectDone(unlink(work("log/filler")))
        #expect(try text(mounted("f")) == "w")
        let lost = try records("r['records']", where: "r['type'] == 'lost'")
        #expect(lost.compactMap { Int($0) }.reduce(0, +) > 20, "\(lost)")
        try mounted.unmount()
        #expect(try verify().status == 0)
        expectDone(umount2(work("log"), 0))
        try mounted.mount()
    }

    @Test func aMountWithoutALogIsRefusedUnlessItIsAskedFor() throws {
        try mounted.unmount()
        func mount(_ options: String) throws -> Outcome {
            try work.letterlock(
                "mount", mounted.store, mounted.path, "-o", options, "--key-service", work.keyService)
        }
        let refused = try mount("audit-log=/proc/nowhere/audit.jsonl")
        #expect(refused.status == 1 && refused.complaint.contains("audit log"), "\(refused.complaint)")
        #expect(try mount("audit-log=\(mounted.path)/audit.jsonl").complaint.contains("would lie on the mount"))
        #expect(try mount("audit=perhaps").status == 2)
        #expect(try mount("audit-log=relative").status == 2)
        try mounted.mount("audit=off")
        try put("x", mounted("f"))
        #expect(!exists(log))
        #expect(try mounted.answer("audit/verify").contains("audit=off"))
        #expect(try mounted.answer("status").contains("\"audit\":{\"mode\":\"off\"}"))
    }

    @Test func theSystemLogIsADevice() throws {
        guard !exists("/dev/log") else { return }
        let socket = try NotifySocket("/dev/log")
        defer { unlink("/dev/log") }
        try mounted.remount("audit-log=none,audit-syslog")
        let opened = try socket.receive()
        #expect(opened.hasPrefix("<37>letterlock-audit[") && opened.contains("\"type\":\"opened\""), "\(opened)")
        expectErrno(ENOENT) { _ = try contents(mounted("absent")) }
        try put("x", mounted("f"))
        var received = ""
        while !received.contains("\"type\":\"response\"") { received += try socket.receive() }
        #expect(received.contains("\"path\":\"/f\""))
        unlink("/dev/log")
        _ = consume socket
        expectErrno(EIO) { _ = try contents(mounted("f")) }
    }

    // MARK: What outlives the server, and the file

    @Test func aKilledServerDoesNotBreakTheChain() throws {
        try remount()
        for round in 0..<4 {
            let writers = try (0..<3).map { index in
                try work.start([
                    "bash", "-c",
                    "for i in $(seq 40); do echo $i >'\(mounted("f\(index)"))' && cat '\(mounted("f\(index)"))'; done",
                ])
            }
            try killServer()
            for writer in writers { #expect(try writer.wait().status == 0, "round \(round)") }
        }
        let own = try mounted.answer("audit/verify")
        #expect(own.hasPrefix("ok "), "\(own)")
        try mounted.unmount()
        let verdict = try verify()
        #expect(verdict.status == 0, "\(verdict.complaint)")
        let open = """
            import json, sys
            waiting = set()
            for line in open(sys.argv[1]):
                r = json.loads(line)
                if r['type'] == 'request': waiting.add(r['id'])
                if r['type'] in ('response', 'interrupted'): waiting.discard(r['id'])
            print(len(waiting))
            """
        #expect(try work.done(["python3", "-c", open, log]).line == "0")
        #expect(
            try records("r['reason']", where: "r['type'] == 'opened'") == ["mount"] + (0..<4).map { _ in "takeover" })
        try mounted.mount()
    }

    @Test func theLogIsRotatedAtHangup() throws {
        try remount()
        try put("x", mounted("before"))
        expectDone(rename(log, log + ".1"))
        kill(try mounted.process("guardian"), SIGHUP)
        #expect(
            eventually {
                _ = try? contents(self.mounted("before"))
                return exists(self.log)
            })
        try put("x", mounted("after"))
        #expect(try verify(log + ".1").status == 0)
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        #expect(try records("r['reason']", where: "r['type'] == 'opened'") == ["rotation"])
        #expect(try records("r['path']", where: "r.get('path') == '/after' and r['type'] == 'response'").count == 1)
        try awaitSignature()
        #expect(try verify().status == 0)
        // The chain goes on from one file to the next.
        let last = try records("r['hash']", log + ".1").last
        #expect(try records("r['prev']").first == last)
    }

    @Test func whoTriesToUnlockIsRecorded() throws {
        try remount()
        try mounted.command("1", "lock")
        expectErrno(EKEYREJECTED) { try mounted.command("a guess", "unlock") }
        try mounted.command("1", "unlock")
        let tries = try records(
            "r['uid'], r['exe'] is not None, r['decision'], r['errno']",
            where: "r['type'] == 'response' and r.get('path') == '/.letterlock/unlock'")
        #expect(tries == ["0 True allow \(EKEYREJECTED)", "0 True allow 0"])
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        try awaitSignature()
        #expect(try verify().status == 0)
    }

    /// It always has an end that is not signed yet.
    @Test func aLogThatIsBeingWrittenVerifies() throws {
        try remount()
        let writer = try work.start([
            "bash", "-c", "for i in $(seq 60); do echo $i >'\(mounted("busy"))'; sleep 0.05; done",
        ])
        for _ in 0..<2 {
            let verdict = try verify()
            #expect(verdict.status == 0 && verdict.text.hasPrefix("ok "), "\(verdict.complaint)\(verdict.text)")
        }
        #expect(try writer.wait().status == 0)
    }

    @Test func whoeverCutsOrChangesItIsFoundOut() throws {
        try remount()
        for name in ["a", "b"] { try put(name, mounted(name)) }
        try awaitSignature()
        #expect(try verify().status == 0)
        let whole = try text(log).split(separator: "\n", omittingEmptySubsequences: false)
        try put(whole.dropLast(3).joined(separator: "\n") + "\n", work("cut"), mode: 0o600)
        let cut = try verify(work("cut"))
        #expect(cut.status == 5, "\(cut.complaint)\(cut.text)")
        try put(try text(log).replacing("/a", with: "/z"), work("changed"), mode: 0o600)
        let changed = try verify(work("changed"))
        #expect(changed.status == 5 && changed.complaint.contains("was changed"), "\(changed.complaint)")
        // And by the mount itself.
        try work.shell("sed -i 's|/a|/z|' '\(log)'")
        let own = try mounted.answer("audit/verify")
        #expect(!own.hasPrefix("ok"), "\(own)")
        #expect(try work.letterlock("audit", "verify", mounted.path).status == 5)
        let key = try mounted.answer("audit/key")
        #expect(key.utf8.count == 64)
        let other = String(key.reversed())
        #expect(try work.letterlock("audit", "verify", work("cut"), "--key", other).status == 5)
    }
}
