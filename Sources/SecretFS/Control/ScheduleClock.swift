public import Keyring

#if DEBUG
internal import Glibc
#endif

/// The clocks that schedules go by: the wall clock, and one that nobody can set.
///
/// A debug build may be told that both are ahead: `LETTERLOCK_CLOCK` names a file with the text `WALL BOOT`, seconds each,
/// and schedules are looked at all the time. There is nothing of this in a release build.
public struct ScheduleClock: Sendable, Equatable {
    public var wall: Timestamp
    /// Whole seconds since boot, time asleep among them.
    public var boot: Int64

    public init(wall: Timestamp, boot: Int64) {
        self.wall = wall
        self.boot = boot
    }

    /// Seconds between looks at what is due; the shortest period of all is an hour.
    static var interval: Double {
        #if DEBUG
        if file != nil { return 0.05 }
        #endif
        return 20
    }

    public static var now: ScheduleClock {
        let clock = ScheduleClock(wall: .now(), boot: SecretFS.bootSeconds)
        #if DEBUG
        return clock.ahead()
        #else
        return clock
        #endif
    }

    #if DEBUG
    private static let file = getenv("LETTERLOCK_CLOCK").map { String(cString: $0) }

    private func ahead() -> ScheduleClock {
        guard let file = Self.file else { return self }
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return self }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 64)
        let seconds = String(decoding: bytes[..<max(0, Glibc.read(descriptor, &bytes, bytes.count))], as: UTF8.self)
            .split(separator: " ").compactMap { Int64($0) }
        guard seconds.count == 2 else { return self }
        return ScheduleClock(wall: wall.adding(seconds: seconds[0]), boot: boot + seconds[1])
    }
    #endif
}
