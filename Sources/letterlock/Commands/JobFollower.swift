import Glibc

/// Waits for the end of a job: on a terminal one line that is drawn anew, else a line now and then.
struct JobFollower {
    let control: Control
    let job: String
    let isQuiet: Bool

    private static let pause: UInt32 = 100_000
    private static let secondsBeforeLines = 1.0
    private static let secondsBetweenLines = 10.0

    func wait() throws(Failure) {
        let isTerminal = !isQuiet && isatty(STDERR_FILENO) == 1
        let start = Self.now
        var first: Int?
        var nextLine = start + Self.secondsBeforeLines
        while true {
            let progress = try progress()
            let (done, total) = (progress["done"].integer ?? 0, progress["total"].integer ?? 0)
            let failed = progress["failed"].integer ?? 0
            let begun = first ?? done
            first = begun
            let state = progress["state"].words
            guard state == "running" else {
                if isTerminal { Output.write("\r\u{1B}[K", to: STDERR_FILENO) }
                return try end(state, done, failed)
            }
            let bar = ProgressBar(
                title: job, done: done + failed, total: total, gained: done - begun, seconds: Self.now - start,
                obstacle: progress["waits_for"].string)
            if isTerminal {
                let line = bar.line(columns: ProgressBar.columns(of: STDERR_FILENO))
                Output.write("\r\u{1B}[K" + line, to: STDERR_FILENO)
            } else if !isQuiet, Self.now >= nextLine {
                Output.line(
                    "\(job): \(done) of \(total) files, "
                        + (bar.obstacle.map { "waiting: \(Output.printable($0))" } ?? "\(Int(bar.rate)) a second"))
                nextLine = Self.now + Self.secondsBetweenLines
            }
            usleep(Self.pause)
        }
    }

    /// What `revoke` reads as is long: `status` has what is looked for here.
    private func progress() throws(Failure) -> JSON {
        guard job == "revoke" else { return try control.json(job) }
        return try control.json("status")["jobs"].elements.first { $0["kind"].words == job } ?? .null
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

    private static var now: Double {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
    }
}
