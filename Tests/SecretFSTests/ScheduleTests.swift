import Fuse
import Glibc
import Keyring
import SecretTree
import Testing

@testable import SecretFS

struct ScheduleTests {
    private static let day: Int64 = 86_400
    private static let one = KEKVersion(rawValue: 1)

    /// Version 1 waits for its destruction, eight days from now.
    private func mounted() throws -> (MountedTree, ScheduleClock) {
        let mounted = try MountedTree()
        try mounted.command("1", "keys/rotate")
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("8", "keys/1/destroy")
        return (mounted, .now)
    }

    /// - Parameter boot: Days that have really passed.
    private func after(_ days: Int64, boot: Int64, _ clock: ScheduleClock) -> ScheduleClock {
        ScheduleClock(wall: clock.wall.adding(seconds: days * Self.day), boot: clock.boot + boot * Self.day)
    }

    @Test("a key is destroyed when its day has come, and not before")
    func destroys() throws {
        let (mounted, clock) = try mounted()
        mounted.fileSystem.doWhatIsDue(at: after(7, boot: 7, clock))
        #expect(mounted.tree.keyring.lifecycle.state(of: Self.one) == .pendingDestruction)
        mounted.fileSystem.doWhatIsDue(at: after(9, boot: 9, clock))
        #expect(mounted.tree.keyring.lifecycle.state(of: Self.one) == .destroyed)
        #expect(mounted.tree.problems.isEmpty)
    }

    @Test("a clock that is set ahead holds a destruction, says so, and rotates once")
    func holds() throws {
        let (mounted, clock) = try mounted()
        try mounted.command("1h", "keys/auto_rotate_period")
        mounted.fileSystem.doWhatIsDue(at: after(400, boot: 0, clock))
        #expect(mounted.tree.keyring.lifecycle.state(of: Self.one) == .pendingDestruction)
        #expect(mounted.tree.problems.contains { $0.description.contains("held") })
        #expect(mounted.tree.keyring.lifecycle.latest == KEKVersion(rawValue: 3))
        mounted.fileSystem.doWhatIsDue(at: after(400, boot: 0, clock))
        #expect(mounted.tree.keyring.lifecycle.latest == KEKVersion(rawValue: 3))
        // The time that had to pass has passed.
        mounted.fileSystem.doWhatIsDue(at: after(409, boot: 9, clock))
        #expect(mounted.tree.keyring.lifecycle.state(of: Self.one) == .destroyed)
    }

    @Test("jobs are begun, refused and told of through their files")
    func jobs() throws {
        let mounted = try MountedTree()
        let file = try mounted.make("web", "value")
        try mounted.command("1", "keys/rotate")
        for command in ["begin", "start now", "start from=x", "start path=/web", "resume please"] {
            #expect(failure { () throws(Errno) in try mounted.command(command, "rewrap") } == EINVAL, "\(command)")
        }
        #expect(failure { () throws(Errno) in try mounted.command("pause", "rewrap") } == EPERM)
        #expect(failure { () throws(Errno) in try mounted.command("start from=9", "rewrap") } == ENOENT)
        #expect(failure { () throws(Errno) in try mounted.command("start path=/none", "reencrypt") } == ENOENT)
        try mounted.command("start path=/web", "reencrypt")
        #expect(failure { () throws(Errno) in try mounted.command("start", "reencrypt") } == EALREADY)
        try mounted.command("pause", "reencrypt")
        try mounted.command("resume", "reencrypt")
        while mounted.tree.workOnJobs() {}
        let document = try mounted.value(try mounted.control("reencrypt"))
        #expect(document.hasPrefix(#"{"state":"done","done":1,"#), "\(document)")
        #expect(failure { () throws(Errno) in try mounted.command("1", "revoke") } == EINVAL)
        #expect(failure { () throws(Errno) in try mounted.command("7 lost", "revoke") } == ENOENT)
        try mounted.command("2 lost", "revoke")
        while mounted.tree.workOnJobs() {}
        let report = try mounted.value(try mounted.control("revoke"))
        #expect(report.contains(#""affected":["/web"]"#), "\(report)")
        #expect(try mounted.tree.attributes(of: NodeID(rawValue: file)).needsRegeneration)
    }
}
