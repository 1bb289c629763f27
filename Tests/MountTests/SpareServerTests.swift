import Glibc
import Testing

/// A spare server waits to take over.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class SpareServerTests {
    private let mounted: Mounted
    init() throws { mounted = try Mounted() }

    /// The spare server; nil if none comes.
    private func spare() throws -> pid_t? {
        let server = try mounted.process("server")
        var found: pid_t?
        _ = eventually {
            found = (try? self.mounted.children())?.first { $0 != server }
            return found != nil
        }
        return found
    }

    private func killServer() throws {
        let old = try mounted.process("server")
        kill(old, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    @Test func itIsTheNextServer() throws {
        try put("x", mounted("f"))
        for _ in 0..<3 {
            let next = try #require(try spare())
            try killServer()
            #expect(try mounted.process("server") == next)
            #expect(try text(mounted("f")) == "x")
            try put("x", mounted("f"))
        }
    }

    @Test func itHoldsNothingOfTheStore() throws {
        let next = try #require(try spare())
        let server = try mounted.process("server")
        func open(_ process: pid_t) throws -> [String] {
            let directory = "/proc/\(process)/fd"
            return try names(directory).compactMap { try? linkTarget("\(directory)/\($0)") }
        }
        #expect(try open(server).contains { $0.hasPrefix(mounted.store) })
        #expect(eventually { (try? open(next)).map { !$0.contains { $0.hasPrefix(self.mounted.store) } } ?? false })
        #expect(!(try open(next).contains { $0.contains("/dev/fuse") }))
    }

    @Test func withoutItThereIsAServerAllTheSame() throws {
        try put("x", mounted("f"))
        let next = try #require(try spare())
        kill(next, SIGKILL)
        #expect(eventually { kill(next, 0) != 0 })
        try killServer()
        #expect(try mounted.process("server") != next)
        #expect(try text(mounted("f")) == "x")
        #expect(try text(mounted.control("status")).contains("\"restarts\":1"))
    }

    @Test func bothKilledAtOnceAreReplaced() throws {
        try put("x", mounted("f"))
        let next = try #require(try spare())
        let server = try mounted.process("server")
        kill(next, SIGKILL)
        kill(server, SIGKILL)
        #expect(try text(mounted("f")) == "x")
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != server && $0 != next } ?? false })
    }

    @Test func anUpgradeReplacesIt() throws {
        let old = try #require(try spare())
        let outcome = try mounted.workspace.letterlock("upgrade", mounted.path)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        #expect(eventually { kill(old, 0) != 0 })
        let next = try #require(try spare())
        try killServer()
        #expect(try mounted.process("server") == next)
        #expect(eventually { (try? self.mounted.children().count) == 2 })
    }

    @Test func itEndsWithTheMount() throws {
        let next = try #require(try spare())
        try mounted.unmount()
        #expect(eventually { kill(next, 0) != 0 })
        try mounted.mount()
        let another = try #require(try spare())
        kill(mounted.guardian, SIGKILL)
        #expect(eventually { kill(another, 0) != 0 })
        try? mounted.unmount()
        try mounted.mount()
    }
}
