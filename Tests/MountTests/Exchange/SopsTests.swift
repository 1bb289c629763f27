import Glibc
import Testing

/// Files that the program sops writes, and files that it reads.
@Suite("sops files", .enabled(if: !Mounted.isPlain), .enabled(if: Sops.isTested, "\(Sops.installing)"))
struct SopsTests {
    let mounted: Mounted
    let sops: Sops
    var work: Workspace { mounted.workspace }

    init() throws {
        mounted = try Mounted()
        sops = try Sops(mounted.workspace)
    }

    private func run(_ words: String..., environment: [String: String] = [:]) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: environment)
    }

    private func imports(_ name: String, into place: String = "", _ more: String...) throws -> Outcome {
        try work.run(
            [try Workspace.program(), "import", work(name), mounted(place), "--identity", work("identity")] + more)
    }

    private func expect(
        _ values: [String: String], below place: String = "", at source: SourceLocation = #_sourceLocation
    )
        throws
    {
        for (name, value) in values {
            #expect(try text(mounted(place + name)) == value, "\(name)", sourceLocation: source)
            #expect(try attributes(mounted(place + name)).permissions == 0o600, "\(name)", sourceLocation: source)
        }
    }

    private static let yaml = """
        # what it is about
        a: "hello"
        num: 8080
        neg: -1.5
        flag: true
        off: "false"
        nothing: null
        empty: ""
        when: 2020-01-01
        plain_unencrypted: here
        port_unencrypted: 80
        yes_unencrypted: true
        deep:
          # inner
          two words: "é\\n  "
          multi: |
            line 1
            line 2
        """

    @Test func yamlThatSopsHasSealed() throws {
        try sops.seal(Self.yaml + "\n---\nsecond: document\n", as: "a.yaml")
        let taken = try imports("a.yaml")
        #expect(taken.status == 0 && taken.text.hasPrefix("13 secrets"), "\(taken.complaint)")
        #expect(taken.complaint.contains("'nothing' is null"), "\(taken.complaint)")
        try expect([
            "a": "hello", "num": "8080", "neg": "-1.5", "flag": "true", "off": "false", "empty": "",
            "when": "2020-01-01T00:00:00Z", "plain_unencrypted": "here", "port_unencrypted": "80",
            "yes_unencrypted": "true", "deep/two words": "é\n  ", "deep/multi": "line 1\nline 2\n",
            "second": "document",
        ])
    }

    @Test func jsonAndDotenvThatSopsHasSealed() throws {
        try sops.seal(#"{"a":{"b":"c","n":1.25,"t":true,"none":null},"e":"","u":"\u00e9\ud83d\ude00"}"#, as: "a.json")
        let taken = try imports("a.json")
        #expect(taken.status == 0, "\(taken.complaint)")
        try expect(["a/b": "c", "a/n": "1.25", "a/t": "true", "e": "", "u": "é😀"])
        try sops.seal("A=x\nB=two\\nlines\n# comment\nC=\"quoted\"\nE=\n", as: "b.env")
        try check(mkdir(mounted("env"), 0o700))
        let second = try imports("b.env", into: "env")
        #expect(second.status == 0, "\(second.complaint)")
        try expect(["A": "x", "B": "two\nlines", "C": "\"quoted\"", "E": ""], below: "env/")
    }

    @Test func aFileOfAnyBytesThatSopsHasSealed() throws {
        try put(pattern(70_000), work("plain"))
        let sealed = try sops.done("--encrypt", "--age", sops.recipient, "--input-type", "binary", work("plain"))
        try put(sealed.bytes, work("tls.p12.sops"))
        #expect(try imports("tls.p12.sops").status == 0)
        #expect(try contents(mounted("tls.p12")) == pattern(70_000))
    }

    @Test func identitiesAreWhereSopsHasThem() throws {
        try sops.seal("a: x\n", as: "a.yaml")
        let none = try run("import", work("a.yaml"), mounted.path)
        #expect(none.status == 2 && none.complaint.contains("--identity"), "\(none.complaint)")
        try work.done(["age-keygen", "-o", work("other")])
        let other = try run("import", work("a.yaml"), mounted.path, "--identity", work("other"))
        #expect(other.status == 3, "\(other.complaint)")
        let dry = ["import", work("a.yaml"), mounted.path, "--dry-run"]
        #expect(
            try work.run(
                [try Workspace.program()] + dry + ["--identity", work("other"), "--identity", work("identity")]
            ).status == 0)
        let named = try work.run([try Workspace.program()] + dry, environment: ["SOPS_AGE_KEY_FILE": work("identity")])
        #expect(named.status == 0, "\(named.complaint)")
        try work.shell("mkdir -p home/.config/sops/age; cp identity home/.config/sops/age/keys.txt")
        #expect(try work.run([try Workspace.program()] + dry).status == 0)
        // One of several recipients is enough; standard input has to be said to be what it is.
        let recipient = try work.done(["age-keygen", "-y", work("other")]).line
        let both = try work.done(
            [try #require(Sops.program), "--encrypt", "--age", "\(recipient),\(sops.recipient)", work("plain-a.yaml")])
        let input = ["import", "-", mounted.path, "--format", "sops", "--identity", work("other")]
        #expect(try work.run([try Workspace.program()] + input, input: both.text).status == 0)
        try expect(["a": "x"])
    }

    /// What nobody but who has the data key could have written is all that is taken.
    @Test func whatWasChangedIsNotTaken() throws {
        try sops.seal("a: first\nb: second\nc_unencrypted: clear\nd_unencrypted: other\n", as: "a.yaml")
        let sealed = try text(work("a.yaml"))
        let lines = sealed.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        func line(_ start: String) throws -> Int { try #require(lines.firstIndex { $0.hasPrefix(start) }) }
        let a = try line("a: ")
        let b = try line("b: ")
        let c = try line("c_")
        let mac = try line("    mac:")
        func changed(_ edit: (inout [String]) -> Void) -> String {
            var copy = lines
            edit(&copy)
            return copy.joined(separator: "\n")
        }
        let key = try line("            -----BEGIN")
        let texts: [(String, String, Int32)] = [
            ("moved", changed { ($0[a], $0[b]) = ("a: " + $0[b].dropFirst(3), "b: " + $0[a].dropFirst(3)) }, 5),
            ("another clear value", changed { $0[c] = "c_unencrypted: cleaR" }, 5),
            ("a clear value more", changed { $0.insert("e: new", at: a) }, 5),
            ("a clear value in place of a sealed one", changed { $0[a] = "a: mine" }, 5),
            ("one value less", changed { $0.remove(at: a) }, 5),
            ("renamed", changed { $0[a] = "z" + $0[a].dropFirst() }, 5),
            ("no MAC", changed { $0.remove(at: mac) }, 1),
            ("an empty MAC", changed { $0[mac] = "    mac: \"\"" }, 1),
            ("the MAC of a value", changed { $0[mac] = "    mac: " + $0[a].dropFirst(3) }, 5),
            ("a MAC in clear", changed { $0[mac] = "    mac: " + String(repeating: "A", count: 128) }, 5),
            ("another time", sealed.replacing("lastmodified: \"2", with: "lastmodified: \"3"), 5),
            ("another coverage", changed { $0.insert("    mac_only_encrypted: true", at: mac) }, 1),
            ("in parts", changed { $0.insert("    shamir_threshold: 2", at: mac) }, 1),
            ("key groups", changed { $0.insert("    key_groups: [{}]", at: mac) }, 1),
            ("a key cut off", changed { $0.remove(at: key + 1) }, 5),
            ("no recipient", sealed.replacing("    age:", with: "    pgp:"), 1),
            ("another cipher", sealed.replacing("AES256_GCM", with: "AES256_XXX"), 5),
            ("another type", sealed.replacing("type:str", with: "type:comment"), 5),
            ("a list", sealed.replacing("a: ENC", with: "a: [ENC").replacing("\nb:", with: "]\nb:"), 1),
        ]
        for (what, text, status) in texts {
            #expect(text != sealed, "\(what)")
            try put(text, work("changed.yaml"))
            let refused = try imports("changed.yaml", into: "", "--format", "sops")
            #expect(refused.status == status, "\(what): \(refused.status) \(refused.complaint)")
        }
        for place in stride(from: 3, to: lines[a].utf8.count, by: 17) {
            try put(
                changed {
                    var bytes = Array($0[a].utf8)
                    bytes[place] = bytes[place] == 0x41 ? 0x42 : 0x41
                    $0[a] = String(decoding: bytes, as: UTF8.self)
                }, work("changed.yaml"))
            #expect(try imports("changed.yaml", into: "", "--format", "sops").status != 0, "byte \(place)")
        }
        #expect(try names(mounted.path) == [])
    }

    @Test func aMACOfSealedValuesAloneCoversNoOthers() throws {
        try sops.seal("a: first\n", as: "a.yaml", "--mac-only-encrypted")
        #expect(try imports("a.yaml").status == 0)
        try expect(["a": "first"])
        try sops.seal("a: first\nb_unencrypted: x\n", as: "b.yaml", "--mac-only-encrypted")
        let refused = try imports("b.yaml", into: "", "--replace")
        #expect(refused.status == 1 && refused.complaint.contains("mac_only_encrypted"), "\(refused.complaint)")
    }

    @Test func manifestsThatSopsHasSealed() throws {
        let manifest = """
            apiVersion: v1
            kind: Secret
            metadata:
              name: web
            data:
              binary: AAH/
            stringData:
              password: s3cret
            """
        try sops.seal(manifest, as: "secret.yaml", "--encrypted-regex", "^(data|stringData)$")
        let taken = try imports("secret.yaml")
        #expect(taken.status == 0, "\(taken.complaint)")
        #expect(try contents(mounted("web/binary")) == [0, 1, 255] && text(mounted("web/password")) == "s3cret")
    }

    // MARK: Writing

    @Test(arguments: ["yaml", "json"]) func sopsOpensWhatIsExported(suffix: String) throws {
        try check(mkdir(mounted("deep"), 0o700))
        try check(mkdir(mounted("deep/er"), 0o700))
        let values = [
            "a": "plain", "empty": "", "lines": "one\ntwo\n", "q\"uo\\te\t": "\u{1}é😀\r", "deep/x": " y ",
            "deep/er/z": "true",
            "zz": "8080",
        ]
        for (name, value) in values { try put(value, mounted(name)) }
        let file = work("out." + suffix)
        let given = try run("export", mounted.path, file, "--format", "sops", "--recipient", sops.recipient)
        #expect(given.status == 0 && given.text.contains("7 secrets are sealed"), "\(given.complaint)")
        #expect(try attributes(file).permissions == 0o600)
        for value in ["plain", "8080"] { #expect(try !text(file).contains(value)) }
        try sops.done("--decrypt", "--output-type", "json", "--output", work("opened.json"), file)
        let script = """
            import json
            found = json.load(open('\(work("opened.json"))'))
            assert found == json.load(open('\(work("wanted.json"))')), found
            """
        let wanted =
            #"{"a":"plain","empty":"","lines":"one\ntwo\n","q\"uo\\te\t":"\u0001\u00e9\ud83d\ude00\r","deep":{"x":" y ","er":{"z":"true"}},"zz":"8080"}"#
        try put(wanted, work("wanted.json"))
        try work.done(["python3", "-c", script])
        // And back.
        try check(mkdir(mounted("again"), 0o700))
        #expect(try imports("out." + suffix, into: "again").status == 0)
        try expect(values, below: "again/")
    }

    @Test func sopsOpensADotenvFileThatIsExported() throws {
        for (name, value) in ["A": "plain", "B": "two\nlines", "E": ""] { try put(value, mounted(name)) }
        let given = try run("export", mounted.path, work("out.env"), "--format", "sops", "--recipient", sops.recipient)
        #expect(given.status == 0, "\(given.complaint)")
        #expect(String(decoding: try sops.opened("out.env"), as: UTF8.self) == "A=plain\nB=two\\nlines\nE=\n")
    }

    @Test func sopsOpensOneSecretOfAnyBytes() throws {
        try put(pattern(70_000), mounted("tls.p12"))
        try work.done(["age-keygen", "-o", work("other")])
        let other = try work.done(["age-keygen", "-y", work("other")]).line
        let given = try run(
            "export", mounted("tls.p12"), work("tls.p12.sops"), "--format", "sops", "--recipient", other, "--recipient",
            sops.recipient)
        #expect(given.status == 0, "\(given.complaint)")
        let opened = try sops.done(
            "--decrypt", "--input-type", "binary", "--output-type", "binary", work("tls.p12.sops"))
        #expect(opened.bytes == pattern(70_000))
    }

    @Test func whatASopsFileCannotHoldIsNotExported() throws {
        func refused(_ status: Int32, _ words: String, target: String = "out.yaml", _ more: [String]) throws {
            let outcome = try work.run([try Workspace.program(), "export", mounted.path, work(target)] + more)
            #expect(outcome.status == status && outcome.complaint.contains(words), "\(outcome.complaint)")
            #expect(!exists(work(target)))
        }
        let sealed = ["--format", "sops", "--recipient", sops.recipient]
        try put([0xFF], mounted("binary"))
        try refused(1, "binary is not UTF-8", sealed)
        try check(unlink(mounted("binary")))
        for name in ["x_unencrypted", "sops"] {
            try put("x", mounted(name))
            try refused(1, name, sealed)
            try check(unlink(mounted(name)))
        }
        try refused(1, "no regular file", target: "out.bin", sealed)
        try refused(2, "for whom", ["--format", "sops"])
        try refused(2, "is no recipient", ["--format", "sops", "--recipient", "age1x"])
        try refused(2, "--recipient", ["--format", "json", "--in-clear", "--recipient", sops.recipient])
    }
}
