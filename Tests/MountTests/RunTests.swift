import Glibc
import Testing

/// `letterlock run --env`: a program with variables from a mounted keyring.
@Suite("Programs with secrets in their environment", .enabled(if: !Mounted.isPlain))
struct RunTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func run(_ words: String..., options: [String] = [], environment: [String: String] = [:]) throws -> Outcome
    {
        try work.run(
            [try Workspace.program(), "run", "--env", mounted.path] + options + ["--"] + words, environment: environment
        )
    }

    private func shell(_ script: String, options: [String] = []) throws -> Outcome {
        try run("sh", "-c", script, options: options)
    }

    @Test func aFileIsAValueAndAPath() throws {
        try check(mkdir(mounted("web"), 0o755))
        try put("s3cret\n", mounted("db-password"))
        try put("no newline", mounted("web/api.token"))
        try put("two\nlines\n\n", mounted("lines"))
        try put("", mounted("9empty"))
        #expect(try shell("printf %s \"$DB_PASSWORD\"").text == "s3cret")
        #expect(try shell("cat \"$DB_PASSWORD_FILE\"").text == "s3cret\n")
        #expect(try shell("printf %s \"$WEB_API_TOKEN\"").text == "no newline")
        #expect(try shell("echo \"$WEB_API_TOKEN_FILE\"").line == mounted("web/api.token"))
        #expect(try shell("printf '%s.' \"$LINES\"").text == "two\nlines\n.")
        #expect(try shell("echo \"${_9EMPTY-unset}\"").text == "\n")
        // What was there is there, and a secret of the same name goes before it.
        let outcome = try run(
            "sh", "-c", "echo $OTHER $DB_PASSWORD", environment: ["OTHER": "kept", "DB_PASSWORD": "old"])
        #expect(outcome.line == "kept s3cret")
        #expect(
            try shell("echo \"${DB_PASSWORD-unset}\" \"$DB_PASSWORD_FILE\"", options: ["--files-only"]).line
                == "unset " + mounted("db-password"))
    }

    @Test func theProgramsEndIsItsEnd() throws {
        for status: Int32 in [0, 1, 3, 42, 255] { #expect(try shell("exit \(status)").status == status) }
        #expect(try shell("kill -KILL $$").status == 128 + SIGKILL)
        let unknown = try run("no-such-program-\(getpid())")
        #expect(unknown.status == 127 && unknown.complaint.hasPrefix("letterlock: cannot run"), "\(unknown.complaint)")
        try put("text", work("text"), mode: 0o644)
        #expect(try run(work("text")).status == 126)
        // Options after -- are the program's, and its words arrive as they are.
        #expect(try run("printf", "%s|", "--env", "a b", "-x", "").text == "--env|a b|-x||")
    }

    @Test func theProgramFindsItsProcessAsItWasBefore() throws {
        let script = "umask; ulimit -S -n; trap '' USR1; grep -E '^(SigIgn|SigBlk)' /proc/self/status"
        let plain = try work.run(["sh", "-c", script]).text
        #expect(try shell(script).text == plain)
    }

    @Test func noSecretIsAnArgumentOrInALine() throws {
        try put("needle-in-a-haystack", mounted("secret"))
        let outcome = try shell("tr '\\0' ' ' </proc/$$/cmdline; tr '\\0' ' ' </proc/$PPID/cmdline; echo $SECRET >&2")
        #expect(!outcome.text.contains("needle") && outcome.complaint == "needle-in-a-haystack\n")
    }

    @Test func whatIsNoVariableHasItsPathAlone() throws {
        try put([1, 0, 2], mounted("binary"))
        try put([UInt8](repeating: 65, count: 200_000), mounted("large"))
        for name in ["BINARY", "LARGE"] {
            #expect(try shell("echo ${\(name)-unset} ${\(name)_FILE:+set}").line == "unset set", "\(name)")
        }
        try check(mkdir(mounted(".hidden"), 0o755))
        try put("x", mounted(".hidden/file"))
        try put("x", mounted(".dot"))
        try work.shell(
            "mkfifo '\(mounted("pipe"))'; ln -s /etc/hostname '\(mounted("outside"))'; ln -s nowhere '\(mounted("broken"))'"
        )
        let names = try shell("env -0 | tr '\\0' '\\n' | cut -d= -f1").text.split(separator: "\n")
        for name in names { #expect(!["_HIDDEN_FILE", "_DOT", "PIPE", "OUTSIDE", "BROKEN"].contains(String(name))) }
    }

    @Test func linksInsideAreFollowed() throws {
        try check(mkdir(mounted("..2024"), 0o755))
        try put("v", mounted("..2024/token"))
        try work.shell("ln -s ..2024 '\(mounted("..data"))'; ln -s ..data/token '\(mounted("token"))'")
        #expect(try shell("echo $TOKEN $TOKEN_FILE").line == "v " + mounted("token"))
    }

    @Test func twoOfOneNameAndWhatSteersAreRefused() throws {
        try put("1", mounted("a-b"))
        try put("2", mounted("a.b"))
        let refused = try shell("echo ran")
        #expect(
            refused.status == 1 && refused.text.isEmpty && refused.complaint.contains("A_B"), "\(refused.complaint)")
        try check(unlink(mounted("a.b")))
        for name in ["path", "ld_preload", "LD-Library.Path", "bash_env"] {
            try put("x", mounted(name))
            #expect(try shell("echo ran").status == 1, "\(name)")
            try check(unlink(mounted(name)))
        }
        #expect(try shell("echo $A_B").line == "1")
    }

    @Test func whatMayNotBeReadKeepsTheProgramFromRunning() throws {
        try put("v", mounted("secret"))
        try mounted.command("1", "keys/rotate")
        try mounted.command("disable", "keys/1/state")
        let revoked = try shell("echo ran")
        #expect(revoked.status == 4 && revoked.text.isEmpty, "\(revoked.complaint)")
        try mounted.command("enable", "keys/1/state")
        #expect(try work.letterlock("lock", mounted.path).status == 0)
        #expect(try shell("echo ran").status == 4)
        #expect(try work.letterlock("unlock", mounted.path).status == 0)
        #expect(try shell("echo $SECRET").line == "v")
    }

    @Test func aPlaceThatIsNoKeyringHasNoSecrets() throws {
        try mounted.unmount()
        let refused = try shell("echo ran")
        #expect(refused.status == 1 && refused.text.isEmpty, "\(refused.complaint)")
        #expect(try work.letterlock("run", "--", "true").status == 2)
        #expect(try work.letterlock("run", "--env", mounted.path).status == 2)
    }
}
