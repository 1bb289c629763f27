import Testing

@testable import Access

/// Patterns for paths and names.
struct GlobTests {
    @Test(
        arguments: [
            ("/web/**", ["/web", "/web/a", "/web/a/b"], ["/", "/webx", "/we", "/x/web/a"]),
            ("/web/*", ["/web/a", "/web/.hidden"], ["/web", "/web/a/b"]),
            ("/**", ["/", "/a", "/a/b/c"], []),
            ("/", ["/"], ["/a"]),
            ("/**/tls.key", ["/tls.key", "/a/tls.key", "/a/b/tls.key"], ["/tls.key/x", "/a/xtls.key"]),
            ("/a/**/b/**/c", ["/a/b/c", "/a/x/b/y/z/c", "/a/b/b/c/c"], ["/a/c", "/a/b", "/b/c"]),
            ("/a/k?y", ["/a/key", "/a/k\u{e4}y"], ["/a/ky", "/a/keey"]),
            ("/a/[a-c]x", ["/a/ax", "/a/cx"], ["/a/dx", "/a/x"]),
            ("/a/[!a-c]x", ["/a/dx", "/a/\u{fc}x"], ["/a/ax"]),
            ("/a/[]x]", ["/a/]", "/a/x"], ["/a/y"]),
            ("/a/\\*", ["/a/*"], ["/a/b"]),
            ("/a/*.key", ["/a/.key", "/a/x.key", "/a/x.key.key"], ["/a/x.keys"]),
            ("/a*b*c", ["/abc", "/axxbyyc", "/abbcc"], ["/acb", "/ab"]),
        ] as [(String, [String], [String])])
    func matches(pattern: String, yes: [String], no: [String]) throws {
        let glob = try PathGlob(pattern)
        for path in yes { #expect(glob.matches(path.utf8), "\(pattern) \(path)") }
        for path in no { #expect(!glob.matches(path.utf8), "\(pattern) \(path)") }
    }

    @Test func `names need not be UTF-8`() throws {
        #expect(try PathGlob("/a/*").matches([0x2f, 0x61, 0x2f, 0xff, 0xfe]))
        #expect(try PathGlob("/a/??").matches([0x2f, 0x61, 0x2f, 0xff, 0xfe]))
        #expect(!(try PathGlob("/a/x").matches([0x2f, 0x61, 0x2f, 0xff])))
    }

    @Test(arguments: [
        "", "a", "web/**", "//", "/a//b", "/a/", "/a/./b", "/a/../b", "/a/**b", "/a/[", "/a/[z-a]", "/a\\",
    ])
    func `what is no pattern is refused`(pattern: String) {
        #expect(throws: PatternMistake.self) { try PathGlob(pattern) }
    }

    @Test(arguments: [
        ("/web/**", "/", true), ("/web/**", "/web", true), ("/web/**", "/web/a", true), ("/web/**", "/other", false),
        ("/web/key", "/web", true), ("/web/key", "/web/key", false), ("/**/key", "/any/where", true),
        ("/a/*/c", "/a/b", true), ("/a/*/c", "/a/b/c", false), ("/", "/", false),
    ])
    func `what could lie below a directory`(pattern: String, directory: String, expected: Bool) throws {
        #expect(try PathGlob(pattern).couldMatchBelow(Array(directory.utf8)) == expected)
    }

    /// Against a second way to decide it: all splits, by recursion.
    @Test func `random patterns agree with the plain definition`() throws {
        var generator = SeededGenerator(seed: 7)
        func plain(_ pattern: ArraySlice<String>, _ names: ArraySlice<String>) -> Bool {
            guard let first = pattern.first else { return names.isEmpty }
            if first == "**" {
                return plain(pattern.dropFirst(), names) || !names.isEmpty && plain(pattern, names.dropFirst())
            }
            guard let name = names.first, first == "*" || first == name else { return false }
            return plain(pattern.dropFirst(), names.dropFirst())
        }
        for _ in 0..<3000 {
            let pattern = (0..<Int.random(in: 1...5, using: &generator)).map { _ in
                ["**", "*", "a", "b"].randomElement(using: &generator)!
            }
            let names = (0..<Int.random(in: 0...6, using: &generator)).map { _ in
                ["a", "b", "c"].randomElement(using: &generator)!
            }
            let glob = try PathGlob("/" + pattern.joined(separator: "/"))
            let path = "/" + names.joined(separator: "/")
            #expect(glob.matches(path.utf8) == plain(pattern[...], names[...]), "\(pattern) \(names)")
        }
    }
}

/// The same numbers every time.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64
    init(seed: UInt64) { state = seed &* 0x9E37_79B9_7F4A_7C15 | 1 }
    mutating func next() -> UInt64 {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return state
    }
}
