import Glibc
import Testing

@Suite("What opens a keyring", .enabled(if: !Mounted.isPlain))
struct KeySourceTests {
    let work: Workspace

    init() throws { work = try Workspace() }

    private func run(_ words: [String], input: String? = nil, environment: [String: String] = [:]) throws
        -> Outcome
    {
        try work.run([try Workspace.program()] + words, environment: environment, input: input)
    }

    /// Makes, mounts and unmounts a keyring with the same options.
    private func expectOpens(
        _ make: [String], _ open: [String], environment: [String: String] = [:],
        at place: SourceLocation = #_sourceLocation
    ) throws {
        let made = try run(["init", work.store] + make, environment: environment)
        #expect(made.status == 0, "\(made.complaint)", sourceLocation: place)
        let mounted = try run(["mount", work.store, work("mnt")] + open, environment: environment)
        #expect(mounted.status == 0, "\(mounted.complaint)", sourceLocation: place)
        try put("x", work("mnt/f"))
        #expect(try run(["umount", work("mnt")]).status == 0, sourceLocation: place)
        let verified = try run(["verify", work.store] + open, environment: environment)
        #expect(verified.status == 0, "\(verified.complaint)", sourceLocation: place)
    }

    @Test(arguments: [
        "nonsense", "vault:https://h/k", "awskms:a b", "credential:../x", "age:x", "age:age1x", "pkcs11:x", "tpm2:x=1",
    ])
    func whatNamesNoKeyServiceIsAMatterOfUsage(spec: String) throws {
        let refused = try run(["init", work.store, "--key-service", spec])
        #expect(refused.status == 2 && refused.complaint.contains(" no"), "\(refused.complaint)")
        #expect(!exists(work.store))
    }

    @Test func aPassphraseComesFromAFile() throws {
        try put("correct horse battery\n", work("right"), mode: 0o600)
        try put("correct horse battery", work("no-newline"), mode: 0o600)
        try put("incorrect\n", work("wrong"), mode: 0o600)
        try expectOpens(["--passphrase-file", work("right")], ["--passphrase-file", work("no-newline")])
        for words in [["mount", work.store, work("mnt")], ["verify", work.store]] {
            let refused = try run(words + ["--passphrase-file", work("wrong")])
            #expect(refused.status == 3, "\(refused.complaint)")
            #expect(refused.complaint.hasPrefix("letterlock: "))
            #expect(!refused.complaint.contains("incorrect\n"))
        }
        #expect(
            try run(["mount", work.store, work("mnt"), "-o", "passphrase-file=" + work("right")]).status == 0)
        #expect(try run(["umount", work("mnt")]).status == 0)
        #expect(try run(["mount", work.store, work("mnt"), "--passphrase-file", work("absent")]).status == 4)
    }

    @Test func aPassphraseComesFromADescriptor() throws {
        func words(_ command: [String]) throws -> Outcome {
            let secret = try Child.pipe(holding: Array("through a pipe\n".utf8))
            defer { close(secret) }
            return try work.run(
                [try Workspace.program()] + command + ["--passphrase-fd", "7"], descriptors: [7: secret])
        }
        #expect(try words(["init", work.store]).status == 0)
        #expect(try words(["mount", work.store, work("mnt")]).status == 0)
        #expect(try run(["umount", work("mnt")]).status == 0)
        #expect(try words(["verify", work.store]).status == 0)
        let standard = try run(["verify", work.store, "--passphrase-fd", "0"], input: "through a pipe\n")
        #expect(standard.status == 0, "\(standard.complaint)")
    }

    @Test func aPassphraseIsAskedForOnTheTerminalWithoutEcho() throws {
        let script = """
            import os, pty, sys
            def talk(argv, answers):
                child, terminal = pty.fork()
                if child == 0:
                    os.execv(argv[0], argv)
                said = b''
                while True:
                    try:
                        chunk = os.read(terminal, 1000)
                    except OSError:
                        break
                    if not chunk:
                        break
                    said += chunk
                    if answers and said.rstrip().endswith(b':'):
                        os.write(terminal, answers.pop(0))
                        said += b'<answered>'
                assert b'open sesame' not in said, said
                assert said.count(b'<answered>') >= 1, said
                return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            program, store, mountpoint = sys.argv[1:]
            right = b'open sesame\\n'
            print(talk([program, 'init', store], [right, right]),
                  talk([program, 'mount', store, mountpoint], [right]))
            """
        let said = try work.run(["python3", "-c", script, try Workspace.program(), work.store, work("mnt")])
        #expect(said.line == "0 0", "\(said.complaint)")
        #expect(try run(["umount", work("mnt")]).status == 0)
        // Nobody to ask: no hanging, an error.
        let silent = try work.run([
            "setsid", "--wait", try Workspace.program(), "mount", work.store, work("mnt"),
        ])
        #expect(silent.status == 4 || silent.status == 2 || silent.status == 1, "\(silent.complaint)")
    }

    @Test func aKeyFileIs32BytesOrALineOfBase64() throws {
        try expectOpens(["--key-service", work.keyService], ["--key-service", work.keyService])
        let line = try work.shell("base64 -w0 '\(work("key"))'").text
        for (name, text) in [("base64", line + "\n"), ("bare", line)] {
            try put(text, work(name), mode: 0o600)
            let opened = try run(["verify", work.store, "--key-service", "keyfile:" + work(name)])
            #expect(opened.status == 0, "\(name): \(opened.complaint)")
        }
        for (name, bytes) in [
            ("short", pattern(31)), ("long", pattern(33)), ("empty", []), ("text", Array("hello\n".utf8)),
        ] {
            try put(bytes, work(name), mode: 0o600)
            let refused = try run(["verify", work.store, "--key-service", "keyfile:" + work(name)])
            #expect([1, 4].contains(refused.status), "\(name): \(refused.status) \(refused.complaint)")
            #expect(refused.complaint.contains(work(name)))
        }
    }

    @Test func aKeyFileThatOthersCanReadIsRefused() throws {
        #expect(try run(["init", work.store, "--key-service", work.keyService]).status == 0)
        for mode: mode_t in [0o640, 0o604, 0o644] {
            try check(chmod(work("key"), mode))
            let refused = try run(["mount", work.store, work("mnt"), "--key-service", work.keyService])
            #expect(refused.status == 4 || refused.status == 1, "\(refused.status) \(refused.complaint)")
            #expect(refused.complaint.contains(work("key")), "\(refused.complaint)")
        }
        try check(chmod(work("key"), 0o400))
        #expect(try run(["verify", work.store, "--key-service", work.keyService]).status == 0)
    }

    @Test func aMissingKeyFileIsExitCode4AndAWrongOne3() throws {
        #expect(try run(["init", work.store, "--key-service", work.keyService]).status == 0)
        let missing = try run([
            "mount", work.store, work("mnt"), "--key-service", "keyfile:" + work("absent"),
        ])
        #expect(missing.status == 4, "\(missing.complaint)")
        #expect(missing.complaint.contains(work("absent")))
        try put(pattern(32, seed: 5), work("other"), mode: 0o600)
        let wrong = try run(["mount", work.store, work("mnt"), "--key-service", "keyfile:" + work("other")])
        #expect(wrong.status == 3, "\(wrong.complaint)")
        #expect(try names(work("mnt")) == [])
    }

    @Test func aCredentialIsFoundInItsDirectory() throws {
        try check(mkdir(work("credentials"), 0o700))
        try check(rename(work("key"), work("credentials/letterlock.trial")))
        let option = ["--key-service", "credential:letterlock.trial"]
        try expectOpens(option, option, environment: ["CREDENTIALS_DIRECTORY": work("credentials")])
        let without = try run(["mount", work.store, work("mnt")] + option)
        #expect(without.status == 4, "\(without.complaint)")
        let absent = try run(
            ["mount", work.store, work("mnt"), "--key-service", "credential:other"],
            environment: ["CREDENTIALS_DIRECTORY": work("credentials")])
        #expect(absent.status == 4, "\(absent.complaint)")
    }

    @Test func nothingOfAPassphraseIsLeftInTheServersArguments() throws {
        try put("visible to nobody\n", work("passphrase"), mode: 0o600)
        #expect(try run(["init", work.store, "--passphrase-file", work("passphrase")]).status == 0)
        #expect(
            try run(["mount", work.store, work("mnt"), "--passphrase-file", work("passphrase")]).status == 0)
        let json = try text(work("mnt/.letterlock/status"))
        let pid = try work.done(
            ["python3", "-c", "import json,sys; print(json.load(sys.stdin)['server']['pid'])"], input: json
        ).line
        for file in ["cmdline", "environ"] {
            let seen = (try? text("/proc/\(pid)/\(file)")) ?? ""
            #expect(!seen.contains("visible to nobody"))
        }
        // No core dump, no tracing: /proc/PID belongs to root and is not to be attached to.
        let limits = try text("/proc/\(pid)/limits").split(separator: "\n").first {
            $0.hasPrefix("Max core file size")
        }
        #expect(limits?.split(separator: " ").dropFirst(4).first == "0", "\(limits ?? "")")
        #expect(try run(["umount", work("mnt")]).status == 0)
    }
}
