import Glibc
import Testing

/// Manifests of Kubernetes, and what PyYAML makes of them.
@Suite("Kubernetes manifests", .enabled(if: !Mounted.isPlain))
struct KubernetesTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func run(_ words: String..., input: String? = nil) throws -> Outcome {
        try work.run([try Workspace.program()] + words, input: input)
    }

    private func imports(_ text: String, into place: String = "") throws -> Outcome {
        try run("import", "-", mounted(place), "--format", "kubernetes", input: text)
    }

    private static let head = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: web\n"

    @Test func secretsAreDirectoriesAndKeysAreFiles() throws {
        let text = """
            # what came before
            ---
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: plain}
            data: {a: b}
            ---
            apiVersion: v1
            kind: Secret
            metadata:
              name: web
              namespace: shop
              labels: {app: "x", numbers: [1, 2]}
            type: kubernetes.io/tls
            data:
              tls.key: AAH/
              both: b2xk
              long: |
                bG9uZyBsb25nIGxv
                bmc=
              empty: ""
            stringData:
              both: new
              password: pa:ss#word
              port: "8080"
              text: |
                line 1

                  line 3
            ...
            ---
            kind: List
            apiVersion: v1
            items:
            - kind: Secret
              apiVersion: v1
              metadata: {name: other}
              data: {k: Zm9v}
            - {"kind": "SecretList", "items": [{"metadata": {"name": "third"}, "stringData": {"k": "\\ud83d\\ude00"}}]}
            """
        let taken = try imports(text)
        #expect(taken.status == 0 && taken.text.hasPrefix("9 secrets"), "\(taken.complaint)")
        #expect(taken.complaint.contains("line 3: a ConfigMap is no Secret"), "\(taken.complaint)")
        #expect(try contents(mounted("shop/web/tls.key")) == [0, 1, 255])
        for (name, value) in [
            ("shop/web/both", "new"), ("shop/web/long", "long long long"), ("shop/web/empty", ""),
            ("shop/web/password", "pa:ss#word"), ("shop/web/port", "8080"),
            ("shop/web/text", "line 1\n\n  line 3\n"), ("other/k", "foo"), ("third/k", "😀"),
        ] {
            #expect(try words(of: name) == value, "\(name)")
            #expect(try attributes(mounted(name)).permissions == 0o600)
        }
    }

    private func words(of name: String) throws -> String { try MountTests.text(mounted(name)) }

    /// Each is the body of `stringData`, of texts alone.
    private static let bodies = [
        #" {"a": "x", "b": "\u00e9\U0001f600\n\t\/\\\"", c: d e, 'f''g': 'h''i'}"#,
        "\n  a: 'single ''quoted'''\n  b: \"double \\\"quoted\\\" \\x41\\u0042\\U00000043\\e\\_\\N\\L\\P\\0\\a\\v\"",
        "\n  a: \"folded\n    text  \n\n\n    over\\\n    lines \\n \"\n  b: 'it ''is\n\n    too'\n  c: plain text\n   that goes\n\n   on  # comment",
        "\n  a: |\n    clip\n\n\n  b: |-\n    strip\n\n  c: |+\n    keep\n\n\n  d: |2\n      two more\n    end\n  e: |\n\n    first is empty\n",
        "\n  a: |\n    # no comment\n     indented\n    \ttab\n\n  # a comment\n  b: last",
        "\n    deep: value\n    with space: 'x' # comment\n    \"quoted key\": z\n    url: http://host:80/path?a=b#c\n    dash: -x\n    colon: a:b",
        "\n  a: \"\"\n  b: ''\n  c: |\n  d: |-\n",
        "\r\n  a: windows\r\n  b: |\r\n    line\r\n    other\r\n  c: \"fold\r\n    ed\"\r\n",
        "\n  a: -x\n  b: ?x\n  c: 1.2.3\n  d: v1\n  e: 12ab\n  f: truest\n  g: a  b\n  h: \"a  b  \"\n  i: ~x",
        "\n  \"~\": tilde\n  '1': one\n  .hidden: x\n  é: ü\n",
        " # comment\n\n  # another\n  a: x\n\n\n  b: z",
    ]

    @Test func textsAreWhatOtherReadersMakeOfThem() throws {
        for body in Self.bodies {
            try work.shell("rm -rf \(mounted("web"))")
            try reads(body)
        }
    }

    private func reads(_ body: String) throws {
        try put(Self.head + "stringData:" + body, work("secret.yaml"))
        let script = """
            import json, yaml
            values = yaml.safe_load(open('\(work("secret.yaml"))', newline=''))['stringData']
            assert all(type(value) is str for value in values.values()), values
            for name, value in values.items():
                print(name.encode().hex(), value.encode().hex())
            """
        let read = try work.done(["python3", "-c", script]).text
        let taken = try run("import", work("secret.yaml"), mounted.path)
        try #require(taken.status == 0, "\(taken.complaint)")
        var count = 0
        for line in read.split(separator: "\n") {
            let words = line.split(separator: " ", omittingEmptySubsequences: false).map { bytes($0) }
            #expect(try contents(mounted("web/" + String(decoding: words[0], as: UTF8.self))) == words[1], "\(line)")
            count += 1
        }
        #expect(try count > 0 && names(mounted("web")).count == count)
    }

    private func bytes(_ hexadecimal: Substring) -> [UInt8] {
        var rest = hexadecimal
        var bytes: [UInt8] = []
        while let byte = UInt8(rest.prefix(2), radix: 16) {
            bytes.append(byte)
            rest = rest.dropFirst(2)
        }
        return bytes
    }

    /// One mount for all, as for the next.
    private static let malformed = [
        "stringData: {a: 8080}", "stringData: {a: true}", "stringData: {a: Yes}", "stringData: {a: null}",
        "stringData: {a: }", "stringData: {a: 1_000}", "stringData: {a: 0x1F}", "stringData: {a: 2020-01-02}",
        "stringData: {a: -.5e3}", "stringData: {a: .inf}", "stringData: {a: 12:30}", "stringData: {a: [x]}",
        "stringData: {a: {b: x}}", "stringData: [a]", "stringData: x", "stringData: {a/b: x}", "stringData: {..: x}",
        "stringData: {a: x, a: y}", "stringData: {a: \"x}", "stringData: {a: x", "stringData:\n  a: x\n  a: y",
        "stringData:\n  a: x\n b: y", "stringData:\n  a: x\n    b: y", "stringData:\n\ta: x", "stringData:\n  a: &b x",
        "stringData:\n  a: *b", "stringData:\n  a: !!str x", "stringData:\n  a: >\n    x", "stringData:\n  <<: {a: x}",
        "stringData:\n  ? a\n  : x", "stringData:\n  a: b: c", "stringData:\n  a: - b", "stringData:\n  a: 'x' y",
        "stringData:\n  a: \"\\q\"", "stringData:\n  a: \"\\ud800\"", "stringData:\n  a: \"\\xz0\"",
        "stringData:\n  a: @x",
        "stringData:\n  a: |x\n    y", "stringData:\n  a: |\n      \n    y", "stringData: \"a\u{1}\"", "data: {a: x}",
        "data: {a: 'Zm9v='}", "data: {a: 1234}", "data: {a: Zm9}", "data:\n  a: Zm 9v", "data: x",
        "stringData: {.letterlock: x}", "stringData:\n  a: x\n---\n%YAML 1.2\n---\n{}",
    ]

    @Test func whatIsNotUnderstoodWritesNothing() throws {
        let good = "apiVersion: v1\nkind: Secret\nmetadata: {name: good}\nstringData: {first: s3cret}\n---\n"
        for text in Self.malformed {
            let refused = try imports(good + Self.head + text + "\n")
            #expect(refused.status == 1 && !refused.complaint.contains("s3cret"), "\(text): \(refused.complaint)")
            #expect(refused.complaint.contains("standard input, line ") || refused.complaint.contains("name of a file"))
        }
        #expect(try names(mounted.path) == [])
    }

    private static let foreign = [
        "a: b", "[]", "x", "kind: Secret", "kind: Secret\nmetadata: {}", "kind: Secret\nmetadata: {name: 1}",
        "kind: Secret\nmetadata: {name: ..}", "kind: Secret\napiVersion: v2\nmetadata: {name: a}",
        "kind: Secret\nmetadata: {name: a, namespace: [b]}", "kind: Secret\nmetadata: {name: a/b}", "kind: List",
        "kind: SecretList\nitems: [x]", "kind: List\nitems: [{metadata: {name: a}}]",
        "kind: Secret\nmetadata: {name: a}\nstringData: {x: y}\n---\nkind: Secret\nmetadata: {name: a}\ndata: {x: eQ==}",
        String(repeating: "[", count: 100_000), String(repeating: "- ", count: 100_000),
    ]

    @Test func whatIsNoSecretWritesNothing() throws {
        for text in Self.foreign { #expect(try imports(text).status == 1, "\(text.prefix(80))") }
        #expect(try names(mounted.path) == [])
    }

    /// Pieces of manifests put together by chance end in a refusal or in files, never in a crash.
    @Test func nonsenseIsRefused() throws {
        var state: UInt64 = 20_261_127
        func random(_ limit: Int) -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33) % limit
        }
        let pieces = [
            "a", ": ", ":", "\n", "\n  ", "\n    ", "- ", "|", "|+2\n", "'", "\"", "{", "}", "[", "]", ", ", "#", " #",
            "\\",
            "\\u", "kind: Secret\n", "metadata:\n  name: x\n", "stringData:\n", "---\n", "...\n", "\t", "\r\n", "é",
            "~", "1",
        ]
        for _ in 0..<60 {
            let text =
                (random(2) == 0 ? Self.head + "stringData:" : "")
                + (0..<(1 + random(24))).map { _ in pieces[random(pieces.count)] }.joined()
            let outcome = try run("import", "-", mounted.path, "--format", "kubernetes", "--dry-run", input: text)
            #expect(outcome.status == 0 || outcome.status == 1, "\(text.debugDescription): \(outcome.complaint)")
        }
    }

    @Test(arguments: ["yaml", "json"]) func whatIsExportedIsAManifest(suffix: String) throws {
        try work.shell("mkdir -p \(mounted("shop/web")) \(mounted("db"))")
        let values: [(String, [UInt8])] = [
            ("shop/web/tls.key", pattern(5000)), ("shop/web/empty", []), ("db/pass_word", Array("é\n".utf8)),
        ]
        for (name, value) in values { try put(value, mounted(name)) }
        let file = work("all." + suffix)
        #expect(try run("export", mounted.path, file).status == 2 && !exists(file))
        let given = try run("export", mounted.path, file, "--format", "kubernetes", "--in-clear")
        #expect(given.status == 0, "\(given.complaint)")
        #expect(try attributes(file).permissions == 0o600)
        let script = """
            import base64, hashlib, yaml
            found = list(yaml.safe_load_all(open('\(file)')))
            found = found[0]['items'] if found[0]['kind'] == 'List' else found
            for o in found:
                assert o['kind'] == 'Secret' and o['apiVersion'] == 'v1' and o['type'] == 'Opaque', o
                print(o['metadata'].get('namespace'), o['metadata']['name'], sorted(o['data']))
            data = {o['metadata']['name']: o['data'] for o in found}
            assert base64.b64decode(data['web']['tls.key']) == open('\(mounted("shop/web/tls.key"))', 'rb').read()
            """
        let read = try work.done(["python3", "-c", script]).text
        #expect(read == "None db ['pass_word']\nshop web ['empty', 'tls.key']\n")
        try check(mkdir(mounted("again"), 0o700))
        #expect(try run("import", file, mounted("again"), "--format", "kubernetes").status == 0)
        for (name, value) in values { #expect(try contents(mounted("again/" + name)) == value, "\(name)") }
        // Of a directory of files alone, one of its name.
        let one = try run("export", mounted("db"), "-", "--format", "kubernetes", "--in-clear")
        #expect(one.status == 0 && one.text.contains("name: \"db\"") && one.text.contains("w6kK"), "\(one.complaint)")
    }

    @Test func whatNoSecretCanBeCalledIsNotExported() throws {
        for name in ["Capital/key", "a.b/web/key", "a/b/c/key", "web/a b", "-web/key", "a_b/key"] {
            try work.shell("rm -rf \(mounted.path)/*; mkdir -p \"$(dirname '\(mounted(name))')\"")
            try put("s3cret", mounted(name))
            let refused = try run("export", mounted.path, work("out.yaml"), "--in-clear")
            #expect(refused.status == 1 && !exists(work("out.yaml")), "\(name): \(refused.complaint)")
        }
    }
}
