import Glibc
import Testing

/// What a mount tells of its use: readers, metrics, and the samples for both.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class ObservingTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func readers(_ expression: String) throws -> [String] {
        let script = "import json, sys\nfor r in json.load(sys.stdin)['readers']: print(\(expression))"
        return try work.done(["python3", "-c", script], input: try text(mounted.control("readers"))).text
            .split(separator: "\n").map(String.init)
    }

    // MARK: Readers

    @Test func whoReadsIsKnownAndWhoGoesByAnOldValue() throws {
        try check(chmod(mounted.path, 0o755))
        try put("one", mounted("a"))
        try put("two", mounted("b"))
        #expect(try readers("r") == [])
        _ = try work.done(["cat", mounted("a")])
        _ = try work.done(["setpriv", "--reuid", "1777", "--clear-groups", "head", mounted("a")])
        _ = try work.done(["cat", mounted("b")])
        let all = try readers("r['path'], r['uid'], r['exe'], r['stale'], r['pid'] > 1")
        #expect(
            all == [
                "/a 0 /usr/bin/cat False True", "/a 1777 /usr/bin/head False True", "/b 0 /usr/bin/cat False True",
            ])
        try put("new", mounted("a"))
        _ = try work.done(["cat", mounted("a")])
        #expect(try readers("r['path'], r['uid'], r['stale']") == ["/a 1777 True", "/a 0 False", "/b 0 False"])
        // A rotation of the key changes no value.
        try mounted.command("1", "keys/rotate")
        let stale = try work.letterlock("readers", mounted.path, "--stale")
        #expect(stale.status == 0, "\(stale.complaint)")
        let lines = stale.text.split(separator: "\n")
        #expect(lines.count == 2 && lines[1].hasPrefix("/a") && lines[1].contains("1777"), "\(stale.text)")
        #expect(try work.letterlock("readers", mounted.path, mounted("b"), "--stale").text.hasPrefix("nobody"))
        #expect(try work.letterlock("readers", mounted.path, "/b").text.split(separator: "\n").count == 2)
        // It follows a file to its new name, and forgets what is gone.
        try check(rename(mounted("a"), mounted("z")))
        expectDone(unlink(mounted("b")))
        #expect(Set(try readers("r['path']")) == ["/z"])
    }

    // MARK: Metrics

    @Test func metricsAreValidAndCount() throws {
        try put("v", mounted("f"))
        for _ in 0..<3 { _ = try contents(mounted("f")) }
        let policy = """
            [[rule]]
            name = "a \\"quoted\\" rule"
            effect = "deny"
            paths = ["/f"]
            operations = ["read"]
            """
        try mounted.command(policy, "policy")
        // A series that begins with its first denials would hide them from `increase`.
        #expect(try mounted.answer("metrics").contains("letterlock_denials_total{rule=\"a \\\"quoted\\\" rule\"} 0\n"))
        expectErrno(EACCES) { _ = try contents(mounted("f")) }
        try mounted.command("1", "keys/rotate")
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("disable", "keys/1/state")
        try mounted.command("7 force", "keys/1/destroy")
        try mounted.command("720h", "keys/auto_rotate_period")
        let page = try text(mounted.control("metrics"))
        let checked = try work.run(["promtool", "check", "metrics"], input: page)
        #expect(
            checked.status == 0 && checked.text.isEmpty && checked.complaint.isEmpty,
            "\(checked.complaint)\(checked.text)")
        for line in [
            "letterlock_operations_total{call=\"open\",result=\"ok\"} 3",
            "letterlock_operations_total{call=\"open\",result=\"denied\"} 1",
            "letterlock_denials_total{rule=\"a \\\"quoted\\\" rule\"} 1",
            "letterlock_operation_duration_seconds_count{call=\"open\"} 4",
            "letterlock_operation_duration_seconds_bucket{call=\"open\",le=\"+Inf\"} 4",
            "letterlock_files 1", "letterlock_kek_files{kek_version=\"1\",state=\"pending-destruction\"} 1",
            "letterlock_audit_enabled 1", "letterlock_audit_failing 0",
            "letterlock_audit_failures_total 0", "letterlock_cache_lookups_total{cache=\"decision\",result=\"hit\"} 0",
            "letterlock_key_service_calls_total{service=\"keyfile\",result=\"ok\"} 1", "letterlock_policy_rules 1",
        ] {
            #expect(page.split(separator: "\n").contains(Substring(line)), "\(line) in \(page)")
        }
        #expect(page.contains("letterlock_kek_destruction_seconds{kek_version=\"1\"} 604"))
        let file = work("letterlock.prom")
        let written = try work.letterlock("metrics", mounted.path, "--textfile", file)
        #expect(written.status == 0, "\(written.complaint)")
        #expect(try attributes(file).permissions == 0o644)
        #expect(try work.run(["promtool", "check", "metrics"], input: try text(file)).status == 0)
        // Prometheus adds nothing up wrongly after a restart: it begins again, and that is told.
        kill(try mounted.process("server"), SIGKILL)
        #expect(eventually { (try? text(self.mounted.control("metrics")))?.contains("restarts_total 1") ?? false })
    }

    @Test func theAlertRulesAreValid() throws {
        let rules = ExampleTests.examples + "/prometheus/letterlock.rules.yml"
        let outcome = try work.run(["promtool", "check", "rules", rules])
        #expect(outcome.status == 0 && outcome.text.contains("10 rules found"), "\(outcome.complaint)\(outcome.text)")
        // Each is woken by what it is for, and by nothing else.
        let tests = ExampleTests.examples + "/prometheus/letterlock.test.yml"
        let tested = try work.run(["promtool", "test", "rules", tests])
        #expect(tested.status == 0 && tested.text.contains("SUCCESS"), "\(tested.complaint)\(tested.text)")
        // Each metric that they speak of is one of the page's.
        let page = try text(mounted.control("metrics"))
        try mounted.command("720h", "keys/auto_rotate_period")
        let names = try text(rules).matches(of: /letterlock_[a-z_]+/).map { String($0.output) }
        for name in Set(names) where name != "letterlock_kek_destruction_seconds" {
            #expect(
                page.contains("# TYPE \(name) ")
                    || ["letterlock_kek_next_rotation_seconds", "letterlock_lease_grace", "letterlock_hook_runs_total"]
                        .contains(name),
                "\(name)")
        }
    }

    // MARK: The checklist

    private func checklist() throws -> [String: String] {
        let script = """
            import json, sys
            for i in json.load(sys.stdin):
                print(i["item"], i["status"], i["reason"])
                assert (i["status"] == "fail") == bool(i["remedy"]), i
            """
        let said = try work.done(["python3", "-c", script], input: try text(mounted.control("checklist"))).text
        var items: [String: String] = [:]
        for line in said.split(separator: "\n") {
            let words = line.split(separator: " ", maxSplits: 1)
            items[String(words[0])] = String(words[1])
        }
        return items
    }

    @Test func theChecklistFollowsWhatIsDone() throws {
        try put("v", mounted("f"))
        let before = try checklist()
        #expect(before.count == 10, "\(before)")
        for name in ["rotation", "least_privilege", "revocation_tested", "backup_recent", "alerts"] {
            #expect(before[name]?.hasPrefix("fail ") == true, "\(name): \(before[name] ?? "")")
        }
        for name in [
            "entropy", "envelope_separation", "audit", "key_material_not_in_git", "not_shared_between_environments",
        ] {
            #expect(before[name]?.hasPrefix("pass ") == true, "\(name): \(before[name] ?? "")")
        }
        try mounted.command("30d", "keys/auto_rotate_period")
        try mounted.command(
            "[[rule]]\nname = \"r\"\neffect = \"allow\"\npaths = [\"/**\"]\noperations = [\"read\"]\nuids = [0]",
            "policy")
        try mounted.command("1 a test", "revoke")
        #expect(try eventually { try mounted.answer("revoke").contains("\"state\":\"done\",\"version\"") })
        _ = try text(mounted.control("metrics"))
        let isBackedUp = try work.letterlock("backup", mounted.path, work("backup"))
        #expect(isBackedUp.status == 0, "\(isBackedUp.complaint)")
        for (name, said) in try checklist() { #expect(said.hasPrefix("pass "), "\(name): \(said)") }
        // And what is let go of fails.
        try mounted.command("1", "keys/rotate")
        try check(link(work("key"), work("key-of-another")))
        try check(mkdir(work(".git"), 0o755))
        try mounted.command(
            "[[rule]]\nname = \"r\"\neffect = \"allow\"\npaths = [\"/**\"]\noperations = [\"read\"]", "policy")
        let after = try checklist()
        for name in ["least_privilege", "key_material_not_in_git", "not_shared_between_environments", "backup_recent"] {
            #expect(after[name]?.hasPrefix("fail ") == true, "\(name): \(after[name] ?? "")")
        }
    }

    @Test func theChecklistTellsWhatIsMissingAndWhatMendsIt() throws {
        func item(_ name: String) throws -> String { try #require(try checklist()[name]) }
        // Whoever lets in every program, or everybody for a while, lets everybody in.
        for matcher in [
            "between = \"08:00-07:59\"", "opens_per_process = 3", "exes = [\"/bin/cat\", \"/**\"]", "units = [\"*\"]",
            "cgroups = [\"/**\"]\nbetween = \"08:00-18:00\"",
        ] {
            try mounted.command(
                "[[rule]]\nname = \"r\"\neffect = \"allow\"\npaths = [\"/web/**\"]\noperations = [\"read\"]\n\(matcher)",
                "policy")
            #expect(try item("least_privilege") == "fail rule 'r' lets everybody read", "\(matcher)")
        }
        try mounted.command(
            "[[rule]]\nname = \"r\"\neffect = \"allow\"\npaths = [\"/web/**\"]\noperations = [\"read\"]\n"
                + "exes = [\"/**\"]\nuids = [0]", "policy")
        #expect(try item("least_privilege").hasPrefix("pass "))
        // A revocation that is not through yet has not been tested.
        try put("v", mounted("f"))
        try mounted.command("1 a test", "revoke")
        #expect(try eventually { try item("revocation_tested").hasPrefix("pass ") })
        try mounted.remount("audit=best-effort")
        #expect(try item("audit") == "fail what cannot be recorded happens nevertheless")
        #expect(try item("revocation_tested").hasPrefix("pass "), "it is remembered")
        try mounted.remount("audit=off")
        #expect(try item("audit") == "fail nothing is recorded")
        // What mends a log that was changed mends it.
        try mounted.remount("audit-log=\(work("audit.jsonl"))")
        _ = try contents(mounted("f"))
        let log = try String(decoding: contents(work("audit.jsonl")), as: UTF8.self)
        try put(log.replacing("allow", with: "alloW"), work("audit.jsonl"))
        #expect(try item("audit").contains("was changed"))
        try check(rename(work("audit.jsonl"), work("audit.jsonl.changed")))
        kill(try mounted.process("guardian"), SIGHUP)
        #expect(try eventually { try item("audit").hasPrefix("pass ") })
    }

    // MARK: Sample policies

    private func set(_ sample: String) throws {
        let outcome = try work.letterlock("policy", "set", mounted.path, ExampleTests.examples + "/policy/" + sample)
        #expect(outcome.status == 0, "\(outcome.complaint)")
    }

    @Test func oneServiceReadsOneDirectory() throws {
        try check(chmod(mounted.path, 0o755))
        try check(mkdir(mounted("web"), 0o755))
        try put("secret", mounted("web/tls.key"))
        try put("free", mounted("other"))
        let group = try ControlGroup("system.slice/nginx.service")
        let read = "/usr/sbin/nginx -t -q -p '\(work.path)' -c '\(work("nginx.conf"))'"
        // It reads the file that it includes.
        try put("include \(mounted("web/tls.key"));\nevents {}\n", work("nginx.conf"))
        try put("pid \(work("nginx.pid"));\n", mounted("web/tls.key"))
        try set("one-service.toml")
        let inside = try work.run(["bash", "-c", group.script(read)])
        #expect(inside.status == 0, "\(inside.complaint)")
        let outside = try work.run(["bash", "-c", read])
        #expect(outside.status != 0 && outside.complaint.contains("Permission denied"), "\(outside.complaint)")
        let other = try work.run(["bash", "-c", group.script("cat '\(mounted("web/tls.key"))'")])
        #expect(other.status != 0)
        #expect(try text(mounted("other")) == "free")
    }

    @Test func operatorsListAndDoNotRead() throws {
        try check(chmod(mounted.path, 0o755))
        try put("secret", mounted("key"))
        try set("list-only.toml")
        func run(_ program: String, _ path: String, gid: Int) throws -> Int32 {
            try work.run([
                "setpriv", "--reuid", "1777", "--regid", "1777", "--groups", "\(gid)", program, path,
            ]).status
        }
        #expect(try run("ls", mounted.path, gid: 4) == 0 && run("cat", mounted("key"), gid: 4) != 0)
        #expect(try run("ls", mounted.path, gid: 5) != 0 && run("cat", mounted("key"), gid: 5) == 0)
    }

    @Test func onlyRootAndOneUnitRotate() throws {
        try set("rotation.toml")
        let script = "echo 1 >'\(mounted.control("keys/rotate"))'"
        func run(_ group: String, _ script: String) throws -> Int32 {
            let group = try ControlGroup(group)
            return try work.run(["bash", "-c", "echo $$ >'\(group.path)/cgroup.procs' && \(script)"]).status
        }
        #expect(try work.run(["bash", "-c", script]).status != 0)
        #expect(try run("system.slice/cron.service", script) != 0)
        #expect(try run("system.slice/letterlock-rotate.service", script) == 0)
        #expect(try mounted.answer("keys/primary") == "2")
        let disable = "echo disable >'\(mounted.control("keys/1/state"))'"
        #expect(try run("system.slice/letterlock-rotate.service", disable) != 0)
        #expect(try run("user.slice/user-0.slice/session-1.scope", disable) == 0)
        #expect(try mounted.answer("keys/1/state") == "disabled")
    }
}
