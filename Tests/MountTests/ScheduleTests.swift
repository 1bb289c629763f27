import Glibc
import Testing

/// What the passing of time does to a mounted keyring, whose server a debug build may tell how much has passed.
@Suite("Schedules of a mounted keyring", .serialized, .enabled(if: !Mounted.isPlain))
final class MountedScheduleTests {
    private static let day = 86_400
    private let mounted: Mounted
    private let clock: ClockFile

    init() throws {
        mounted = try Mounted()
        clock = try ClockFile(mounted.workspace)
        try mounted.remount()
    }

    private func state(of version: Int) throws -> String { try mounted.answer("keys/\(version)/state") }

    @Test func aPauseOfAYearRotatesOnce() throws {
        try put("value", mounted("f"))
        try mounted.command("1h", "keys/auto_rotate_period")
        try clock.set(wall: 365 * Self.day, boot: 365 * Self.day)
        #expect(try eventually { try mounted.answer("keys/rotate") == "2" })
        // Many looks later, and after a mount, which looks too.
        usleep(300_000)
        #expect(try mounted.answer("keys/rotate") == "2")
        try mounted.remount()
        usleep(300_000)
        #expect(try mounted.answer("keys/rotate") == "2")
        #expect(try text(mounted("f")) == "value")
        try clock.set(wall: 365 * Self.day + 3700, boot: 365 * Self.day + 3700)
        #expect(try eventually { try mounted.answer("keys/rotate") == "3" })
    }

    @Test func aVersionIsDisabledThenErasedInItsTime() throws {
        try mounted.command("30d", "keys/disable_after")
        try mounted.command("90d", "keys/destroy_after")
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("1", "keys/rotate")
        for (days, expected) in [(29, "enabled"), (31, "disabled"), (91, "pending-destruction"), (99, "destroyed")] {
            try clock.set(wall: days * Self.day, boot: days * Self.day)
            #expect(try eventually { try state(of: 1) == expected }, "day \(days)")
            usleep(150_000)
            #expect(try state(of: 1) == expected, "day \(days)")
        }
        #expect(try state(of: 2) == "primary")
        #expect(try eventually { try mounted.answer("status").contains("\"kind\":\"erase\",\"state\":\"done\"") })
        #expect(try mounted.answer("status").contains("\"problems\":[]"))
    }

    /// Neither at once nor by the server that takes over, which has not seen the clock before.
    @Test func aClockThatIsSetAheadDestroysNothing() throws {
        try put("given up", mounted("lost"))
        try mounted.command("1", "keys/rotate")
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("8 force", "keys/1/destroy")
        try clock.set(wall: 400 * Self.day, boot: 0)
        let held = "the clock was set ahead: the destruction of KEK version 1 is held"
        #expect(try eventually { try mounted.answer("status").contains(held) })
        #expect(try state(of: 1) == "pending-destruction")
        kill(try mounted.process("server"), SIGKILL)
        #expect(try eventually { try mounted.answer("status").contains(held) })
        #expect(try state(of: 1) == "pending-destruction")
        // Its owner has the time that was promised.
        try mounted.command("1", "keys/1/cancel_destroy")
        try mounted.command("enable", "keys/1/state")
        #expect(try text(mounted("lost")) == "given up")
        try mounted.command("8 force", "keys/1/destroy")
        try clock.set(wall: 409 * Self.day, boot: 9 * Self.day)
        #expect(try eventually { try state(of: 1) == "destroyed" })
        expectErrno(ENOKEY, open(mounted("lost"), O_RDONLY))
    }
}

/// Has the schedules of what is mounted after this go by other clocks: see `ScheduleClock`.
struct ClockFile {
    let path: String

    init(_ workspace: Workspace) throws {
        path = workspace.setClock()
        try set(wall: 0, boot: 0)
    }

    /// - Parameters:
    ///   - wall: Seconds by which the wall clock is ahead.
    ///   - boot: Seconds by which that is ahead which nobody can set.
    func set(wall: Int, boot: Int) throws {
        try put("\(wall) \(boot)", path + ".new", mode: 0o600)
        try check(rename(path + ".new", path))
    }
}
