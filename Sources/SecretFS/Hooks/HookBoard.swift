import Access
import Glibc
import Synchronization

/// What waits for hooks and what runs, in memory that outlives the server: a row a hook.
///
/// Whoever runs a command holds a lock (F_OFD_SETLK) on the row's first byte as long as it does, which ends with it however
/// it ends, and writes down itself how the command has ended.
///
///     0     hash of the hook's name 8, 0: free | ticket 8 | stage 4 | outcome 4 | its number 4 | command's process 4
///     32    milliseconds 8 | first change 8, 0: none | last change 8 (milliseconds since boot) | command's start 8 (ticks)
///     64    bytes of paths to run for 4 | more than these 4 | bytes of paths that wait 4 | more than these 4
///     128   paths that the command is run for, each with a zero byte, 4032
///     4160  paths that wait, likewise
public struct HookRow: @unchecked Sendable {
    // Under its engine's lock, but for what a runner writes: see `Stage`.
    public static let byteCount = 8192
    public static let count = 64
    /// Of a whole board.
    public static let boardByteCount = byteCount * count
    static let pathsByteCount = 4032
    private static let (runningPlace, waitingPlace) = (128, 128 + pathsByteCount)

    public enum Stage: UInt32 {
        case idle = 0
        /// A command runs, or is about to. A runner, who holds the lock, makes it `ended`.
        case running = 1
        case ended = 2
    }

    public enum Outcome: UInt32 {
        /// With an exit code.
        case exited = 1
        /// By a signal.
        case killed = 2
        case timedOut = 3
        /// With an error number.
        case notStarted = 4
        /// Its runner has vanished.
        case lost = 5
    }

    let base: UnsafeMutableRawPointer

    /// - Parameter board: Zero, or a board before.
    init(_ board: UnsafeMutableRawPointer, _ index: Int) { base = board + index * Self.byteCount }

    private func get<T: FixedWidthInteger>(_ place: Int, as type: T.Type = T.self) -> T {
        base.load(fromByteOffset: place, as: T.self)
    }
    private func word(_ place: Int) -> UInt64 { get(place) }
    private func set<T: FixedWidthInteger>(_ value: T, _ place: Int) {
        base.storeBytes(of: value, toByteOffset: place, as: T.self)
    }

    var name: UInt64 { word(0) }
    /// Tells the runs of a row from each other.
    var ticket: UInt64 { word(8) }
    var stage: Stage { Stage(rawValue: get(16)) ?? .idle }
    var outcome: (kind: Outcome, number: Int32) { (Outcome(rawValue: get(20)) ?? .lost, get(24)) }
    var milliseconds: UInt64 { word(32) }

    /// When what waits has changed first and last; nil if nothing does.
    var waiting: (first: UInt64, last: UInt64)? {
        let first: UInt64 = get(40)
        return first == 0 ? nil : (first, get(48))
    }

    func begin(_ name: UInt64) {
        set(UInt64(0), 0)
        UnsafeMutableRawBufferPointer(start: base, count: Self.byteCount).initializeMemory(as: UInt8.self, repeating: 0)
        set(name, 0)
    }

    func free() { set(UInt64(0), 0) }

    /// A value has changed. A server that dies in between leaves what it said before.
    func note(_ path: [UInt8], at now: UInt64) {
        let count = Int(get(72, as: UInt32.self))
        let known = UnsafeRawBufferPointer(start: base + Self.waitingPlace, count: count).split(separator: 0)
        if !known.contains(where: { $0.elementsEqual(path) }) {
            if count + path.count + 1 <= Self.pathsByteCount {
                UnsafeMutableRawBufferPointer(start: base + Self.waitingPlace + count, count: path.count + 1)
                    .copyBytes(from: path + [0])
                set(UInt32(count + path.count + 1), 72)
            } else {
                set(UInt32(1), 76)
            }
        }
        set(now, 48)
        if waiting == nil { set(now, 40) }
    }

    /// The paths that wait.
    var waitingPaths: [[UInt8]] {
        UnsafeRawBufferPointer(start: base + Self.waitingPlace, count: Int(get(72, as: UInt32.self)))
            .split(separator: 0).map(Array.init)
    }

    /// What waits is run for from now on.
    ///
    /// - Returns: the ticket of the run.
    func start() -> UInt64 {
        let count: UInt32 = get(72)
        (base + Self.runningPlace).copyMemory(from: base + Self.waitingPlace, byteCount: Int(count))
        set(count, 64)
        set(get(76, as: UInt32.self), 68)
        let ticket = issue()
        // What changes from here on waits for the next run.
        set(UInt64(0), 40)
        set(UInt64(0), 72)
        return ticket
    }

    /// Another ticket for the same run: no runner with an older one begins any more.
    func issue() -> UInt64 {
        let next = ticket &+ 1
        set(next, 8)
        set(UInt32(0), 20)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        set(Stage.running.rawValue, 16)
        return next
    }

    func end(_ outcome: Outcome, _ number: Int32 = 0) {
        set(outcome.rawValue, 20)
        set(number, 24)
        set(UInt64(0), 32)
        set(Stage.ended.rawValue, 16)
    }

    func clear() { set(Stage.idle.rawValue, 16) }
}

/// A runner's view of a row, through a descriptor of its own of the board's memory.
public struct HookRun: ~Copyable {
    private let descriptor: Int32
    private let place: Int
    private let start: UInt64

    /// Takes the run that a ticket is for.
    ///
    /// - Parameters:
    ///   - board: A descriptor of the memory; another one of the same is opened, which has locks of its own.
    ///   - place: Where the row begins.
    /// - Returns: nil if somebody else runs it, or it is over.
    public init?(board: Int32, at place: Int, ticket: UInt64) {
        descriptor = open("/proc/self/fd/\(board)", O_RDWR | O_CLOEXEC)
        self.place = place
        start = HookClock.milliseconds
        guard descriptor >= 0, HookLock.take(descriptor, place), word(8) == ticket,
            UInt32(truncatingIfNeeded: word(16)) == HookRow.Stage.running.rawValue
        else { return nil }
    }

    deinit { if descriptor >= 0 { close(descriptor) } }

    private func word(_ offset: Int) -> UInt64 {
        var word: UInt64 = 0
        _ = pread(descriptor, &word, 8, off_t(place + offset))
        return word
    }

    /// The paths that it is for, each with a zero byte behind it, and whether there are more.
    public var paths: (bytes: [UInt8], areMore: Bool) {
        let counts = word(64)
        let count = min(Int(counts & 0xffff_ffff), HookRow.pathsByteCount)
        var bytes = [UInt8](repeating: 0, count: count)
        let found = pread(descriptor, &bytes, count, off_t(place + 128))
        return (Array(bytes.prefix(max(0, found))), counts >> 32 != 0)
    }

    /// The command that an earlier runner of this run has started, if it runs still.
    public var command: Int32? {
        let process = Int32(truncatingIfNeeded: word(24) >> 32)
        // Another process may have got its number.
        guard process > 0, let started = ProcessIdentity.startTime(of: process), started == word(56) else { return nil }
        return process
    }

    /// The command was started: whoever comes after this runner, if it is killed, has to end it.
    public func note(command: Int32) {
        guard var started = ProcessIdentity.startTime(of: command) else { return }
        var process = command
        pwrite(descriptor, &started, 8, off_t(place + 56))
        pwrite(descriptor, &process, 4, off_t(place + 28))
    }

    public func end(_ outcome: HookRow.Outcome, _ number: Int32) {
        // And no command that runs any more.
        var words = [outcome.rawValue, UInt32(bitPattern: number), 0]
        var duration = HookClock.milliseconds - start
        var stage = HookRow.Stage.ended.rawValue
        pwrite(descriptor, &words, 12, off_t(place + 20))
        pwrite(descriptor, &duration, 8, off_t(place + 32))
        pwrite(descriptor, &stage, 4, off_t(place + 16))
    }
}

enum HookClock {
    /// Since boot, time asleep among them; never 0.
    static var milliseconds: UInt64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000 + 1
    }
}

/// The lock on a row's first byte, of one open file description.
enum HookLock {
    private static let (get, set): (Int32, Int32) = (36, 37)  // F_OFD_GETLK, F_OFD_SETLK

    private static func range(_ place: Int, _ kind: Int32) -> flock {
        var range = flock()
        range.l_type = Int16(kind)
        range.l_whence = Int16(SEEK_SET)
        range.l_start = off_t(place)
        range.l_len = 1
        return range
    }

    /// False if another one has it.
    static func take(_ descriptor: Int32, _ place: Int) -> Bool {
        var range = range(place, F_WRLCK)
        return fcntl(descriptor, set, &range) == 0
    }

    static func isTaken(_ descriptor: Int32, _ place: Int) -> Bool {
        var range = range(place, F_WRLCK)
        return fcntl(descriptor, get, &range) == 0 && range.l_type != Int16(F_UNLCK)
    }

    static func release(_ descriptor: Int32, _ place: Int) {
        var range = range(place, F_UNLCK)
        _ = fcntl(descriptor, set, &range)
    }
}
