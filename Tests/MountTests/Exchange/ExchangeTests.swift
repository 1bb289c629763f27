import Glibc
import Testing

/// `letterlock import` and `export`.
@Suite("Import and export", .enabled(if: !Mounted.isPlain))
struct ExchangeTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func run(_ words: String..., input: String? = nil) throws -> Outcome {
        try work.run([try Workspace.program()] + words, input: input)
    }

    private func imports(_ text: String, _ format: String, into place: String = "") throws -> Outcome {
        try run("import", "-", mounted(place), "--format", format, input: text)
    }

    @Test func aDotenvFilesVariablesAreFiles() throws {
        let text = """
            # a comment
            PLAIN=value
            export EXPORTED = spaced out \t
            EMPTY=
            COMMENT=bare#not # a comment
            SINGLE='as $it \\n "is"' # behind
            DOUBLE="a\\tb\\n\\"c\\" \\$d \\\\"
            LINES="one
            two"
            lower.case-1=x\r
            """
        let taken = try imports(text, "dotenv")
        #expect(taken.status == 0 && taken.text.hasPrefix("8 secrets"), "\(taken.complaint)")
        for (name, value) in [
            ("PLAIN", "value"), ("EXPORTED", "spaced out"), ("EMPTY", ""), ("COMMENT", "bare#not"),
            ("SINGLE", #"as $it \n "is""#), ("DOUBLE", "a\tb\n\"c\" $d \\"), ("LINES", "one\ntwo"),
            ("lower.case-1", "x"),
        ] {
            #expect(try MountTests.text(mounted(name)) == value, "\(name)")
            #expect(try attributes(mounted(name)).permissions == 0o600)
        }
    }

    @Test(arguments: [
        "A", "=x", "1A=x", "A='x", "A=\"x\\", "A='x' y", "A=1\nA=2", "A B=1", "..=x",
    ])
    func whatIsNoDotenvFileWritesNothing(text: String) throws {
        let refused = try imports("FIRST=s3cret\n" + text, "dotenv")
        #expect(refused.status == 1 && !refused.complaint.contains("s3cret"), "\(refused.complaint)")
        #expect(try names(mounted.path) == [])
    }

    @Test func jsonIsFilesInDirectories() throws {
        let text =
            #"{"a":"é\u00e9\ud83d\ude00\n\/","web":{"key":"k","port":8080,"tls":true,"deep":{"x":""}},"none":{}}"#
        let taken = try imports(text, "json")
        #expect(taken.status == 0, "\(taken.complaint)")
        #expect(try MountTests.text(mounted("a")) == "éé😀\n/")
        #expect(try MountTests.text(mounted("web/port")) == "8080" && MountTests.text(mounted("web/tls")) == "true")
        #expect(try MountTests.text(mounted("web/deep/x")) == "")
        #expect(try attributes(mounted("web")).permissions == 0o700)
    }

    @Test(arguments: [
        "", "[]", "\"x\"", "{", #"{"a":null}"#, #"{"a":[]}"#, #"{"a":"x"}{}"#, #"{"a":"x",}"#, #"{"a/b":"x"}"#,
        #"{"..":"x"}"#,
        #"{"":"x"}"#, #"{"a":"\ud800"}"#, #"{"a":"\x"}"#, #"{"a":"x","a":"y"}"#, #"{"a":"x","a":{"b":"y"}}"#,
        "{\"a\":\"\u{1}\"}",
        #"{".letterlock":{"lock":"1"}}"#, #"{"a":truth}"#, #"{"a":"\u00zz"}"#,
    ])
    func whatIsNoSuchJSONWritesNothing(text: String) throws {
        #expect(try imports(text, "json").status == 1)
        #expect(try names(mounted.path) == [])
        #expect(try MountTests.text(mounted.control("lock")) == "unlocked\n")
    }

    @Test func aDirectoryGoesInAndOutByteByByte() throws {
        try work.shell("mkdir -p in/web in/empty; ln -s nowhere in/link; mkfifo in/pipe")
        for (name, bytes) in [("binary", pattern(100_000)), ("web/zero", []), ("web/line", Array("x\n".utf8))] {
            try put(bytes, work("in/" + name), mode: 0o644)
        }
        let taken = try run("import", work("in"), mounted.path, "--mode", "640")
        #expect(
            taken.status == 0 && taken.complaint.contains("link") && taken.complaint.contains("pipe"),
            "\(taken.complaint)")
        #expect(
            try contents(mounted("binary")) == pattern(100_000) && attributes(mounted("binary")).permissions == 0o640)
        #expect(try names(mounted.path) == ["binary", "web"])
        let given = try run("export", mounted.path, work("out"), "--format", "directory", "--in-clear")
        #expect(given.status == 0, "\(given.complaint)")
        #expect(try contents(work("out/binary")) == pattern(100_000))
        #expect(try MountTests.text(work("out/web/line")) == "x\n" && contents(work("out/web/zero")) == [])
        #expect(try attributes(work("out")).permissions == 0o700 && attributes(work("out/binary")).permissions == 0o600)
    }

    @Test(arguments: ["json", "dotenv"])
    func whatIsExportedIsImportedAgain(format: String) throws {
        let values = [
            "A": "plain", "B": "two\nlines\n", "C": "q\"u'o$t`e\\ #", "D": "", "E": "é😀\t\r", "F": " spaces ",
        ]
        for (name, value) in values { try put(value, mounted(name)) }
        let file = work("all." + format)
        let given = try run("export", mounted.path, file, "--format", format, "--in-clear")
        #expect(given.status == 0, "\(given.complaint)")
        #expect(try attributes(file).permissions == 0o600)
        #expect(try run("export", mounted.path, file, "--format", format, "--in-clear").status == 1)
        try check(mkdir(mounted("again"), 0o700))
        #expect(try run("import", file, mounted("again"), "--format", format).status == 0)
        for (name, value) in values { #expect(try MountTests.text(mounted("again/" + name)) == value, "\(name)") }
        if format == "dotenv" {
            // A shell reads the same.
            let read = try work.shell("set -a; . \(file); printf '%s|' \"$A\" \"$C\" \"$D\" \"$F\"")
            #expect(read.text == "plain|q\"u'o$t`e\\ #|| spaces |")
        } else {
            #expect(
                try work.done(["python3", "-c", "import json; print(json.load(open('\(file)'))['C'])"]).line
                    == values["C"])
        }
    }

    @Test func nothingIsInClearUnlessItIsSaid() throws {
        try put("s3cret", mounted("a"))
        for format in ["json", "dotenv", "directory"] {
            let refused = try run("export", mounted.path, work("out"), "--format", format)
            #expect(refused.status == 2 && !exists(work("out")), "\(refused.complaint)")
        }
        #expect(try run("export", mounted.path, "-", "--format", "json", "--in-clear").text.contains("s3cret"))
        try put([1, 0, 255], mounted("binary"))
        for format in ["json", "dotenv"] {
            let refused = try run("export", mounted.path, work("out"), "--format", format, "--in-clear")
            #expect(refused.status == 1 && refused.complaint.contains("binary") && !exists(work("out")))
        }
    }

    @Test func whatIsThereStaysUnlessItIsToBeReplaced() throws {
        try put("old", mounted("B"))
        try check(mkdir(mounted("C"), 0o700))
        let refused = try imports("A=1\nB=2\n", "dotenv")
        #expect(refused.status == 1 && refused.complaint.contains("exists"), "\(refused.complaint)")
        #expect(try names(mounted.path) == ["B", "C"] && MountTests.text(mounted("B")) == "old")
        try put("A=1\nB=2\n", work("env"))
        let dry = try run("import", work("env"), mounted.path, "--replace", "--dry-run")
        #expect(dry.status == 0 && dry.text.contains("/B\n") && !exists(mounted("A")))
        #expect(try run("import", work("env"), mounted.path, "--replace").status == 0)
        #expect(try MountTests.text(mounted("A")) == "1" && MountTests.text(mounted("B")) == "2")
        #expect(try run("import", "-", mounted.path, "--format", "dotenv", "--replace", input: "C=3").status == 1)
        // Nowhere but into a keyring.
        try check(mkdir(work("plain"), 0o755))
        #expect(try run("import", work("env"), work("plain")).status == 1)
        #expect(try names(work("plain")) == [])
        #expect(try run("import", work("env"), mounted.path, "--mode", "9").status == 2)
        #expect(try run("import", "-", mounted.path).status == 2)
    }
}
