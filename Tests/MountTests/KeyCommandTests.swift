import Glibc
import Testing

@Suite("The commands about one version of the key", .enabled(if: !Mounted.isPlain))
struct KeyCommandTests {
    let mounted: Mounted

    /// Versions 1 and 2, a file each.
    init() throws {
        mounted = try Mounted()
        try put("old", mounted("old"))
        try mounted.command("1", "keys/rotate")
        try put("new", mounted("new"))
    }

    private func key(_ words: String) throws -> Outcome {
        var words = words.split(separator: " ").map(String.init)
        words.insert(mounted.path, at: 1)
        return try mounted.workspace.run([try Workspace.program(), "key"] + words)
    }

    @Test func aRehearsalTellsWhatThePerformanceDoes() throws {
        try mounted.command("1", "keys/deletion_allowed")
        for (words, now, next) in [
            ("disable 1", "enabled", "disabled"), ("enable 1", "disabled", "enabled"),
            ("promote 1", "enabled", "primary"), ("promote 2", "enabled", "primary"),
            ("destroy 1 --days 7 --force", "enabled", "pending-destruction"),
            ("cancel-destroy 1", "pending-destruction", "disabled"),
        ] {
            let number = words.split(separator: " ")[1]
            let told = try key(words + " --dry-run --json")
            let foretold = "{\"version\":\(number),\"state\":\"\(now)\",\"next\":\"\(next)\",\"files\":1}\n"
            #expect(told.text == foretold, "\(words): \(told.text)\(told.complaint)")
            let inWords = try key(words + " --dry-run").text
            #expect(inWords.hasPrefix("KEK version \(number) is \(now) and has 1 files: it would be "), "\(inWords)")
            #expect(try mounted.answer("keys/\(number)/state") == now, "\(words)")
            let done = try key(words + " --json")
            let head = "{\"version\":\(number),\"state\":\"\(next)\",\"files\":1,\"destroy_at\":"
            #expect(done.status == 0 && done.text.hasPrefix(head), "\(words): \(done.text)\(done.complaint)")
            #expect(done.text.hasSuffix(next == "pending-destruction" ? "Z\"}\n" : "null}\n"), "\(done.text)")
            #expect(try mounted.answer("keys/\(number)/state") == next, "\(words)")
        }
    }

    /// Commands in every state: what is refused in rehearsal is refused in performance, in the same words.
    @Test func aRehearsalIsRefusedAsThePerformanceIs() throws {
        try mounted.command("1", "keys/rotate")
        for (setting, state) in [
            ([], "enabled"), ([("3", "keys/min_encryption_version")], "decrypt-only"),
            ([("disable", "keys/1/state")], "disabled"), ([("compromise lost", "keys/1/state")], "compromised"),
            ([("1", "keys/deletion_allowed"), ("7 force", "keys/1/destroy")], "pending-destruction"),
        ] as [([(String, String)], String)] {
            for (order, file) in setting { try mounted.command(order, file) }
            #expect(try mounted.answer("keys/1/state") == state)
            var refused = 0
            for words in [
                "disable 1", "enable 1", "promote 1", "destroy 1", "destroy 1 --days 31", "cancel-destroy 1",
                "disable 9", "promote 9", "disable 3", "destroy 3 --force", "cancel-destroy 3",
            ] {
                let told = try key(words + " --dry-run")
                guard told.status != 0 else { continue }
                refused += 1
                let done = try key(words)
                #expect(done.status == told.status && done.complaint == told.complaint, "\(state), \(words)")
                #expect(try mounted.answer("keys/1/state") == state, "\(words)")
            }
            #expect(refused >= 8, "\(state)")
        }
    }

    @Test func aRehearsalOfARevocationNamesPathsOrRefuses() throws {
        let workspace = mounted.workspace
        let told = try workspace.letterlock("revoke", mounted.path, "1", "--reason", "lost", "--dry-run", "--json")
        let expected = "{\"job\":\"revoke\",\"version\":1,\"files\":1,\"paths\":[\"/old\"]}\n"
        #expect(told.text == expected, "\(told.text)\(told.complaint)")
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("7 force", "keys/1/destroy")
        for flag in [["--dry-run"], []] {
            let words = ["revoke", mounted.path, "1", "--reason", "lost"] + flag
            let refused = try workspace.run([try Workspace.program()] + words)
            #expect(
                refused.status == 1 && refused.complaint.contains("not allowed in its state"), "\(refused.complaint)")
        }
        let stale = try workspace.letterlock("rotate", mounted.path, "--if-latest", "1", "--dry-run")
        #expect(stale.status == 1 && stale.complaint.contains("another by now"))
        #expect(try mounted.answer("keys/rotate") == "2")
    }

    @Test func aRehearsalOfReencryptionCountsWhatIsBelow() throws {
        try check(mkdir(mounted("web"), 0o755))
        try check(mkdir(mounted("web/inner"), 0o755))
        for name in ["web/a", "web/inner/b"] { try put(name, mounted(name)) }
        for (path, count) in [("/web", 2), ("/web/inner/b", 1), ("web/inner", 1)] {
            let told = try mounted.workspace.letterlock("reencrypt", mounted.path, path, "--dry-run", "--json")
            #expect(told.text == "{\"job\":\"reencrypt\",\"files\":\(count)}\n", "\(path): \(told.text)")
        }
        #expect(try mounted.workspace.letterlock("reencrypt", mounted.path, "/none", "--dry-run").status == 1)
        #expect(try mounted.answer("reencrypt").contains("\"state\":\"idle\""))
    }
}
