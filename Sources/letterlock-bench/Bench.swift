import ArgumentParser
import Glibc

@main
struct Bench: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "letterlock-bench",
        abstract: "Measure Letterlock beside other encrypted file systems, a do-nothing one, and the disk.",
        discussion: """
            All of them are mounted at the same time and measured in turn, round by round; what is told is the \
            median. Every byte that is read is compared. Lines about small files are taken twice: as the \
            scheduler likes, and with client and server on one core, where figures repeat. Measured are:

            \(Workload.all.map { "  \($0.name): \($0.title)" }.joined(separator: "\n"))
            """)

    @Option(help: "Measure this line alone; may be given again.")
    var only: [String] = []

    @Flag(help: "Small and short, to see that everything works; the figures mean little.")
    var quick = false

    @Flag(help: "Without the lines about very many files, which take a while to make.")
    var withoutMany = false

    @Flag(help: "All figures, as JSON.")
    var json = false

    @Flag(help: "A table in Markdown.")
    var markdown = false

    @Option(help: "How often each is measured.")
    var rounds: Int?

    @Option(help: "A directory on a disk, to make the stores in.", completion: .directory)
    var workspace = "/var/tmp"

    @Option(help: "The program to measure; what was built beside this one if not given.", completion: .file())
    var letterlock: String?

    @Argument(help: "Further directories to measure, on file systems that are mounted already.", completion: .directory)
    var directories: [String] = []

    func validate() throws {
        for name in only where !Workload.all.contains(where: { $0.name == name }) {
            throw ValidationError("there is no line '\(name)'")
        }
        if let rounds, rounds < 1 { throw ValidationError("at least one round is needed") }
    }

    func run() throws {
        var settings = quick ? Settings.quick : Settings()
        if let rounds { settings.rounds = rounds }
        let chosen = Workload.all.filter { workload in
            only.isEmpty
                ? !(withoutMany && (Workload.many + Workload.jobs).contains { $0.name == workload.name })
                : only.contains(workload.name)
        }
        Interruption.collect()
        // A reader that has read enough must not leave mounts behind.
        signal(SIGPIPE, SIG_IGN)
        let stage = try Stage(
            in: workspace, program: try program("letterlock", letterlock), alone: try? program("serve-alone", nil),
            limit: try? program("fuse-limit", nil), directories: directories)
        defer { stage.close() }
        try stage.open(say)
        var report = Report(subjects: stage.subjects.map(\.name), facts: facts(settings))
        for workload in chosen {
            for line in try measure(workload, on: stage.subjects, settings) {
                if !json, !markdown { print(Report.block(line, subjects: report.subjects)) }
                report.add(line)
            }
        }
        if json { print(report.json) }
        if markdown { print(report.markdown, terminator: "") }
    }

    private func measure(_ workload: Workload, on subjects: [Subject], _ settings: Settings) throws -> [Report.Line] {
        var lines = (workload.isPinned ? [false, true] : [false]).map { Report.Line(workload: workload, isPinned: $0) }
        var taking = subjects.filter { workload.takes($0) && (workload.takesVariants || !$0.isVariant) }
        for round in 0..<settings.rounds {
            for subject in taking {
                do {
                    if round == 0 { try workload.prepare(subject, settings) }
                    for index in lines.indices {
                        try Interruption.check()
                        let pinned = [getpid()] + (subject.serverID.map { [$0] } ?? [])
                        if lines[index].isPinned { Pinning.pin(pinned) }
                        defer { if lines[index].isPinned { Pinning.release(pinned) } }
                        lines[index].figures[subject.name, default: []].append(try workload.measure(subject, settings))
                    }
                } catch let failure as Failure {
                    // One that fails is told, and takes part in this line no longer.
                    if subject is Letterlock { throw failure }
                    say("\(workload.name): without \(subject.name): \(failure)")
                    taking.removeAll { $0 === subject }
                }
            }
        }
        return lines
    }

    private func program(_ name: String, _ given: String?) throws(Failure) -> String {
        if let given { return given }
        var own = [CChar](repeating: 0, count: 4096)
        let count = try check(readlink("/proc/self/exe", &own, own.count - 1), "/proc/self/exe")
        var path = String(decoding: own[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
        path = path[..<(path.lastIndex(of: "/") ?? path.startIndex)] + "/" + name
        guard access(path, X_OK) == 0 else { throw Failure("\(path) is not there: build it first") }
        return path
    }

    private func facts(_ settings: Settings) -> [(name: String, value: String)] {
        var system = utsname()
        uname(&system)
        let kernel = withUnsafeBytes(of: &system.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
        let processors = sysconf(Int32(_SC_NPROCESSORS_ONLN))
        let model = (try? File.contents("/proc/cpuinfo")).map { String(decoding: $0, as: UTF8.self) }?
            .split(separator: "\n").first { $0.hasPrefix("model name") }?.split(separator: ":").last?.drop { $0 == " " }
        var date = [CChar](repeating: 0, count: 32)
        var seconds = time(nil)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        strftime(&date, date.count, "%Y-%m-%d", &parts)
        let day = String(decoding: date.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
        return [
            ("date", day), ("kernel", kernel), ("processors", "\(processors) × \(model ?? "unknown")"),
            ("rounds", "\(settings.rounds)"), ("small files", "\(settings.smallCount)"),
            ("large file", "\(settings.largeByteCount >> 20) MiB"),
        ]
    }

    private func say(_ text: String) {
        let line = Array("letterlock-bench: \(text)\n".utf8)
        _ = write(STDERR_FILENO, line, line.count)
    }
}

/// SIGINT and SIGTERM are taken between two measurements, so that everything is unmounted.
enum Interruption {
    private static var watched: sigset_t {
        var signals = sigset_t()
        sigemptyset(&signals)
        for signal in [SIGINT, SIGTERM, SIGHUP] { sigaddset(&signals, signal) }
        return signals
    }

    static func collect() {
        var signals = watched
        sigprocmask(SIG_BLOCK, &signals, nil)
    }

    static func check() throws(Failure) {
        var signals = watched
        var none = timespec()
        guard sigtimedwait(&signals, nil, &none) < 0 else { throw Failure("interrupted") }
    }
}
