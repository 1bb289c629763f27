import ArgumentParser
import Glibc
import Keyring

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
            re-encrypted, flagged in user.letterlock.needs_regeneration until their value changes. Pausing or cancelling \
            that leaves the version compromised, and what is not re-encrypted refused.
            """)

    @OptionGroup var target: VersionArguments

    @Option(help: ArgumentHelp("Why; it stands in the listing of versions.", valueName: "TEXT"))
    var reason: String?
    @OptionGroup var following: FollowOptions
    @OptionGroup var holding: HoldOptions

    @Flag(help: "Say which files it would concern, and do nothing.")
    var dryRun = false

    func validate() throws { try holding.validate(besides: dryRun) }

    func run() throws {
        if holding.isAsked { return try holding.run("revoke", following, on: try target.resolveMount()) }
        let (control, version) = try target.resolve()
        guard let reason, !reason.isEmpty, !reason.contains("\n") else {
            throw Failure("a reason is one line of text", hint: "--reason TEXT", code: .usage)
        }
        if dryRun {
            return try foretell(control, version, reason)
        }
        try control.write("\(version) \(reason)", to: "revoke", about: version)
        if !following.json { Output.line("KEK version \(version) is compromised: files under it cannot be read") }
        try following.follow("revoke", on: control)
    }

    private func foretell(_ control: Control, _ version: UInt32, _ reason: String) throws(Failure) {
        guard try control.json("revoke")["state"].words != "running" else {
            throw control.explain(EALREADY, reading: false, "revoke", version)
        }
        let change = KeyChange(file: "state") { lifecycle, version, _ throws(LifecycleError) in
            if lifecycle.primary == version { try lifecycle.rotate(now: .now()) }
            try lifecycle.compromise(version, reason: reason, now: .now())
        }
        let files = try change.foretell(control, version).files
        var paths = String(decoding: try control.read("keys/\(version)/paths"), as: UTF8.self)
            .split(separator: "\0").map(String.init)
        paths.sort()
        guard !following.json else {
            let names = paths.map(JSON.quoted).joined(separator: ",")
            return Output.line(
                "{\"job\":\"revoke\",\"version\":\(version),\"files\":\(files),\"paths\":[\(names)]}")
        }
        Output.line("KEK version \(version) would be compromised and \(files) files re-encrypted")
        for path in paths { Output.line(Output.printable(path)) }
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

/// What is done with a job that was begun before.
struct HoldOptions: ParsableArguments {
    @Flag(help: "Hold the job that is running.")
    var pause = false

    @Flag(help: "Go on with the job that was held.")
    var resume = false

    @Flag(help: "End the job; what is done stays done.")
    var cancel = false

    var isAsked: Bool { pause || resume || cancel }

    func validate(besides dryRun: Bool) throws {
        guard [pause, resume, cancel, dryRun].filter({ $0 }).count <= 1 else {
            throw ValidationError("only one of --pause, --resume, --cancel and --dry-run")
        }
    }

    func run(_ job: String, _ following: FollowOptions, on control: Control) throws(Failure) {
        try control.write(pause ? "pause" : resume ? "resume" : "cancel", to: job)
        if resume { return try following.follow(job, on: control) }
        Output.line(following.json ? try control.text(job) : "the job is \(pause ? "paused" : "cancelled")")
    }
}

/// What `rewrap` and `reencrypt` have besides.
struct JobOptions: ParsableArguments {
    @OptionGroup var following: FollowOptions

    @Option(help: ArgumentHelp("Only what this version protects.", valueName: "N"))
    var from: UInt32?

    @OptionGroup var holding: HoldOptions

    @Flag(help: "Say how many files it would concern, and do nothing.")
    var dryRun = false

    func validate() throws { try holding.validate(besides: dryRun) }

    func run(_ job: String, on control: Control, path: String? = nil) throws(Failure) {
        if dryRun { return try foretell(job, control, path) }
        if holding.isAsked { return try holding.run(job, following, on: control) }
        if from != nil, path != nil { throw Failure("--from and a path do not go together", code: .usage) }
        let what = from.map { " from=\($0)" } ?? path.map { " path=\($0)" } ?? ""
        try control.write("start" + what, to: job, about: from)
        try following.follow(job, on: control)
    }

    private func foretell(_ job: String, _ control: Control, _ path: String?) throws(Failure) {
        var count = 0
        if let path {
            count = try Self.fileCount(below: control.mountpoint + (path.hasPrefix("/") ? "" : "/") + path)
            return Output.line(
                following.json
                    ? "{\"job\":\"\(job)\",\"files\":\(count)}" : "\(job) would go through \(count) files")
        }
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

    /// Regular files in a directory and all below it, or the one file itself.
    private static func fileCount(below path: String) throws(Failure) -> Int {
        var status = stat()
        guard lstat(path, &status) == 0 else { throw Failure(path, errno: errno) }
        if status.st_mode & S_IFMT == S_IFREG { return 1 }
        guard status.st_mode & S_IFMT == S_IFDIR else { return 0 }
        guard let directory = opendir(path) else { throw Failure(path, errno: errno) }
        defer { closedir(directory) }
        var count = 0
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            switch Int32(entry.pointee.d_type) {
            case Int32(DT_REG): count += 1
            case Int32(DT_DIR) where name != "." && name != "..": count += try fileCount(below: path + "/" + name)
            default: break
            }
        }
        return count
    }
}
