import Glibc
import Testing

/// What is done to a keyring from outside of its mount is in its audit log as well.
@Suite("Commands in the audit log", .serialized, .enabled(if: !Mounted.isPlain))
final class CommandAuditTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }
    private var log: String { work("log/audit.jsonl") }

    init() throws {
        mounted = try Mounted()
        for (seed, name) in ["key2", "key3"].enumerated() {
            try put(pattern(32, seed: UInt64(400 + seed)), work(name), mode: 0o600)
        }
    }

    private func run(_ words: [String]) throws -> Outcome { try work.run([try Workspace.program()] + words) }
    private var key: [String] { ["--key-service", work.keyService] }
    private func key(_ name: String) -> String { "keyfile:" + work(name) }

    private func records(_ expression: String, where condition: String = "True", _ path: String) throws -> [String] {
        let script = """
            import json, sys
            for line in open(sys.argv[1]):
                r = json.loads(line)
                if \(condition): print(\(expression))
            """
        return try work.done(["python3", "-c", script, path]).text.split(separator: "\n").map(String.init)
    }

    /// The only log in the state directory.
    private func usualLog() throws -> String {
        let names = try names(work("state/audit"))
        try #require(names.count == 1)
        return work("state/audit/") + names[0]
    }

    private func sound(_ path: String) throws {
        let verified = try run(["audit", "verify", path])
        #expect(verified.status == 0, "\(verified.complaint)")
    }

    private static let told =
        "r['type'], r['call'], r.get('key_service', r.get('file')), r.get('errno'), r.get('kek_version')"

    private func told(_ path: String) throws -> [String] {
        try records(
            Self.told, where: "r.get('call', '').startswith(('unlock-with', 'backup', 'policy'))", path
        ).map { $0.replacing(work.path, with: "") }
    }

    @Test func eachChangeOfWhatOpensItAndEachBackupIsTwoRecords() throws {
        try mounted.unmount()
        let log = try usualLog()
        for (words, status) in [
            (["add", work.store, key("key2")], 0), (["add", work.store, key("key2")], 1),
            (["change", work.store, "2", "--to", key("key3")], 0), (["renew", work.store, work.keyService], 0),
            (["remove", work.store, key("key3")], 0), (["remove", work.store, "1"], 1),
        ] as [([String], Int32)] {
            // What opens it is at hand, besides where it is what is named.
            let options = words[0] == "renew" ? [] : key
            let outcome = try run(["unlock-with"] + words + options)
            #expect(outcome.status == status, "\(words): \(outcome.complaint)")
        }
        #expect(try run(["backup", work.store, work("b")] + key).status == 0)
        try put("default = \"deny\"\n", work("shut.toml"))
        #expect(try run(["policy", "set", work.store, work("shut.toml")] + key).status == 0)
        try sound(log)
        let expected = [
            ("unlock-with add", "keyfile:/key2", "0 1"), ("unlock-with add", "keyfile:/key2", "5 None"),
            ("unlock-with change", "2: keyfile", "0 2"), ("unlock-with renew", "keyfile:/key", "0 2"),
            ("unlock-with remove", "keyfile:/key3", "0 3"), ("unlock-with remove", "1: keyfile", "5 None"),
            ("backup", "/b", "0 3"), ("policy set", "None", "0 3"),
        ].flatMap { ["request \($0.0) \($0.1) None None", "response \($0.0) \($0.1) \($0.2)"] }
        #expect(try told(log) == expected)
        let who = try records(
            "r['uid'], r['exe'].endswith('/letterlock'), r['decision']", where: "r.get('call') == 'backup'", log)
        #expect(who == ["0 True allow", "0 True allow"])
        #expect(try run(["policy", "set", work.store, "/dev/null"] + key).status == 0)
        // Whoever mounts it goes on with the same chain.
        try mounted.mount()
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        try mounted.unmount()
        try sound(log)
        #expect(
            try records("r['reason']", where: "r['type'] == 'opened'", log)
                == ["mount"] + (0..<6).map { _ in "unlock-with" } + ["backup", "policy", "policy", "mount"])
    }

    @Test func theyGoWhereTheLastMountWasTold() throws {
        try mounted.remount("audit-log=" + log)
        try mounted.unmount()
        #expect(try run(["unlock-with", "add", work.store, key("key2")] + key).status == 0)
        #expect(try told(log).count == 2 && told(usualLog()).isEmpty)
        try sound(log)
        // What cannot be recorded is not done.
        expectDone(rename(work("log"), work("kept")))
        try put("in the way", work("log"))
        let store = try contents(work("store/records.sqlite"))
        for words in [
            ["unlock-with", "add", work.store, key("key3")], ["unlock-with", "remove", work.store, key("key2")],
            ["unlock-with", "change", work.store, key("key2"), "--to", key("key3")],
            ["unlock-with", "renew", work.store, work.keyService], ["backup", work.store, work("b")],
            ["policy", "set", work.store, "/dev/null"],
        ] {
            let options = words[1] == "renew" ? [] : key
            let refused = try run(words + options)
            #expect(refused.status == 1 && refused.complaint.contains("audit log"), "\(words): \(refused.complaint)")
        }
        #expect(try contents(work("store/records.sqlite")) == store && !exists(work("b")))
        #expect(try run(["verify", work.store] + ["--key-service", key("key3")]).status == 3)
        // Another place is one mount away.
        try mounted.mount("audit-log=" + work("kept/audit.jsonl"))
        try mounted.unmount()
        #expect(try run(["backup", work.store, work("b")] + key).status == 0)
        #expect(try told(work("kept/audit.jsonl")).last == "response backup /b 0 1")
        try sound(work("kept/audit.jsonl"))
    }

    @Test func aMountThatRecordsNothingLeavesNothingToBeRecorded() throws {
        try mounted.remount("audit=off")
        try mounted.unmount()
        let before = try contents(usualLog())
        #expect(try run(["unlock-with", "add", work.store, key("key2")] + key).status == 0)
        #expect(try contents(usualLog()) == before)
        // One that reads only cannot have it remembered.
        try mounted.mount("ro")
        try mounted.unmount()
        #expect(try run(["unlock-with", "remove", work.store, key("key2")] + key).status == 0)
        #expect(try told(usualLog()).isEmpty)
        try mounted.mount()
        try mounted.unmount()
        #expect(try run(["backup", work.store, work("b")] + key).status == 0)
        #expect(try told(usualLog()).count == 2)
    }

    @Test func whereTheLogIsCannotBeChangedFromOutside() throws {
        try mounted.remount("audit-log=" + log)
        try mounted.unmount()
        let edit = StoreEdit(work: work)
        let record = try #require(try edit.records().first { $0.key.hasPrefix("100000000000000003") })
        try edit.set(record.key, StoreEdit.flipped(record.value, at: 60))
        for words in [["unlock-with", "add", work.store, key("key2")], ["backup", work.store, work("b")]] {
            let refused = try run(words + key)
            #expect(refused.status == 5, "\(words): \(refused.complaint)")
        }
        #expect(!exists(work("b")))
        // A mount knows where it is, and tells.
        try mounted.mount("audit-log=" + log)
        #expect(try mounted.answer("status").contains("where the audit log is"))
        try mounted.unmount()
        #expect(try run(["unlock-with", "add", work.store, key("key2")] + key).status == 0)
        #expect(try told(log).count == 2)
    }

    @Test func whatIsRestoredHasALogOfItsOwn() throws {
        try mounted.remount("audit-log=" + log)
        #expect(try run(["backup", work.store, work("b")]).status == 0)
        try mounted.unmount()
        #expect(try run(["restore", work("b"), work("restored")] + key).status == 0)
        let before = try contents(log)
        #expect(try run(["unlock-with", "add", work("restored"), key("key2")] + key).status == 0)
        #expect(try contents(log) == before)
        let own = try names(work("state/audit")).map { work("state/audit/") + $0 }.filter { try !told($0).isEmpty }
        #expect(own.count == 1)
        try sound(own[0])
    }

    @Test func aBackupOfWhatIsMountedIsRecordedBeforeItIsGivenAway() throws {
        try work.done(["mkdir", work("log")])
        try work.done(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", work("log")])
        defer { umount2(work("log"), Int32(MNT_DETACH)) }
        try mounted.remount("audit-log=" + log)
        #expect(try run(["backup", work.store, work("b")]).status == 0)
        let fields = "r['type'], r['call'], r['operation'], r.get('errno')"
        #expect(
            try records(fields, where: "r.get('path') == '/.letterlock/backup'", log)
                == ["request open read None", "response open read 0"])
        // A full log gives none away.
        try work.shell("cat /dev/zero >'\(work("log/filling"))' || true")
        expectErrno(EIO) { while true { _ = try contents(mounted.control("backup")) } }
        // The last bytes may have room for a shorter record.
        #expect(eventually { (try? self.run(["backup", self.work.store, self.work("c")]))?.status == 1 })
        try check(unlink(work("log/filling")))
        #expect(eventually { (try? self.run(["backup", self.work.store, self.work("c")]))?.status == 0 })
        try mounted.unmount()
        try sound(log)
    }

    @Test func whoeverDiesOverItIsToldByTheNextOne() throws {
        try mounted.unmount()
        // The new passphrase is read between the two records, and nobody writes it.
        try work.done(["mkfifo", "-m", "600", work("slow")])
        let child = try work.start(
            [
                try Workspace.program(), "unlock-with", "add", work.store, "passphrase", "--passphrase-file",
                work("slow"),
            ]
                + key)
        let log = try usualLog()
        #expect(eventually { (try? self.told(log).count) == 1 })
        kill(child.pid, SIGKILL)
        _ = try? child.wait()
        #expect(try run(["backup", work.store, work("b")] + key).status == 0)
        let ids = try records("r['type'], r['id']", where: "r['type'] in ('request', 'interrupted')", log)
        let interrupted = try #require(ids.first { $0.hasPrefix("interrupted ") })
        #expect(ids.contains(interrupted.replacing("interrupted", with: "request")), "\(ids)")
        try sound(log)
    }
}
