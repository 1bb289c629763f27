/// Tells a wall clock that was set ahead from time that has passed, by a clock that nobody can set.
///
/// What cannot be undone, the destruction of a key, goes by `trusted`: it never runs ahead of the time that has really
/// passed since the watch began. Before that there is only the wall clock to believe.
public struct ClockWatch: Sendable {
    /// The wall clock as far as it is believed.
    public private(set) var trusted: Timestamp
    /// True while the wall clock shows more than an hour that has not passed.
    public private(set) var isAhead = false
    /// Seconds since boot, time asleep among them, when `trusted` was taken.
    private var boot: Int64

    /// Small corrections are no jumps: seconds.
    public static let tolerance: Int64 = 3600

    /// - Parameter boot: Whole seconds of CLOCK_BOOTTIME.
    public init(wall: Timestamp, boot: Int64) {
        trusted = wall
        self.boot = boot
    }

    public mutating func observe(wall: Timestamp, boot: Int64) {
        let expected = trusted.adding(seconds: max(0, boot - self.boot))
        isAhead = wall > expected.adding(seconds: Self.tolerance)
        // A clock that was set back is believed: it only makes things later.
        trusted = isAhead ? expected : wall
        self.boot = boot
    }
}
