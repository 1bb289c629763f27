import Testing

@testable import Keyring

@Suite struct ScheduleTests {
    @Test(
        arguments: [
            (0, true), (1, false), (3599, false), (3600, true), (KeyLifecycle.longestPeriod, true),
            (KeyLifecycle.longestPeriod + 1, false), (-1, false), (.max, false),
        ] as [(Int64, Bool)])
    func `a rotation period is nothing or at least an hour`(seconds: Int64, isTaken: Bool) {
        var lifecycle = KeyLifecycle(now: start)
        let result = Result { () throws(LifecycleError) in try lifecycle.setAutoRotatePeriod(seconds) }
        if isTaken {
            #expect(throws: Never.self) { try result.get() }
        } else {
            #expect(throws: LifecycleError.outOfRange) { try result.get() }
        }
    }

    @Test func `rotates by itself when the period is over`() throws {
        var lifecycle = KeyLifecycle(now: start)
        #expect(lifecycle.nextRotation == nil && lifecycle.dueActions(now: day(9999)) { _ in 0 }.isEmpty)
        try lifecycle.setAutoRotatePeriod(30 * 86_400)
        #expect(lifecycle.nextRotation == day(30))
        #expect(lifecycle.dueActions(now: day(29)) { _ in 0 }.isEmpty)
        #expect(lifecycle.dueActions(now: day(30)) { _ in 0 } == [.rotate])
    }

    @Test func `after a long pause there is one catch-up rotation`() throws {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.setAutoRotatePeriod(3600)
        let now = day(365)
        #expect(lifecycle.dueActions(now: now) { _ in 0 } == [.rotate])
        try lifecycle.perform(.rotate, now: now)
        #expect(lifecycle.dueActions(now: now) { _ in 0 }.isEmpty)
        #expect(lifecycle.nextRotation == now.adding(seconds: 3600))
        #expect(lifecycle.latest == version(2))
    }

    @Test func `a version goes the way of 30 and 90 days, and is erased a week later`() throws {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.setDisableAfter(30 * 86_400)
        try lifecycle.setDestroyAfter(90 * 86_400)
        lifecycle.setDeletionAllowed(true)
        try lifecycle.rotate(now: day(10))
        let one = version(1)
        for (time, expected) in [
            (39, []), (40, [.disable(one)]), (99, []), (100, [.scheduleDestruction(one)]), (106, []),
            (107, [.destroy(one)]), (9999, []),
        ] as [(Int64, [LifecycleAction])] {
            let actions = lifecycle.dueActions(now: day(time)) { _ in 0 }
            #expect(actions == expected)
            for action in actions { try lifecycle.perform(action, now: day(time)) }
        }
        #expect(lifecycle.versions.map(\.state) == [.destroyed, .primary])
    }

    @Test func `what files need is not taken away by itself`() throws {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.setDisableAfter(86_400)
        try lifecycle.setDestroyAfter(2 * 86_400)
        lifecycle.setDeletionAllowed(true)
        try lifecycle.rotate(now: day(1))
        #expect(lifecycle.dueActions(now: day(50)) { _ in 1 }.isEmpty)
        lifecycle.setDeletionAllowed(false)
        #expect(lifecycle.dueActions(now: day(50)) { _ in 0 } == [.disable(version(1))])
    }
}

@Suite struct TimestampTests {
    @Test(
        arguments: [
            (0, "1970-01-01T00:00:00Z"), (1_800_000_000, "2027-01-15T08:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"),
            (-1, "1969-12-31T23:59:59Z"), (4_107_542_399, "2100-02-28T23:59:59Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] as [(Int64, String)])
    func `is written as RFC 3339 has it`(seconds: Int64, text: String) {
        #expect(Timestamp(seconds: seconds, nanoseconds: 5).rfc3339 == text)
    }

    @Test func `is ordered by seconds, then nanoseconds, and ends at the end of time`() {
        #expect(Timestamp(seconds: 1, nanoseconds: 2) < Timestamp(seconds: 2, nanoseconds: 1))
        #expect(Timestamp(seconds: 1, nanoseconds: 1) < Timestamp(seconds: 1, nanoseconds: 2))
        #expect(Timestamp(seconds: .max).adding(seconds: 1).seconds == .max)
        #expect(!Timestamp(seconds: .max).rfc3339.isEmpty && !Timestamp(seconds: .min).rfc3339.isEmpty)
        #expect(Timestamp.now() > start.adding(seconds: -400_000_000))
    }
}
