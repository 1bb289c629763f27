import Glibc
import Testing

/// Stores of the program pass, with a key that gpg has made for one test.
@Suite("pass stores", .enabled(if: !Mounted.isPlain))
final class PassTests {
    let mounted: Mounted
    private let fingerprint: String
    var work: Workspace { mounted.workspace }

    private var environment: [String: String] {
        [
            "GNUPGHOME": work("gpg"), "PASSWORD_STORE_DIR": work("passwords"),
            "PASSWORD_STORE_GPG_OPTS": "--trust-model always",
        ]
    }

    init() throws {
        mounted = try Mounted()
        let work = mounted.workspace
        try check(mkdir(work("gpg"), 0o700))
        let gpg = ["gpg", "--homedir", work("gpg"), "--batch", "--quiet"]
        try work.done(gpg + ["--passphrase", "", "--quick-generate-key", "somebody", "future-default"])
        let listed = try work.done(gpg + ["--with-colons", "--list-keys"]).text
        let line = try #require(listed.split(separator: "\n").first { $0.hasPrefix("fpr:") })
        fingerprint = String(line.filter { $0.isHexDigit && $0.isASCII }.suffix(40))
    }

    /// gpg leaves an agent behind.
    deinit { _ = try? work.run(["gpgconf", "--homedir", work("gpg"), "--kill", "all"]) }

    private func run(_ words: String...) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: environment)
    }

    @discardableResult
    private func pass(_ words: String..., input: String? = nil) throws -> Outcome {
        try work.done(["pass"] + words, environment: environment, input: input)
    }

    @Test func aStoreGoesInByteByByte() throws {
        try pass("init", fingerprint)
        try pass("insert", "--multiline", "web/db/password", input: "s3cret\nuser: é\n")
        try pass("insert", "--multiline", "empty", input: "")
        try put(pattern(200_000), work("binary"))
        try work.done(
            [
                "gpg", "--batch", "--trust-model", "always", "-r", fingerprint, "-o", work("passwords/two words.gpg"),
                "-e", work("binary"),
            ],
            environment: environment)
        try work.shell(
            "mkdir passwords/.git; echo x >passwords/.git/y.gpg; echo x >passwords/README; ln -s empty.gpg passwords/link.gpg"
        )
        let taken = try run("import", work("passwords"), mounted.path)
        #expect(taken.status == 0 && taken.text.hasPrefix("3 secrets"), "\(taken.complaint)")
        #expect(taken.complaint.contains("README") && taken.complaint.contains("link.gpg"), "\(taken.complaint)")
        #expect(try text(mounted("web/db/password")) == "s3cret\nuser: é\n" && text(mounted("empty")) == "")
        #expect(try contents(mounted("two words")) == pattern(200_000))
        #expect(try attributes(mounted("two words")).permissions == 0o600)
        #expect(try names(mounted.path) == ["empty", "two words", "web"])
    }

    @Test func whatGPGDoesNotOpenWritesNothing() throws {
        try pass("init", fingerprint)
        try pass("insert", "--multiline", "a", input: "s3cret")
        for text in ["", "no file of gpg's\n"] {
            try put(text, work("passwords/z.gpg"))
            let refused = try run("import", work("passwords"), mounted.path)
            #expect(refused.status == 1 && refused.complaint.contains("does not open"), "\(refused.complaint)")
        }
        // Flipped bits, and the secret key gone.
        var bytes = try contents(work("passwords/a.gpg"))
        bytes[bytes.count - 3] ^= 1
        try put(bytes, work("passwords/z.gpg"))
        #expect(try run("import", work("passwords"), mounted.path).status == 1)
        try check(unlink(work("passwords/z.gpg")))
        try work.done(
            ["gpg", "--batch", "--yes", "--delete-secret-keys", fingerprint], environment: environment)
        #expect(try run("import", work("passwords"), mounted.path).status == 1)
        #expect(try names(mounted.path) == [])
    }

    @Test func passShowsWhatIsExported() throws {
        try work.shell("mkdir -p \(mounted("web/deep"))")
        try put("s3cret\nline\n", mounted("web/deep/key"))
        try put("", mounted("empty"))
        try put(pattern(300_000), mounted("binary"))
        let given = try run("export", mounted.path, work("passwords"), "--format", "pass", "--recipient", fingerprint)
        #expect(given.status == 0 && given.text.contains("3 secrets are sealed"), "\(given.complaint)")
        #expect(try pass("show", "web/deep/key").text == "s3cret\nline\n")
        #expect(try pass("show", "empty").bytes == [] && pass("show", "binary").bytes == pattern(300_000))
        #expect(try attributes(work("passwords")).permissions == 0o700)
        #expect(try attributes(work("passwords/binary.gpg")).permissions == 0o600)
        // pass goes on with it.
        try pass("insert", "--multiline", "new", input: "x")
        try check(mkdir(mounted("again"), 0o700))
        #expect(try run("import", work("passwords"), mounted("again")).status == 0)
        #expect(try contents(mounted("again/binary")) == pattern(300_000) && text(mounted("again/new")) == "x")
    }

    @Test func whatCannotBeSealedIsNotExported() throws {
        try put("s3cret", mounted("a"))
        func refused(_ status: Int32, _ words: String, _ more: String...) throws {
            let outcome = try work.run(
                [try Workspace.program(), "export", mounted.path, work("out"), "--format", "pass"] + more,
                environment: environment)
            #expect(outcome.status == status && outcome.complaint.contains(words), "\(outcome.complaint)")
            #expect(!exists(work("out")))
        }
        try refused(2, "for whom")
        try refused(2, "no fingerprint", "--recipient", "somebody")
        try refused(1, "does not seal", "--recipient", String(repeating: "0", count: 40))
        try put("x", mounted(".hidden"))
        try refused(1, ".hidden", "--recipient", fingerprint)
        let program = try Workspace.program()
        let without = try work.run(
            [program, "import", work("gpg"), mounted.path, "--format", "pass"], environment: ["PATH": work("nowhere")])
        #expect(without.status == 127 && without.complaint.contains("gpg is not installed"), "\(without.complaint)")
    }
}
