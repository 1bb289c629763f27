import Glibc

extension Workload {
    static let smallByteCount = 4096

    @Sendable private static func prepareSmall(_ subject: Subject, _ settings: Settings) throws {
        try subject.prepareSmall(settings.smallCount, byteCount: smallByteCount)
    }

    /// Small files in a random order, each byte compared.
    @Sendable private static func readAll(_ subject: Subject, _ settings: Settings) throws -> Double {
        var shuffle = Shuffle()
        let order = shuffle.order(settings.smallCount)
        var buffer = [UInt8](repeating: 0, count: smallByteCount + 1)
        let elapsed = try duration {
            for index in order {
                try File.readAndCompare(
                    subject.smallFile(index, of: settings.smallCount),
                    subject.smallContents(index, byteCount: smallByteCount), &buffer)
            }
        }
        return Double(order.count) / elapsed
    }

    /// readdir(3) and lstat(2) of each entry, as `ls -l` does; entries a second.
    private static func list(_ directory: String, expecting count: Int) throws -> Double {
        var seen = 0
        let elapsed = try duration {
            guard let stream = opendir(directory) else { throw Failure.call(directory) }
            defer { closedir(stream) }
            var attributes = stat()
            while let entry = readdir(stream) {
                let result = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) {
                        fstatat(dirfd(stream), $0, &attributes, AT_SYMLINK_NOFOLLOW)
                    }
                }
                try check(result, directory)
                seen += 1
            }
        }
        guard seen == count + 2 else { throw Failure("\(directory) lists \(seen) entries, not \(count + 2)") }
        return Double(count) / elapsed
    }

    static let reading: [Workload] = [
        Workload(
            name: "hot-read", title: "open, read and close one hot file of 4 KiB", unit: .perSecond, isPinned: true,
            takesVariants: true, takes: { _ in true }, prepare: prepareSmall,
            measure: { subject, settings in
                let path = subject.smallFile(7, of: settings.smallCount)
                let expected = subject.smallContents(7, byteCount: smallByteCount)
                var buffer = [UInt8](repeating: 0, count: smallByteCount + 1)
                try File.readAndCompare(path, expected, &buffer)
                return try rate(seconds: settings.seconds) { _ in try File.readAndCompare(path, expected, &buffer) }
            },
            targets: [
                .share(0.9, of: "fuse-limit"), .share(0.9, of: "fuse-limit", pinned: true),
                .number(30_000, "30,000/s", of: "letterlock cache=none", pinned: true),
                .share(0.95, of: "without guardian", by: "letterlock audit=off", pinned: true),
                .share(0.8, of: "letterlock audit=off", pinned: true),
            ]),
        Workload(
            name: "warm-read", title: "open, read and close many files of 4 KiB at random, warm", unit: .perSecond,
            isPinned: true, takesVariants: true, takes: { _ in true },
            prepare: { subject, settings in
                try prepareSmall(subject, settings)
                _ = try readAll(subject, settings)
            }, measure: readAll, targets: [.share(0.9, of: "fuse-limit"), .share(0.9, of: "fuse-limit", pinned: true)]),
        Workload(
            name: "cold-read", title: "the same after a new mount, nothing cached", unit: .perSecond,
            takes: { $0.hasCold }, prepare: prepareSmall,
            measure: { subject, settings in
                try subject.makeCold()
                return try readAll(subject, settings)
            }, targets: [.ahead(of: "ext4")]),
        Workload(
            name: "stat", title: "stat of many files at random, warm", unit: .perSecond, isPinned: true,
            takes: { _ in true }, prepare: prepareSmall,
            measure: { subject, settings in
                var shuffle = Shuffle()
                let paths = shuffle.order(settings.smallCount).map { subject.smallFile($0, of: settings.smallCount) }
                var attributes = stat()
                let elapsed = try duration { for path in paths { try check(stat(path, &attributes), path) } }
                return Double(paths.count) / elapsed
            }),
        Workload(
            name: "list-warm", title: "ls -l of a large directory, warm; entries", unit: .perSecond,
            takes: { _ in true },
            prepare: { subject, settings in
                try prepareSmall(subject, settings)
                _ = try list(subject.smallDirectory(of: settings.smallCount), expecting: settings.smallCount)
            },
            measure: { subject, settings in
                try list(subject.smallDirectory(of: settings.smallCount), expecting: settings.smallCount)
            }),
        Workload(
            name: "list-cold", title: "the same after a new mount, nothing cached; entries", unit: .perSecond,
            takes: { $0.hasCold }, prepare: prepareSmall,
            measure: { subject, settings in
                try subject.makeCold()
                return try list(subject.smallDirectory(of: settings.smallCount), expecting: settings.smallCount)
            }),
    ]
}
