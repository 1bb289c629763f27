import Glibc
import Testing

/// What a revocation tells: which files it concerns, who has read them, and what of that stays in the audit log.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class RevocationTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }
    private var log: String { work("log/audit.jsonl") }

    init() throws {
        mounted = try Mounted()
        try mounted.remount("audit-log=" + log)
    }

    /// What an expression over `d` makes of the document that `revoke` reads as.
    private func revocation(_ expression: String) throws -> String {
        let script = "import json, sys; d = json.load(open(sys.argv[1])); print((\(expression)))"
        let said = try work.done(["python3", "-c", script, mounted.control("revoke")])
        return String(said.text.dropLast())
    }

    private func records(_ type: String, _ expression: String) throws -> [String] {
        let script = """
            import json, sys
            for line in open(sys.argv[1]):
                r = json.loads(line)
                if r['type'] == sys.argv[2]: print(\(expression))
            """
        return try work.done(["python3", "-c", script, log, type]).text.split(separator: "\n").map(String.init)
    }

    private func awaitEnd() throws {
        let isDone = try eventually { try mounted.answer("revoke").hasPrefix("{\"state\":\"done\"") }
        let said = try mounted.answer("revoke")
        #expect(isDone, "\(said)")
    }

    private let readers = "sorted((r['path'], r['exe'], r['unwraps'], r['since']) for r in d['readers'])"

    @Test func itTellsWhoHadReadWhatTheVersionProtectedAndWhoReadsItSince() throws {
        for name in ["a", "b", "c"] { try put("value of \(name)", mounted(name)) }
        for _ in 0..<2 { try work.done(["/usr/bin/cat", mounted("a")]) }
        try work.done(["/usr/bin/head", mounted("b")])
        try mounted.command("1", "keys/rotate")
        try put("new", mounted("new"))
        try work.done(["/usr/bin/cat", mounted("new")])
        try mounted.command("1 seen on a screen", "revoke")
        try awaitEnd()
        #expect(try revocation("sorted(d['affected']), d['affected_left_out']") == "(['/a', '/b', '/c'], 0)")
        #expect(
            try revocation("[r for r in \(readers) if r[1].startswith('/usr/bin')]")
                == "[('/a', '/usr/bin/cat', 2, 0), ('/b', '/usr/bin/head', 1, 0)]")
        #expect(
            try revocation("[(s['step'], s['state']) for s in d['steps']]")
                == "[('list', 'done'), ('rotate', 'done'), ('compromise', 'done'), ('reencrypt', 'done'), ('report', 'done')]"
        )
        // The report stays in the log, which is sound.
        #expect(
            try records(
                "revocation", "r['kek_version'], r['primary'], r['why'], r['state'], r['files'], r['reencrypted']")
                == ["1 2 seen on a screen done 3 3"])
        let reported = try records("revocation-reader", "r['path'], r['exe'], r['unwraps']")
        #expect(reported.contains("/a /usr/bin/cat 2") && reported.contains("/b /usr/bin/head 1"), "\(reported)")
        #expect(!reported.contains { $0.hasPrefix("/new") })
        #expect(try records("revocation", "r['log'].startswith('ok ')") == ["True"])
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        // A value that was not replaced, read since by somebody who had not read it before.
        try work.done(["/usr/bin/tail", mounted("c")])
        #expect(
            try revocation("[r for r in \(readers) if r[0] == '/c' and r[2] == 0]") == "[('/c', '/usr/bin/tail', 0, 1)]"
        )
        try put("regenerated", mounted("a"))
        #expect(try revocation("sorted(d['affected'])") == "['/b', '/c']")
    }

    @Test func itIsReportedOnceThoughTheServerDiesAndTheLogIsRotated() throws {
        try put("value", mounted("a"))
        try work.done(["/usr/bin/cat", mounted("a")])
        try check(rename(log, log + ".1"))
        kill(try mounted.process("server"), SIGHUP)
        try mounted.command("1 lost", "revoke")
        let old = try mounted.process("server")
        kill(old, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
        try awaitEnd()
        #expect(try revocation("[r for r in \(readers) if r[1] == '/usr/bin/cat']") == "[('/a', '/usr/bin/cat', 1, 0)]")
        try mounted.remount("audit-log=" + log)
        try awaitEnd()
        // Once more if it dies between the two, which this one is not made to.
        let count = try records("revocation", "r['unwraps'] >= 1").count
        #expect(count == 1 || count == 2)
    }

    /// A request that asks for the document does not wait until all of it is read.
    @Test func aLongLogIsReadBehindTheOneWhoAsks() throws {
        try put("value", mounted("a"))
        try work.done(["/usr/bin/cat", mounted("a")])
        try mounted.command("1 lost", "revoke")
        try awaitEnd()
        #expect(try revocation("d['readers_complete']") == "True")
        let script = """
            import sys
            line = next(l for l in open(sys.argv[1]) if '"exe":"/usr/bin/cat"' in l and '"type":"response"' in l
                and '"kek_version":1,' in l)
            with open(sys.argv[1] + '.1', 'w') as old: old.write(line * 20000)
            """
        try work.done(["python3", "-c", script, log])
        #expect(try revocation("d['readers_complete']") == "False")
        #expect(try eventually { try revocation("d['readers_complete']") == "True" })
        let count = try revocation("max(r['unwraps'] for r in d['readers'] if r['exe'] == '/usr/bin/cat') // 20000")
        #expect(try #require(Int(count)) >= 1)
    }

    /// Who looks at it all the time while the job runs is told what has changed all the same.
    @Test func theListOfARunningRevocationIsTrue() throws {
        for number in 0..<50 { try put(pattern(100_000, seed: UInt64(number)), mounted("f\(number)")) }
        try mounted.command("1 lost", "revoke")
        var looks = 0
        while try !mounted.answer("revoke").hasPrefix("{\"state\":\"done\"") {
            let seen = try revocation("(len(d['affected']), d['affected_left_out']) if d['state'] == 'running' else 0")
            #expect(seen == "(50, 0)" || seen == "0", "\(seen)")
            looks += 1
            if looks > 500 { break }
        }
        try awaitEnd()
        try put("regenerated", mounted("f7"))
        #expect(try revocation("len(d['affected'])") == "49")
    }

    @Test func everyRevocationIsRemembered() throws {
        try put("value", mounted("a"))
        try mounted.command("1 first", "revoke")
        try awaitEnd()
        try mounted.command("2 second", "revoke")
        try awaitEnd()
        // Of one that is compromised already: what was gathered under it meanwhile.
        try mounted.command("1 first again", "revoke")
        try awaitEnd()
        try mounted.remount("audit-log=" + log)
        let earlier = "[(e['version'], e['state'], e['done'], e['reported']) for e in d['earlier']]"
        #expect(try revocation("d['version'], \(earlier)") == "(1, [(1, 'done', 1, True), (2, 'done', 1, True)])")
        #expect(try records("revocation", "r['kek_version']") == ["1", "2", "1"])
    }

    @Test func withoutALogItSaysSo() throws {
        try mounted.remount("audit=off")
        try put("value", mounted("a"))
        try mounted.command("1 lost", "revoke")
        try awaitEnd()
        #expect(
            try revocation("d['steps'][4]['state'], d['steps'][4]['log'], d['readers']") == "('cancelled', None, [])")
    }
}
