import Glibc

extension Workload {
    private static let valueByteCount = 64

    private static func value(_ number: Int) -> [UInt8] {
        var value = [UInt8](repeating: 0x76, count: valueByteCount)
        withUnsafeBytes(of: UInt64(number)) { for offset in 0..<8 { value[offset] = $0[offset] } }
        return value
    }

    private static func created(_ subject: Subject, _ number: Int) -> String { "\(subject.path)/created/f\(number)" }

    private static func makeFiles(_ subject: Subject, _ settings: Settings) throws -> Double {
        if mkdir(subject.path + "/created", 0o700) != 0, errno != EEXIST { throw Failure.call(subject.path) }
        let elapsed = try duration {
            for number in 0..<settings.createCount { try File.write(created(subject, number), value(number)) }
        }
        return Double(settings.createCount) / elapsed
    }

    private static func removeFiles(_ subject: Subject, _ settings: Settings) throws -> Double {
        let elapsed = try duration {
            for number in 0..<settings.createCount {
                try check(unlink(created(subject, number)), created(subject, number))
            }
        }
        return Double(settings.createCount) / elapsed
    }

    static let writing: [Workload] = [
        Workload(
            name: "create", title: "create, write and close files of 64 B", unit: .perSecond, isPinned: true,
            measure: { subject, settings in
                defer { _ = try? removeFiles(subject, settings) }
                let rate = try makeFiles(subject, settings)
                for number in 0..<settings.createCount {
                    guard try File.contents(created(subject, number)) == value(number) else {
                        throw Failure("\(created(subject, number)) reads as something else than was written")
                    }
                }
                return rate
            }),
        Workload(
            name: "unlink", title: "unlink them", unit: .perSecond, isPinned: true,
            measure: { subject, settings in
                _ = try makeFiles(subject, settings)
                return try removeFiles(subject, settings)
            }),
        Workload(
            name: "replace", title: "replace a value of 64 B: open with O_TRUNC, write, close", unit: .perSecond,
            isPinned: true,
            measure: { subject, settings in
                let path = subject.path + "/replaced"
                var last = 0
                let result = try rate(seconds: settings.seconds) { number in
                    try File.write(path, value(number))
                    last = number
                }
                guard try File.contents(path) == value(last) else { throw Failure("\(path) lost its last value") }
                return result
            }),
        Workload(
            name: "write", title: "write a large file (O_TRUNC) with fsync", unit: .mebibytesPerSecond,
            measure: { subject, settings in
                try LargeFile.write(
                    subject.largeFile, byteCount: settings.largeByteCount, flags: O_CREAT | O_TRUNC)
            }),
        Workload(
            name: "overwrite", title: "write over a large file in place with fsync", unit: .mebibytesPerSecond,
            prepare: { subject, settings in try subject.prepareLarge(byteCount: settings.largeByteCount) },
            measure: { subject, settings in
                try LargeFile.write(subject.largeFile, byteCount: settings.largeByteCount, flags: 0)
            }),
        Workload(
            name: "large-read-cold", title: "read a large file, nothing cached", unit: .mebibytesPerSecond,
            takes: { $0.hasCold },
            prepare: { subject, settings in try subject.prepareLarge(byteCount: settings.largeByteCount) },
            measure: { subject, settings in
                try subject.makeCold()
                return try LargeFile.read(
                    subject.largeFile, byteCount: settings.largeByteCount, contents: subject.largeContents)
            }),
        Workload(
            name: "large-read-warm", title: "read a large file, warm", unit: .mebibytesPerSecond,
            takes: { _ in true },
            prepare: { subject, settings in
                try subject.prepareLarge(byteCount: settings.largeByteCount)
                _ = try LargeFile.read(
                    subject.largeFile, byteCount: settings.largeByteCount, contents: subject.largeContents)
            },
            measure: { subject, settings in
                try LargeFile.read(
                    subject.largeFile, byteCount: settings.largeByteCount, contents: subject.largeContents)
            }),
        Workload(
            name: "random-write", title: "write 4 KiB at random places, fsync at the end", unit: .perSecond,
            prepare: { subject, settings in
                guard subject.prepared.insert("random").inserted else { return }
                _ = try LargeFile.write(
                    subject.path + "/random", byteCount: settings.randomByteCount, flags: O_CREAT | O_TRUNC)
            },
            measure: { subject, settings in
                let path = subject.path + "/random"
                let descriptor = try check(open(path, O_RDWR | O_CLOEXEC), path)
                defer { close(descriptor) }
                var shuffle = Shuffle()
                let bytes = [UInt8](repeating: 0x72, count: 4096)
                var last = 0
                let elapsed = try duration {
                    for _ in 0..<settings.randomWriteCount {
                        last = shuffle.next(below: settings.randomByteCount / 4096) * 4096
                        try check(pwrite(descriptor, bytes, bytes.count, last), path)
                    }
                    try check(fsync(descriptor), path)
                }
                var buffer = [UInt8](repeating: 0, count: 4096)
                guard pread(descriptor, &buffer, 4096, last) == 4096, buffer == bytes else {
                    throw Failure("\(path) lost its last write")
                }
                return Double(settings.randomWriteCount) / elapsed
            }),
    ]
}
