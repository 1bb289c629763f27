import Glibc

extension Workload {
    private static func mountTime(_ subject: Subject) throws -> Double {
        // Once before, so that what is measured is not how fast the disk reads the program.
        subject.unmount()
        try subject.mount()
        subject.unmount()
        return try duration { try subject.mount() } * 1000
    }

    static let mounting: [Workload] = [
        Workload(
            name: "mount", title: "from starting the program until the mount answers", unit: .milliseconds,
            takes: { $0.hasServer }, measure: { subject, _ in try mountTime(subject) },
            targets: [.number(100, "100 ms")]),
        Workload(
            name: "memory", title: "memory of the server after reading many small files", unit: .mebibytes,
            takes: { $0.hasServer },
            prepare: { subject, settings in
                try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
            },
            measure: { subject, settings in
                try subject.makeCold()
                var buffer = [UInt8](repeating: 0, count: smallByteCount + 1)
                for index in 0..<settings.smallCount {
                    try File.readAndCompare(
                        subject.smallFile(index, of: settings.smallCount),
                        subject.smallContents(index, byteCount: smallByteCount), &buffer)
                }
                guard let server = subject.serverID else { throw Failure("\(subject.name) has no server") }
                return try Process.residentMebibytes(server)
            }, targets: [.number(20, "20 MiB")]),
        Workload(
            name: "rotate", title: "rotate the key that protects many files", unit: .milliseconds,
            takes: { $0 is Letterlock },
            prepare: { subject, settings in
                try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
            },
            measure: { subject, _ in
                guard let letterlock = subject as? Letterlock else { return .nan }
                return try duration { try letterlock.rotate() } * 1000
            }),
    ]

    // MARK: The pause of a reader whose server is killed

    /// For each kill the longest time that a reader waits for an open, read and close, in milliseconds; sorted.
    private static func pauses(_ subject: Subject, _ settings: Settings) throws -> [Double] {
        guard let letterlock = subject as? Letterlock else { return [] }
        let path = subject.smallFile(7, of: settings.smallCount)
        let expected = subject.smallContents(7, byteCount: smallByteCount)
        var buffer = [UInt8](repeating: 0, count: smallByteCount + 1)
        return try (0..<settings.killCount).map { _ in
            try letterlock.findServer()
            try File.readAndCompare(path, expected, &buffer)
            try letterlock.killServer()
            // The first comes back when another server serves; the others show that it does so at once.
            return try (0..<10).map { _ in
                try duration { try File.readAndCompare(path, expected, &buffer) } * 1000
            }.max() ?? .nan
        }.sorted()
    }

    private static let goal = Target.number(50, "50 ms")

    static let outliving: [Workload] = [
        Workload(
            name: "pause", title: "pause of a reader when the server is killed, median of many kills",
            unit: .milliseconds, takes: { $0 is Letterlock },
            prepare: { subject, settings in
                try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
            },
            measure: { subject, settings in
                let pauses = try pauses(subject, settings)
                return pauses[pauses.count / 2]
            }, targets: [goal]),
        Workload(
            name: "pause-worst", title: "the same, the worst of them", unit: .milliseconds,
            takes: { $0 is Letterlock },
            prepare: { subject, settings in
                try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
            },
            measure: { subject, settings in try pauses(subject, settings).last ?? .nan }, targets: [goal]),
    ]

    /// With very many files; these take a while to make.
    static let many: [Workload] = [
        Workload(
            name: "many-mount", title: "from starting the program until a mount of very many files answers",
            unit: .milliseconds, takes: { $0 is Letterlock }, prepare: prepareMany,
            measure: { subject, _ in try mountTime(subject) }, targets: [.number(1000, "1 s")]),
        Workload(
            name: "many-memory", title: "memory of the server after listing very many files", unit: .mebibytes,
            takes: { $0 is Letterlock }, prepare: prepareMany,
            measure: { subject, settings in
                try subject.makeCold()
                let directory = subject.smallDirectory(of: settings.manyCount)
                guard let stream = opendir(directory) else { throw Failure.call(directory) }
                while readdir(stream) != nil {}
                closedir(stream)
                guard let server = subject.serverID else { throw Failure("\(subject.name) has no server") }
                return try Process.residentMebibytes(server)
            }, targets: [.number(40, "40 MiB")]),
    ]

    @Sendable private static func prepareMany(_ subject: Subject, _ settings: Settings) throws {
        try subject.prepareSmall(settings.manyCount, byteCount: 64)
    }

    static let all = reading + writing + mounting + outliving + many + jobs
}
