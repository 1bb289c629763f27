import Glibc
import Testing

@Suite("Nothing readable is on disk", .enabled(if: !Mounted.isPlain))
struct SealedTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private let words = [
        "contents-xyzzy", "name-plugh", "directory-frobozz", "target-quux", "attribute-grault", "value-garply",
        "moved-waldo",
        "replaced-corge", "deleted-fred", "large-thud",
    ]

    private func expectSealed(_ when: Comment, at place: SourceLocation = #_sourceLocation) throws {
        for word in words {
            // The audit log tells names, which is what it is for, and no contents.
            let isName = ["name-", "directory-", "moved-"].contains { word.hasPrefix($0) }
            let without = isName ? ["--exclude-dir=audit"] : []
            let found = try work.run(
                ["grep", "-r", "-l", "-a", "-F"] + without + ["-e", word, mounted.store, work("state")])
            #expect(found.status == 1, "\(word) in \(found.line) \(when)", sourceLocation: place)
        }
    }

    @Test func neitherContentsNorNames() throws {
        try put("contents-xyzzy", mounted("name-plugh"))
        try check(mkdir(mounted("directory-frobozz"), 0o711))
        try check(symlink("target-quux", mounted("directory-frobozz/l")))
        try setExtendedAttribute(mounted("name-plugh"), "user.attribute-grault", "value-garply")
        try put("x", mounted("moved-waldo"))
        try check(rename(mounted("moved-waldo"), mounted("directory-frobozz/m")))
        try put("replaced-corge", mounted("f"))
        try put("by another", mounted("f"))
        try put("deleted-fred", mounted("g"))
        try check(unlink(mounted("g")))
        try put(String(repeating: "large-thud ", count: 20_000), mounted("big"))
        try expectSealed("while mounted")
        try mounted.unmount()
        try expectSealed("unmounted")
        try mounted.mount()
        mounted.killServer()
        try expectSealed("after a kill")
    }

    @Test func contentsDoNotCompress() throws {
        try put([UInt8](repeating: 0, count: 400_000), mounted("zeros"))
        try put(String(repeating: "the same line again and again\n", count: 10_000), mounted("lines"))
        try mounted.unmount()
        // What holds the contents has to look random.
        let sizes = try work.shell(
            "stat -c %s '\(mounted.store)/blocks'; tr -d '\\0' <'\(mounted.store)/blocks' | gzip -9 | wc -c; tr -d '\\0' <'\(mounted.store)/blocks' | wc -c"
        ).text.split(separator: "\n").compactMap { Int($0) }
        #expect(sizes.count == 3 && sizes[2] > 600_000, "\(sizes)")
        #expect(sizes[1] > sizes[2] * 98 / 100, "\(sizes)")
    }

    @Test func theSameContentsAreSealedDifferently() throws {
        let bytes = pattern(4096 * 5)
        for name in ["a", "b"] { try put(bytes, mounted(name)) }
        try mounted.unmount()
        let blocks = try contents(mounted.store + "/blocks")
        var seen: Set<[UInt8]> = []
        for start in stride(from: 0, to: blocks.count - 4095, by: 4096) {
            let block = Array(blocks[start..<start + 4096])
            if block.contains(where: { $0 != 0 }) { #expect(seen.insert(block).inserted) }
        }
        #expect(seen.count >= 10)
    }
}
