internal import Glibc

/// One rule of a policy.
public struct Rule: Sendable {
    public enum Effect: String, Sendable { case allow, deny }

    public var name: String
    public var effect: Effect
    public var paths: [PathGlob]
    public var operations: Operations
    /// Whom it is about; all of them must match.
    public var matchers: [Matcher]

    /// Whether a path is named for an operation.
    func names(_ path: some Collection<UInt8>, _ operation: Operation) -> Bool {
        operations.contains(operation) && paths.contains { $0.matches(path) }
    }

    /// It is about everybody, if not at any time.
    public var isForEveryone: Bool { matchers.allSatisfy(\.takesEverybody) }

    /// What it says of somebody may change from one moment to the next.
    var isPassing: Bool { matchers.contains(where: \.isPassing) }
}

/// A condition on who asks, and when.
public enum Matcher: Sendable {
    case uids([UInt32])
    /// The groups that it works with, or is in besides.
    case gids([UInt32])
    /// Names, with the numbers that they have on this machine.
    case users([String], [UInt32])
    case groups([String], [UInt32])
    case exes([PathGlob])
    /// SHA-256 of the program's file.
    case hashes([[UInt8]])
    case units([NameGlob], [String])
    case cgroups([PathGlob])
    case between(TimeWindow)
    /// So many openings a process.
    case opensPerProcess(Int)

    /// Its key in a document.
    var key: String {
        switch self {
        case .uids: "uids"
        case .gids: "gids"
        case .users: "users"
        case .groups: "groups"
        case .exes: "exes"
        case .hashes: "exe_sha256"
        case .units: "units"
        case .cgroups: "cgroups"
        case .between: "between"
        case .opensPerProcess: "opens_per_process"
        }
    }

    var isPassing: Bool {
        switch self {
        case .between, .opensPerProcess: true
        default: false
        }
    }

    /// It leaves nobody out, whatever he runs.
    var takesEverybody: Bool {
        switch self {
        case .between, .opensPerProcess: true
        case .exes(let globs), .cgroups(let globs): globs.contains { ["/**", "/**/*"].contains($0.text) }
        case .units(_, let patterns): patterns.contains { $0.allSatisfy { $0 == "*" } }
        case .uids, .gids, .users, .groups, .hashes: false
        }
    }

    /// - Returns: nil if it cannot be told: then an allow rule does not match, and a deny rule does.
    func matches(_ requester: Requester, _ moment: Moment) -> Bool? {
        let process = requester.process
        switch self {
        case .uids(let numbers), .users(_, let numbers): return numbers.contains(requester.uid)
        case .gids(let numbers), .groups(_, let numbers):
            if numbers.contains(requester.gid) || process.groups.contains(where: numbers.contains) { return true }
            return requester.isForeign ? nil : false
        case .exes(let globs):
            guard let exe = process.exe else { return nil }
            let isNamed = globs.contains { $0.matches(exe.utf8) }
            // A path that may be somebody's own invention proves nothing for him, and is enough against him.
            return process.isExeVerified ? isNamed : isNamed ? nil : false
        case .hashes(let hashes):
            guard let hash = moment.hash(process) else { return nil }
            return hashes.contains(hash)
        case .units(let globs, _):
            guard !requester.isForeign else { return nil }
            guard let unit = process.unit else { return false }
            return globs.contains { $0.matches(unit) }
        case .cgroups(let globs):
            guard let cgroup = process.cgroup else { return nil }
            return globs.contains { $0.matches(cgroup.utf8) }
        case .between(let window): return window.contains(minute: moment.minuteOfDay)
        case .opensPerProcess(let limit):
            guard !requester.isForeign else { return nil }
            return moment.opens < limit
        }
    }
}

/// What a decision depends on besides who asks for what.
struct Moment {
    /// Local time.
    var minuteOfDay: Int
    /// Openings that the process had under the rule in question.
    var opens = 0
    /// The hash of a process's program; nil if it cannot be told.
    var hash: (ProcessIdentity) -> [UInt8]?

    static func now(_ hash: @escaping (ProcessIdentity) -> [UInt8]?) -> Moment {
        var seconds = time(nil)
        var local = tm()
        localtime_r(&seconds, &local)
        return Moment(minuteOfDay: Int(local.tm_hour) * 60 + Int(local.tm_min), hash: hash)
    }
}

/// A part of every day, in minutes of local time: `08:00-18:00`; past midnight if it ends before it begins.
public struct TimeWindow: Sendable, Equatable {
    let start: Int
    let end: Int

    init?(_ text: String) {
        let times = text.split(separator: "-", omittingEmptySubsequences: false)
        guard times.count == 2, let start = Self.minute(times[0]), let end = Self.minute(times[1]), start != end else {
            return nil
        }
        self.start = start
        self.end = end
    }

    /// `HH:MM`; 24:00 is the end of the day.
    public static func minute(_ text: some StringProtocol) -> Int? {
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        guard parts.count == 2, parts.allSatisfy({ $0.utf8.count == 2 && $0.utf8.allSatisfy { 48...57 ~= $0 } }),
            let hour = Int(parts[0]), let minute = Int(parts[1]), minute < 60, hour * 60 + minute <= 1440
        else { return nil }
        return hour * 60 + minute
    }

    func contains(minute: Int) -> Bool {
        start < end ? (start..<end).contains(minute) : minute >= start || minute < end
    }
}
