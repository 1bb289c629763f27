/// Something that is measured, on each subject that it can be measured on.
struct Workload: Sendable {
    enum Unit: String {
        case perSecond = "/s"
        case mebibytesPerSecond = "MiB/s"
        case milliseconds = "ms"
        case mebibytes = "MiB"
        case times = "×"

        var higherIsBetter: Bool { self == .perSecond || self == .mebibytesPerSecond }
    }

    var name: String
    var title: String
    var unit: Unit
    /// Also taken with client and server on one core.
    var isPinned = false
    /// Also measured on other ways to run Letterlock.
    var takesVariants = false
    var takes: @Sendable (Subject) -> Bool = { !$0.isReadOnly }
    var prepare: @Sendable (Subject, Settings) throws -> Void = { _, _ in }
    var measure: @Sendable (Subject, Settings) throws -> Double
    /// What Letterlock is to reach beyond being ahead of its peers.
    var targets: [Target] = []
}

/// How much is done.
struct Settings: Sendable {
    var rounds = 5
    var seconds = 0.5
    var smallCount = 10_000
    var manyCount = 100_000
    var createCount = 2000
    var largeByteCount = 256 << 20
    var hugeByteCount = 1 << 30
    var randomByteCount = 64 << 20
    var randomWriteCount = 5000
    var killCount = 100

    static let quick = Settings(
        rounds: 1, seconds: 0.1, smallCount: 500, manyCount: 2000, createCount: 200, largeByteCount: 16 << 20,
        hugeByteCount: 32 << 20, randomByteCount: 8 << 20, randomWriteCount: 500, killCount: 5)
}

/// A figure to be reached: a number, or a share of another subject's.
struct Target: Sendable {
    var text: String
    var subject = "letterlock"
    /// Judged on the pinned figures.
    var isPinned = false
    /// The figure to reach, from the medians of all subjects.
    var bound: @Sendable ([String: Double]) -> Double?

    static func share(
        _ share: Double, of other: String, by subject: String = "letterlock", pinned: Bool = false
    ) -> Target {
        let percent = Int(share * 100)
        return Target(text: "\(percent) % of \(other)", subject: subject, isPinned: pinned) {
            $0[other].map { $0 * share }
        }
    }

    static func ahead(of other: String) -> Target { Target(text: "ahead of \(other)") { $0[other] } }

    static func number(_ number: Double, _ text: String, of subject: String = "letterlock", pinned: Bool = false)
        -> Target
    {
        Target(text: text, subject: subject, isPinned: pinned) { _ in number }
    }
}
