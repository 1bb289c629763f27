import Glibc
import Testing

@Suite("The examples run", .enabled(if: !Mounted.isPlain))
struct ExampleTests {
    /// The repository, as the compiler saw this file in it.
    static let examples: String = {
        var path = #filePath
        for _ in 0..<3 { path = String(path[..<(path.lastIndex(of: "/") ?? path.startIndex)]) }
        return path + "/mount-examples"
    }()

    @Test(arguments: ["demo", "fstab", "systemd", "nginx", "postgresql", "rotation"])
    func anExampleEndsWell(name: String) throws {
        let work = try Workspace()
        let outcome = try work.run(
            ["\(Self.examples)/\(name)/run.sh"], environment: ["LETTERLOCK": try Workspace.program()], seconds: 120)
        #expect(outcome.status == 0, "\(outcome.text)\n\(outcome.complaint)")
    }

    @Test func noExampleIsForgotten() throws {
        let all = try names(Self.examples).filter { exists("\(Self.examples)/\($0)/run.sh") }
        #expect(all == ["demo", "fstab", "nginx", "postgresql", "rotation", "systemd"])
    }
}
