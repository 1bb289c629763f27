public import Access
import Fuse
import Glibc
import Threads

/// What runs hooks outside of the server, which must not wait for its own mount.
public struct HookStage: @unchecked Sendable {
    // The memory is the engine's.
    /// Room for `HookRow.boardByteCount`, zero or a board before; outlives the server where its mount does.
    public var board: UnsafeMutableRawPointer
    /// A descriptor of that memory, and where in it the board begins.
    public var descriptor: Int32
    public var place: Int
    /// Starts a process that takes the run (see `HookRun`); nil if it cannot be started.
    public var start: @Sendable (HookOrder) -> Int32?

    public init(
        board: UnsafeMutableRawPointer, descriptor: Int32, place: Int,
        start: @escaping @Sendable (HookOrder) -> Int32?
    ) {
        self.board = board
        self.descriptor = descriptor
        self.place = place
        self.start = start
    }
}

/// One run of a hook.
public struct HookOrder: Sendable {
    public var hook: Hook
    /// Where its row begins in the descriptor's memory.
    public var place: Int
    public var ticket: UInt64
}

/// Runs hooks some time after values have changed: each by one process at a time, and once more for what changes meanwhile.
///
/// What waits is written down before it is told, and what runs goes on without the server: the next one takes both up, so
/// that no change goes without its hook, though a hook may be run once too often.
final class HookEngine: @unchecked Sendable {
    /// What became of a hook, as far as this server knows.
    struct Report {
        var done = 0
        var failed = 0
        var isRunning = false
        var isWaiting = false
        var lastOutcome: String?
    }

    /// A run that came to its end.
    struct End {
        var hook: String
        var outcome: HookRow.Outcome
        var number: Int32
        var milliseconds: UInt64
        var hasWorked: Bool { outcome == .exited && number == 0 }
    }

    private let stage: HookStage
    /// Whether somebody has one of these files open and has written to it.
    private let isBeingWritten: @Sendable ([[UInt8]]) -> Bool
    private let tell: @Sendable (End) -> Void

    private let monitor = Monitor()
    // Unchecked: used within `monitor.locked` alone, and so are the rows, but for what runners write.
    private var hooks: [Hook] = []
    /// The row of each hook.
    private var rows: [Int] = []
    /// Processes of this server's, by row.
    private var children: [Int: Int32] = [:]
    /// How often a row's run was tried and nobody took it.
    private var attempts: [Int: Int] = [:]
    private var known: [String: Report] = [:]
    private var hasNews = false
    private var isStarted = false
    private var isStopped = false

    /// How many commands run at once.
    private static let runningLimit = 8
    private static let attemptLimit = 3
    /// How often a run is looked after (milliseconds).
    private static let lookTime = 50

    init(
        _ stage: HookStage, isBeingWritten: @escaping @Sendable ([[UInt8]]) -> Bool,
        tell: @escaping @Sendable (End) -> Void
    ) {
        self.stage = stage
        self.isBeingWritten = isBeingWritten
        self.tell = tell
    }

    private func row(_ index: Int) -> HookRow { HookRow(stage.board, index) }

    /// Other hooks hold from now on. What waits for one that is gone is forgotten.
    func replace(_ hooks: Hooks) {
        monitor.locked {
            let names = hooks.all.map { Self.hash($0.name) }
            for index in 0..<HookRow.count where row(index).name != 0 && !names.contains(row(index).name) {
                row(index).free()
            }
            self.hooks = hooks.all
            rows = names.map { name in
                let all = 0..<HookRow.count
                if let known = all.first(where: { row($0).name == name }) { return known }
                // There are as many rows as hooks can be.
                let free = all.first { row($0).name == 0 } ?? 0
                row(free).begin(name)
                return free
            }
            wakeUp()
        }
    }

    /// A value has changed, or is just about to be told to have.
    ///
    /// - Parameter orBelow: A directory was moved there.
    func changed(_ path: [UInt8], orBelow: Bool = false) {
        monitor.locked {
            for (hook, index) in zip(hooks, rows) where hook.isAbout(path, orBelow: orBelow) {
                row(index).note(path, at: HookClock.milliseconds)
                wakeUp()
            }
        }
    }

    var reports: [(name: String, report: Report)] {
        monitor.locked {
            zip(hooks, rows).map { hook, index in
                var report = known[hook.name] ?? Report()
                report.isRunning = row(index).stage == .running
                report.isWaiting = row(index).waiting != nil
                return (hook.name, report)
            }
        }
    }

    /// FNV-1a, never 0.
    private static func hash(_ name: String) -> UInt64 {
        name.utf8.reduce(0xcbf2_9ce4_8422_2325) { ($0 ^ UInt64($1)) &* 0x100_0000_01b3 } | 1
    }

    // MARK: The thread

    func start() {
        let begins = monitor.locked {
            defer { isStarted = true }
            return !isStarted
        }
        guard begins else { return }
        _ = startThread { [self] in
            var pause: Int? = 0
            while awaitWork(pause) { pause = work() }
            // Runners go on; this process is still to hear of their end.
            for child in monitor.locked({ children.values }) { waitpid(child, nil, 0) }
        }
    }

    /// What waits is left to the next server.
    func stop() {
        monitor.locked {
            isStopped = true
            monitor.wake()
        }
    }

    private func wakeUp() {
        hasNews = true
        monitor.wake()
    }

    /// - Parameter pause: Milliseconds; nil until something changes.
    /// - Returns: false if it is over.
    private func awaitWork(_ pause: Int?) -> Bool {
        monitor.locked {
            if let pause {
                _ = monitor.wait(milliseconds: pause) { hasNews || isStopped }
            } else {
                while !hasNews, !isStopped { monitor.wait() }
            }
            hasNews = false
            return !isStopped
        }
    }

    /// - Returns: after how many milliseconds there is something to do; nil for not before something changes.
    private func work() -> Int? {
        let pairs = monitor.locked { Array(zip(hooks, rows)) }
        var pause: Int?
        func comeBack(in milliseconds: Int) { pause = min(pause ?? .max, max(1, milliseconds)) }
        var running = 0
        for (hook, index) in pairs {
            if let end = monitor.locked({ lookAfter(hook, index) }) { tell(end) }
            if monitor.locked({ row(index).stage }) == .running {
                running += 1
                comeBack(in: Self.lookTime)
            }
        }
        for (hook, index) in pairs {
            guard let (due, paths) = monitor.locked({ whatWaits(hook, index) }) else { continue }
            let now = HookClock.milliseconds
            if due > now {
                comeBack(in: Int(due - now))
            } else if running >= Self.runningLimit {
                comeBack(in: Self.lookTime)
            } else if isBeingWritten(paths) {
                comeBack(in: max(Self.lookTime, hook.debounce / 4))
            } else {
                running += 1
                monitor.locked { run(hook, index, row(index).start()) }
                comeBack(in: Self.lookTime)
            }
        }
        return pause
    }

    // MARK: Within `monitor.locked`

    private func whatWaits(_ hook: Hook, _ index: Int) -> (due: UInt64, paths: [[UInt8]])? {
        let row = row(index)
        guard row.stage == .idle, let (first, last) = row.waiting else { return nil }
        let due = min(last + UInt64(hook.debounce), first + UInt64(hook.debounce * Hook.patience))
        return (due, row.waitingPaths)
    }

    private func run(_ hook: Hook, _ index: Int, _ ticket: UInt64) {
        attempts[index, default: 0] += 1
        children[index] = stage.start(
            HookOrder(hook: hook, place: stage.place + index * HookRow.byteCount, ticket: ticket))
    }

    /// Sees whether a run has come to its end. One whose runner is gone, or never came, is begun once more.
    private func lookAfter(_ hook: Hook, _ index: Int) -> End? {
        let row = row(index)
        guard row.stage != .idle else { return nil }
        if let child = children[index] {
            guard waitpid(child, nil, WNOHANG) != 0 else { return nil }
            children[index] = nil
        }
        if row.stage == .running {
            guard !HookLock.isTaken(stage.descriptor, stage.place + index * HookRow.byteCount) else { return nil }
            // It may have ended just now.
            if row.stage == .running {
                guard attempts[index, default: 0] >= Self.attemptLimit else {
                    run(hook, index, row.issue())
                    return nil
                }
                row.end(.lost)
            }
        }
        let outcome = row.outcome
        let end = End(hook: hook.name, outcome: outcome.kind, number: outcome.number, milliseconds: row.milliseconds)
        attempts[index] = nil
        row.clear()
        var report = known[hook.name] ?? Report()
        if end.hasWorked { report.done += 1 } else { report.failed += 1 }
        report.lastOutcome = end.description
        known[hook.name] = report
        return end
    }
}

extension HookEngine.End {
    var description: String {
        switch outcome {
        case .exited: "ended with exit code \(number)"
        case .killed: "was killed by signal \(number)"
        case .timedOut: "took too long"
        case .notStarted: "could not be started: \(String(cString: strerror(number)))"
        case .lost: "was lost"
        }
    }
}
