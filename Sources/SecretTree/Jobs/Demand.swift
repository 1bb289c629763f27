internal import Glibc
internal import Synchronization

/// How much is asked of a tree, so that jobs leave a processor to those who read.
final class Demand: Sendable {
    /// So many nodes looked up in a millisecond are many: one application that reads file after file has them look up
    /// several times as many, who looks at a control file now and then a few.
    private static let limit = 8

    private struct Look: Sendable {
        var count: UInt64 = 0
        var time: UInt64 = 0
    }

    private let count = Atomic<UInt64>(0)
    private let last = Mutex(Look())

    /// A node was looked up.
    @inline(__always)
    func note() { count.wrappingAdd(1, ordering: .relaxed) }

    /// Whether much was asked for since this was called last.
    var isHigh: Bool {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        let now = Look(
            count: count.load(ordering: .relaxed), time: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
        return last.withLock { last in
            defer { last = now }
            return (now.count - last.count) * 1_000_000 > UInt64(Self.limit) * (now.time - last.time)
        }
    }
}
