import Access
import Fuse
import Glibc
import Keyring

/// Something that happened to a keyring, as those who follow it are told: a line of JSON.
struct Event {
    enum Kind: String {
        case serverStarted = "server_started"
        case serverRestarted = "server_restarted"
        case valueChanged = "value_changed"
        case removed, rotated, revoked, denied, tampered, locked, unlocked
        case keyState = "key_state"
        case jobDone = "job_done"
        case jobFailed = "job_failed"
        case policyReplaced = "policy_replaced"
        case hooksReplaced = "hooks_replaced"
        case hookDone = "hook_done"
        case hookFailed = "hook_failed"
    }

    let kind: Kind
    private(set) var members: [(String, JSON)] = []

    init(_ kind: Kind) { self.kind = kind }

    mutating func add(_ name: String, _ value: JSON?) {
        if let value { members.append((name, value)) }
    }

    /// No path of PATH_MAX bytes is cut.
    private static let pathLimit = Int(PATH_MAX)

    mutating func add(_ name: String, path: [UInt8]?) {
        guard let path else { return }
        let part = path.prefix(Self.pathLimit)
        add(name, .text(String(decoding: part, as: UTF8.self)))
        if String(validating: part, as: UTF8.self) == nil {
            let digits = Array("0123456789abcdef")
            add(name + "_bytes", .text(String(part.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })))
        }
        if part.count < path.count { add(name + "_cut", .bool(true)) }
    }

    mutating func add(_ requester: Requester) {
        add("uid", .number(Int(requester.uid)))
        add("pid", .number(Int(requester.process.pid)))
        add("exe", requester.process.exe.map { .text($0) })
        add("unit", requester.process.unit.map { .text($0) })
    }

    /// Of whoever is in the middle of a close(2), nothing is looked up.
    mutating func add(_ caller: Caller?) {
        guard let caller else { return }
        add("uid", .number(Int(caller.uid)))
        add("pid", .number(Int(caller.pid)))
    }

    /// - Parameter number: counts lines from 1.
    func line(_ number: UInt64) -> String {
        var time = timespec()
        clock_gettime(CLOCK_REALTIME, &time)
        let seconds = Timestamp(seconds: Int64(time.tv_sec), nanoseconds: 0).rfc3339.dropLast()
        let micros = String(time.tv_nsec / 1000)
        let fraction = String(repeating: "0", count: 6 - micros.count) + micros
        let all: [(String, JSON)] = [
            ("seq", .number(Int(clamping: number))), ("time", .text("\(seconds).\(fraction)Z")),
            ("event", .text(kind.rawValue)),
        ]
        return JSON.object(all + members).line
    }
}
