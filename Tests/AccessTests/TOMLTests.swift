import Access
import Testing

/// The reader of TOML, with what the specification has and what it refuses.
struct TOMLTests {
    @Test func `a document of rules reads with its lines`() throws {
        let table = try TOML.parse(
            """
            # who may read
            default = "deny"
            [[rule]]
            name = "web"   # a comment
            paths = [
                "/web/**",
                '/a\\b',
            ]
            count = 1_000
            [rule.inner]
            on = true
            [[rule]]
            name = "two"
            """)
        #expect(table["default"]?.text == "deny")
        guard case .array(let rules)? = table["rule"]?.kind, rules.count == 2, case .table(let first) = rules[0].kind
        else {
            Issue.record("no rules")
            return
        }
        #expect(rules[0].line == 3 && rules[1].line == 12)
        #expect(first.entries.map(\.key) == ["name", "paths", "count", "inner"])
        #expect(first.entries.map(\.line) == [4, 5, 9, 10])
        guard case .array(let paths)? = first["paths"]?.kind else { return #expect(Bool(false)) }
        #expect(paths.map(\.text) == ["/web/**", "/a\\b"])
        #expect(paths.map(\.line) == [6, 7])
    }

    @Test(
        "strings",
        arguments: [
            (#"a = "x\ty\n\"\\\u00e9\U0001F511""#, "x\ty\n\"\\é🔑"), (#"a = 'C:\x'"#, #"C:\x"#),
            ("a = \"\"\"\nx\\\n   y \"\" z\"\"\"\"", "xy \"\" z\""), ("a = '''\nx\ny'''", "x\ny"), ("a = ''", ""),
            ("\"a\" = 'b'", "b"), ("\u{FEFF}a = 'b'\r\n", "b"),
        ])
    func strings(document: String, text: String) throws {
        #expect(try TOML.parse(document)["a"]?.text == text)
    }

    @Test(
        "integers",
        arguments: [
            ("1_000", 1000), ("-17", -17), ("+5", 5), ("0xDEAD", 0xDEAD), ("0o17", 15), ("0b101", 5), ("0", 0),
            ("9223372036854775807", Int64.max), ("-9223372036854775808", Int64.min),
        ] as [(String, Int64)])
    func integers(word: String, number: Int64) throws {
        guard case .integer(let found)? = try TOML.parse("a = \(word)")["a"]?.kind else {
            Issue.record("\(word) is no integer")
            return
        }
        #expect(found == number)
    }

    @Test func `dotted keys, inline tables, and kinds that have no use here`() throws {
        let table = try TOML.parse("a.b = 1\na.c = {x = 1, y.z = 'w'}\nd = 1979-05-27T07:32:00Z\nf = 1.5e3\ng = inf")
        guard case .table(let a)? = table["a"]?.kind, case .table(let c)? = a["c"]?.kind else {
            Issue.record("no tables")
            return
        }
        #expect(a.entries.map(\.key) == ["b", "c"] && c.entries.map(\.key) == ["x", "y"])
        #expect(table["d"]?.kindName == "a date or time" && table["f"]?.kindName == "a float")
        #expect(table["g"]?.kindName == "a float")
    }

    @Test(
        "mistakes are told with their line",
        arguments: [
            ("a = 1\nb = ", 2, "a value is missing"), ("a = x", 1, "'x' is no value"),
            ("a = 1\n\na = 2", 3, "'a' is given twice"), ("[t]\n[t]", 2, "'t' is given twice"),
            ("a = \"x\n\"", 1, "does not end on its line"), ("a = [1, 2\n\nb = 3", 3, "'b'"),
            ("a = 'x' y", 1, "where the line should end"), ("= 1", 1, "where a key should be"),
            ("a = \"\\q\"", 1, "no escape"), ("a = \"\\ud800\"", 1, "no character's number"),
            ("[[r]]\nx = 1\n[r]", 3, "given twice"), ("a = {b = 1}\n[a.c]", 2, "no table"),
            ("a = 1\n[a.b]", 2, "no table"), ("a = 01", 1, "no value"), ("a = 1__0", 1, "no value"),
            ("a = 99999999999999999999", 1, "no value"), ("a = 1 # \u{1}", 1, "control character"),
            ("a = [[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]", 1, "deeply"),
            ("[a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q.r]", 1, "deeply"),
            ("a = \"\"\"\nx", 1, "does not end"), ("[a", 1, "']'"), ("[a]]", 1, "line should end"),
            ("a = [1 2]", 1, "']'"),
            ("a\r= 1", 1, "'='"), ("a.b = 1\na = 2", 2, "given twice"),
        ] as [(String, Int, String)])
    func mistakes(document: String, line: Int, what: String) {
        do {
            _ = try TOML.parse(document)
            Issue.record("taken: \(document)")
        } catch {
            #expect(error.line == line && error.what.contains(what), "\(error)")
        }
    }

    @Test func `long documents, many values and broken characters are refused`() {
        #expect(throws: TOML.Mistake.self) { try TOML.parse(String(repeating: "#", count: TOML.byteLimit + 1)) }
        #expect(throws: TOML.Mistake.self) { try TOML.parse("a = [" + String(repeating: "1,", count: 30_000) + "]") }
        let broken: [UInt8] = Array("a = 1\nb = '".utf8) + [0xFF] + Array("'\n".utf8)
        do {
            _ = try broken.withUnsafeBytes { bytes in try TOML.parse(bytes) }
            Issue.record("broken characters were taken")
        } catch {
            #expect((error as? TOML.Mistake)?.line == 2)
        }
    }

    @Test(arguments: [1, 2, 3, 4, 5] as [UInt64])
    func `what is anything at all never stops the reader`(seed: UInt64) {
        var generator = SplitMix(state: seed)
        let words = [
            "[", "]", "[[", "]]", "a", "=", "\"", "'", "\"\"\"", "'''", "\n", "\\", "{", "}", ",", ".", "#", "1", "\\u",
            " ",
        ]
        for _ in 0..<3000 {
            let document = (0..<Int.random(in: 0..<40, using: &generator)).map { _ in
                words.randomElement(using: &generator)!
            }.joined()
            _ = try? TOML.parse(document)
            var bytes = Array(document.utf8)
            if !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] = UInt8.random(in: 0...255, using: &generator)
            }
            _ = try? bytes.withUnsafeBytes { try TOML.parse($0) }
        }
    }
}

extension TOML.Value {
    var text: String? { if case .string(let text) = kind { text } else { nil } }
}

/// Numbers that a seed repeats.
struct SplitMix: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}
