import ArgumentParser
import Glibc

struct Rewrap: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Wrap every file's key under the primary version, in the background.",
        discussion:
            "Contents are not touched. It does not help against somebody who knows a file's key: see 'reencrypt'.")

    @Argument(help: "Where the keyring is mounted.", completion: .directory)
    var mountpoint: String
    @OptionGroup var options: JobOptions

    func run() throws {
        try options.run("rewrap", on: try Control(at: mountpoint))
    }
}

struct Reencrypt: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Give every file a new key and new ciphertext, in the background.",
        discussion: "Values, times and inode numbers stay; the old ciphertext is cleared from the store.")

    @Argument(
        help: ArgumentHelp(
            "Where the keyring is mounted, and what of it: a file, or a directory with all below it.",
            valueName: "MOUNTPOINT [PATH]"),
        completion: .directory)
    var words: [String]
    @OptionGroup var options: JobOptions

    func run() throws {
        let (control, path) = try target()
        try options.run("reencrypt", on: control, path: path)
    }

    /// The mount, and the path in it; nil for everything.
    private func target() throws(Failure) -> (Control, String?) {
        guard let first = words.first, words.count <= 2 else {
            throw Failure("too many arguments", hint: "letterlock reencrypt MOUNTPOINT [PATH]", code: .usage)
        }
        if words.count == 1 {
            if Control.ifMounted(at: first) == nil, case .success(let path) = Paths.resolved(first),
                let place = MountTable().letterlocks.map(\.mountpoint).last(where: { Paths.contains($0, path) })
            {
                return (try Control(at: place), String(path.dropFirst(place.count)))
            }
            return (try Control(at: first), nil)
        }
        let control = try Control(at: first)
        let path = words[1]
        let isInside = path.hasPrefix("/") && Paths.contains(control.mountpoint, path)
        return (control, isInside ? String(path.dropFirst(control.mountpoint.count)) : path)
    }
}

struct Revoke: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Refuse at once what a version protects, and re-encrypt it in the background.",
        discussion: """
            For a version that others may know. If it is the primary there is a new one. Files read again as they are \
            re-encrypted, flagged in user.letterlock.needs_regeneration until their value changes.
            """)

    @OptionGroup var target: VersionArguments

    @Option(help: ArgumentHelp("Why; it stands in the listing of versions.", valueName: "TEXT"))
    var reason: String
    @OptionGroup var following: FollowOptions

    @Flag(help: "Say which files it would concern, and do nothing.")
    var dryRun = false

    func run() throws {
        let (control, version) = try target.resolve()
        guard !reason.isEmpty, !reason.contains("\n") else {
            throw Failure("a reason is one line of text", code: .usage)
        }
        if dryRun {
            let files = try control.text("keys/\(version)/files")
            if following.json {
                return Output.line("{\"job\":\"revoke\",\"version\":\(version),\"files\":\(files)}")
            }
            Output.line("KEK version \(version) would be compromised and \(files) files re-encrypted")
            var paths = String(decoding: try control.read("keys/\(version)/paths"), as: UTF8.self)
                .split(separator: "\0").map(String.init)
            paths.sort()
            for path in paths { Output.line(Output.printable(path)) }
            return
        }
        try control.write("\(version) \(reason)", to: "revoke", about: version)
        if !following.json { Output.line("KEK version \(version) is compromised: files under it cannot be read") }
        try following.follow("revoke", on: control)
    }
}

/// What all commands have that begin a job.
struct FollowOptions: ParsableArguments {
    @Flag(help: "Wait for the end of the job, and tell how far it is. Ctrl-C ends the waiting, not the job.")
    var wait = false

    @Flag(help: "Tell about the job as JSON.")
    var json = false

    func follow(_ job: String, on control: Control) throws(Failure) {
        var problem: Failure?
        if wait {
            do throws(Failure) { try JobFollower(control: control, job: job, isQuiet: json).wait() } catch {
                problem = error
            }
        } else if !json {
            Output.line("the job goes on in the background; see 'letterlock status \(control.mountpoint)'")
        }
        if json { Output.line(try control.text(job)) }
        if let problem { throw problem }
    }
}

/// What `rewrap` and `reencrypt` have besides.
struct JobOptions: ParsableArguments {
    @OptionGroup var following: FollowOptions

    @Option(help: ArgumentHelp("Only what this version protects.", valueName: "N"))
    var from: UInt32?

    @Flag(help: "Say how many files it would concern, and do nothing.")
    var dryRun = false

    @Flag(help: "Hold the job that is running.")
    var pause = false

    @Flag(help: "Go on with the job that was held.")
    var resume = false

    @Flag(help: "End the job; what is done stays done.")
    var cancel = false

    func validate() throws {
        guard [pause, resume, cancel, dryRun].filter({ $0 }).count <= 1 else {
            throw ValidationError("only one of --pause, --resume, --cancel and --dry-run")
        }
    }

    func run(_ job: String, on control: Control, path: String? = nil) throws(Failure) {
        if dryRun { return try foretell(job, control, path) }
        if pause || cancel {
            try control.write(pause ? "pause" : "cancel", to: job)
            return Output.line(following.json ? try control.text(job) : "the job is \(pause ? "paused" : "cancelled")")
        }
        if resume {
            try control.write("resume", to: job)
        } else {
            if from != nil, path != nil { throw Failure("--from and a path do not go together", code: .usage) }
            let what = from.map { " from=\($0)" } ?? path.map { " path=\($0)" } ?? ""
            try control.write("start" + what, to: job, about: from)
        }
        try following.follow(job, on: control)
    }

    private func foretell(_ job: String, _ control: Control, _ path: String?) throws(Failure) {
        if let path {
            return Output.line(
                following.json
                    ? "{\"job\":\"\(job)\",\"files\":null}"
                    : "\(job) would go through what lies below \(Output.printable(path))")
        }
        var count = 0
        for version in try control.json("keys/list").elements {
            let state = version["state"].words
            guard from == nil || version["version"].integer == from.map(Int.init),
                ["enabled", "decrypt-only"].contains(state)
                    || job == "reencrypt" && ["primary", "compromised"].contains(state)
            else { continue }
            count += version["files"].integer ?? 0
        }
        Output.line(
            following.json
                ? "{\"job\":\"\(job)\",\"files\":\(count)}" : "\(job) would go through \(count) files")
    }
}

/// Waits for the end of a job: on a terminal one line that is drawn anew, else a line now and then.
struct JobFollower {
    let control: Control
    let job: String
    let isQuiet: Bool

    private static let pause: UInt32 = 100_000
    private static let secondsBetweenLines = 10.0

    func wait() throws(Failure) {
        let isTerminal = !isQuiet && isatty(STDERR_FILENO) == 1
        let start = Self.now
        var first: Int?
        var nextLine = start + Self.secondsBetweenLines
        while true {
            let progress = try control.json(job)
            let place =
                job == "revoke" ? progress["steps"].elements.first { $0["step"].words == "reencrypt" } : progress
            let (done, total) = (place?["done"].integer ?? 0, place?["total"].integer ?? 0)
            let failed = place?["failed"].integer ?? 0
            let begun = first ?? done
            first = begun
            let state = progress["state"].words
            let obstacle: String? = if case .text(let text) = progress["waits_for"] { text } else { nil }
            let rate = Double(done - begun) / max(Self.now - start, 0.001)
            if state != "running" {
                if isTerminal { Output.write("\r\u{1B}[K", to: STDERR_FILENO) }
                return try end(state, done, failed)
            }
            if isTerminal {
                Output.write("\r\u{1B}[K" + bar(done + failed, total, rate, obstacle), to: STDERR_FILENO)
            } else if !isQuiet, Self.now >= nextLine {
                Output.line(
                    "\(job): \(done) of \(total) files, "
                        + (obstacle.map { "waiting: \(Output.printable($0))" } ?? "\(Int(rate)) a second"))
                nextLine = Self.now + Self.secondsBetweenLines
            }
            usleep(Self.pause)
        }
    }

    private func end(_ state: String, _ done: Int, _ failed: Int) throws(Failure) {
        switch state {
        case "done" where failed == 0:
            if !isQuiet { Output.line("\(job): \(done) files done") }
        case "done":
            throw Failure(
                "\(job): \(done) files done, \(failed) failed",
                hint: "'letterlock status \(control.mountpoint)' names the problems")
        case "paused":
            throw Failure("\(job): the job is paused", hint: "go on with --resume", code: .busy)
        default:
            throw Failure("\(job): the job was \(state)", hint: "\(done) files are done and stay so")
        }
    }

    private func bar(_ done: Int, _ total: Int, _ rate: Double, _ obstacle: String?) -> String {
        let width = 30
        let share = total > 0 ? min(1, Double(done) / Double(total)) : 0
        let full = Int(share * Double(width))
        let bar = String(repeating: "#", count: full) + String(repeating: "-", count: width - full)
        let left =
            if let obstacle {
                "waiting: \(Output.printable(obstacle))"
            } else if done >= total {
                "erasing what is old"
            } else {
                rate > 0 ? "\(Int((Double(total - done) / rate).rounded(.up))) s left" : ""
            }
        return "\(job) [\(bar)] \(Int(share * 100)) %  \(done)/\(total)  \(Int(rate))/s  \(left)"
    }

    private static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
