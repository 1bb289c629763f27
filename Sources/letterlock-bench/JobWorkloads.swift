import Glibc

/// Changing keys. What has no way to do it copies everything into a place with another key.
extension Workload {
    private static let fileByteCount = 4096
    /// Beside the very many files of 64 bytes.
    private static func count(_ settings: Settings) -> Int { settings.manyCount + 1 }

    static let jobs: [Workload] = [
        Workload(
            name: "rekey", title: "give many files of 4 KiB new keys and new ciphertext, or copy them all",
            unit: .milliseconds, takes: { $0 is Letterlock || $0.name == "gocryptfs" },
            prepare: { subject, settings in
                try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
            },
            measure: { subject, settings in
                let directory = subject.smallDirectory(of: settings.smallCount)
                guard let letterlock = subject as? Letterlock else { return try copyTime(directory, log: subject.log) }
                let name = directory.dropFirst(subject.path.count)
                return try duration { try letterlock.finish("reencrypt", "start path=\(name)") } * 1000
            }),
        Workload(
            name: "rewrap-many", title: "wrap the keys of all files anew; very many files' share of the time",
            unit: .milliseconds, takes: { $0.name == "letterlock" }, prepare: prepareFiles,
            measure: { subject, settings in
                guard let letterlock = subject as? Letterlock else { return .nan }
                try letterlock.rotate()
                let time = try duration { try letterlock.finish("rewrap", "start") } * 1000
                // The files of the lines before this one are there as well, and are wrapped anew with them.
                return time * Double(settings.manyCount) / Double(try letterlock.doneCount(of: "rewrap"))
            }, targets: [.number(1000, "1 s")]),
        Workload(
            name: "rotate-many", title: "rotate the key that protects very many files", unit: .milliseconds,
            takes: { $0.name == "letterlock" }, prepare: prepareFiles,
            measure: { subject, _ in
                guard let letterlock = subject as? Letterlock else { return .nan }
                return try duration { try letterlock.rotate() } * 1000
            }, targets: [.number(5, "5 ms")]),
        Workload(
            name: "reencrypt-many",
            title: "give very many files of 4 KiB new keys and new ciphertext, or copy them to a new file system",
            unit: .milliseconds, takes: { $0.name == "letterlock" || $0 is GoCryptFS }, prepare: prepareFiles,
            measure: { subject, settings in
                if let peer = subject as? GoCryptFS {
                    return try peer.copyTime(of: subject.smallDirectory(of: count(settings)))
                }
                guard let letterlock = subject as? Letterlock else { return .nan }
                let name = subject.smallDirectory(of: count(settings)).dropFirst(subject.path.count)
                return try duration { try letterlock.finish("reencrypt", "start path=\(name)") } * 1000
            }, targets: [.number(6000, "6 s")]),
        Workload(
            name: "reencrypt-large", title: "give a large file a new key and new ciphertext",
            unit: .mebibytesPerSecond, takes: { $0.name == "letterlock" },
            prepare: { subject, settings in
                guard subject.prepared.insert("huge").inserted else { return }
                _ = try LargeFile.write(
                    subject.path + "/huge", byteCount: settings.hugeByteCount, flags: O_CREAT | O_TRUNC)
            },
            measure: { subject, settings in
                guard let letterlock = subject as? Letterlock else { return .nan }
                let time = try duration { try letterlock.finish("reencrypt", "start path=/huge") }
                return Double(settings.hugeByteCount >> 20) / time
            }, targets: [.number(200, "200 MiB/s")]),
        Workload(
            name: "rewrap-p99",
            title: "99th percentile of open, read and close while very many files are rewrapped, over the idle one",
            unit: .times, takes: { $0.name == "letterlock" }, prepare: prepareFiles,
            measure: { subject, settings in
                guard let letterlock = subject as? Letterlock else { return .nan }
                let idle = try percentile(subject, settings) { false }
                try letterlock.rotate()
                try letterlock.command("rewrap", "start")
                let busy = try percentile(subject, settings) { try !letterlock.isRunning("rewrap") }
                try letterlock.wait("rewrap")
                return busy / idle
            }, targets: [.number(2, "2 ×")]),
    ]

    @Sendable private static func prepareFiles(_ subject: Subject, _ settings: Settings) throws {
        try subject.prepareSmall(count(settings), byteCount: fileByteCount)
    }

    private static func copyTime(_ directory: String, log: String) throws -> Double {
        let copy = directory + "-copy"
        defer { File.removeTree(copy) }
        return try duration { try Process.run(["cp", "-r", directory, copy], environment: [:], log: log) } * 1000
    }

    /// The 99th percentile of reading small files that differ each time, in seconds.
    private static func percentile(
        _ subject: Subject, _ settings: Settings, until hasEnded: () throws -> Bool
    ) throws -> Double {
        let count = count(settings)
        var buffer = [UInt8](repeating: 0, count: fileByteCount + 1)
        var times: [Double] = []
        for step in 0..<2000 {
            let index = (step &* 7919) % count
            let expected = subject.smallContents(index, byteCount: fileByteCount)
            times.append(
                try duration { try File.readAndCompare(subject.smallFile(index, of: count), expected, &buffer) })
            if step % 100 == 99, try hasEnded() { break }
        }
        times.sort()
        return times[times.count * 99 / 100]
    }
}

extension GoCryptFS {
    /// What it takes to change every key: another file system with keys of its own, and everything copied to it. Without
    /// the time that making and mounting it takes.
    fileprivate func copyTime(of directory: String) throws -> Double {
        let new = GoCryptFS(workspace: workspace + "-new", log: log)
        defer {
            new.unmount()
            new.remove()
        }
        try new.create()
        try new.mount()
        return try duration {
            try Process.run(["cp", "-r", directory, new.path], environment: [:], log: log)
            sync()
        } * 1000
    }
}

extension Letterlock {
    func command(_ job: String, _ command: String) throws(Failure) {
        try File.write(path + "/.letterlock/" + job, Array(command.utf8), flags: O_WRONLY)
    }

    func isRunning(_ job: String) throws(Failure) -> Bool {
        let document = String(decoding: try File.contents(path + "/.letterlock/" + job), as: UTF8.self)
        guard document.contains("\"failed\":0,") else { throw Failure("\(job) failed on some files: \(document)") }
        return document.hasPrefix("{\"state\":\"running\"")
    }

    /// Files done by a job that has ended.
    func doneCount(of job: String) throws(Failure) -> Int {
        let document = String(decoding: try File.contents(path + "/.letterlock/" + job), as: UTF8.self)
        let field = document.split(separator: ",").first { $0.hasPrefix("\"done\":") }
        guard let count = field.flatMap({ Int($0.drop { !$0.isNumber }) }), count > 0 else {
            throw Failure("\(job) has done nothing: \(document)")
        }
        return count
    }

    func wait(_ job: String) throws(Failure) {
        while try isRunning(job) { usleep(2000) }
    }

    /// Begins a job and waits for its end.
    func finish(_ job: String, _ start: String) throws(Failure) {
        try command(job, start)
        try wait(job)
    }
}
