import Glibc

/// The applications of a soak.
enum Soak {
    static func everybody(on mounted: Mounted, hasMappedWrites: Bool) throws -> [Application] {
        let path = mounted.path
        try put(Replacer.value(0), path + "/value")
        // The one that starts a program first: the program would hold what the others close.
        var everybody = [
            StreamFollower(path), NameJuggler(path), Appender(path), Replacer(path), WholeReader(path),
            SlowReader(path), HoldingReader(path),
            SlowReplacer(path), Lister(path), OrphanKeeper(path), Locker(path), Rotator(path), Watcher(path),
            AttributeSetter(path), PlaceWriter(path),
        ]
        if hasMappedWrites { everybody.append(Mapper(path)) }
        return everybody
    }
}

/// Makes, renames, links and removes; each of it has to be done once.
private final class NameJuggler: Application {
    override func act(_ round: Int) throws {
        let directory = "\(path)/d\(round)"
        try check(mkdir(directory, 0o700))
        let file = try OpenFile(directory + "/x", O_WRONLY | O_CREAT | O_EXCL)
        try file.write("abc")
        try file.close()
        try check(rename(directory + "/x", directory + "/y"))
        try check(link(directory + "/y", directory + "/z"))
        try check(symlink("z", directory + "/s"))
        try require(try text(directory + "/s") == "abc", "a link reads wrong")
        for name in ["y", "z", "s"] { try check(unlink(directory + "/" + name)) }
        try check(rmdir(directory))
    }
}

/// Appends lines, none of which may be missing or there twice.
private final class Appender: Application {
    private var expected = ""

    override func act(_ round: Int) throws {
        let file = try OpenFile(path + "/log", O_WRONLY | O_CREAT | O_APPEND)
        for part in ["\(100_000 + round)", ":\(round)\n"] {
            try file.write(part)
            expected += part
        }
        try file.close()
        if round % 10 == 0 { try finish() }
    }

    override func finish() throws {
        let found = try text(path + "/log")
        try require(found == expected, "\(found.utf8.count) bytes appended and not \(expected.utf8.count)")
    }
}

/// Replaces a value, in parts.
private final class Replacer: Application {
    static func value(_ round: Int) -> [UInt8] { [UInt8](repeating: UInt8(round % 250) + 1, count: 5000) }

    override func act(_ round: Int) throws {
        let file = try OpenFile(path + "/value", O_WRONLY | O_TRUNC)
        for part in 0..<5 { try file.write(Array(Self.value(round)[part * 1000..<part * 1000 + 1000])) }
        try file.close()
    }
}

private class ValueReader: Application {
    func judge(_ value: [UInt8]) throws {
        try require(value.count == 5000 && Set(value).count == 1, "a torn value: \(value.count) of \(Set(value))")
    }
}

/// Opens, reads and closes the value that is being replaced.
private final class WholeReader: ValueReader {
    override func act(_ round: Int) throws { try judge(try contents(path + "/value")) }
}

/// Takes its time to read it.
private final class SlowReader: ValueReader {
    override func act(_ round: Int) throws {
        let file = try OpenFile(path + "/value", O_RDONLY)
        var value: [UInt8] = []
        for _ in 0..<5 {
            value += try file.read(1000, at: value.count)
            usleep(2000)
        }
        try judge(value)
    }
}

/// Has a file open all the time.
private final class HoldingReader: Application {
    private let value = pattern(150_000, seed: 31)
    private var file: OpenFile?

    override func prepare() throws {
        try put(value, path + "/held")
        file = try OpenFile(path + "/held", O_RDONLY)
    }
    override func act(_ round: Int) throws {
        let found = try file?.read(value.count + 1, at: 0)
        try require(found == value, "an open file reads wrong: \(found?.count ?? 0) bytes")
    }
}

/// Replaces a value with pauses, and reads it.
private final class SlowReplacer: Application {
    override func act(_ round: Int) throws {
        let value = pattern(70_000, seed: UInt64(round) + 1)
        let file = try OpenFile(path + "/slow", O_WRONLY | O_CREAT | O_TRUNC)
        try file.write(Array(value[..<30_000]))
        usleep(3000)
        try file.write(Array(value[30_000...]))
        usleep(3000)
        try file.close()
        try require(try contents(path + "/slow") == value, "the value is not what was written")
    }
}

/// Reads half of a directory, pauses, and reads the rest: every name once.
private final class Lister: Application {
    private static let count = 300

    override func prepare() throws {
        try check(mkdir(path + "/many", 0o700))
        for number in 0..<Self.count { try put("", "\(path)/many/name\(number)") }
    }
    override func act(_ round: Int) throws {
        guard let stream = opendir(path + "/many") else { throw Errno(errno) }
        defer { closedir(stream) }
        var seen: [String] = []
        errno = 0
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
            seen.append(String(decoding: name, as: UTF8.self))
            if seen.count == Self.count / 2 { usleep(5000) }
            errno = 0
        }
        guard errno == 0 else { throw Errno(errno) }
        try require(seen.count == Self.count + 2 && Set(seen).count == seen.count, "\(seen.count) names listed")
    }
}

/// Goes on with a file that has no name any more.
private final class OrphanKeeper: Application {
    override func act(_ round: Int) throws {
        let file = try OpenFile(path + "/orphan", O_RDWR | O_CREAT | O_EXCL)
        try file.write("first ")
        try check(unlink(path + "/orphan"))
        usleep(3000)
        try file.write("second")
        try require(try file.text() == "first second", "a file without a name reads wrong")
        try file.close()
    }
}

/// Holds locks of both kinds, which nobody else may get meanwhile.
private final class Locker: Application {
    private var files: [OpenFile] = []

    override func prepare() throws {
        try put("", path + "/locked")
        files = [try OpenFile(path + "/locked", O_RDWR), try OpenFile(path + "/locked", O_RDWR)]
    }
    override func act(_ round: Int) throws {
        try check(flock(files[0].descriptor, LOCK_EX | LOCK_NB))
        var range = Glibc.flock()
        range.l_type = Int16(F_WRLCK)
        try check(fcntl(files[0].descriptor, F_OFD_SETLK, &range))
        usleep(10_000)
        var other = range
        try require(flock(files[1].descriptor, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK, "flock(2) is not held")
        try require(fcntl(files[1].descriptor, F_OFD_SETLK, &other) != 0 && errno == EAGAIN, "fcntl(2) is not held")
        range.l_type = Int16(F_UNLCK)
        try check(fcntl(files[0].descriptor, F_OFD_SETLK, &range))
        try check(flock(files[0].descriptor, LOCK_UN))
    }
}

/// Rotates the key, once a command, and has the files wrapped anew.
private final class Rotator: Application {
    private var version = 1

    private func command(_ text: String, _ name: String) throws(Errno) {
        let file = try OpenFile(path + "/.letterlock/" + name, O_WRONLY)
        try file.write(text)
        try file.close()
    }

    override func act(_ round: Int) throws {
        try command("1", "keys/rotate")
        version += 1
        let found = try text(path + "/.letterlock/keys/rotate")
        try require(found == "\(version)\n", "version \(found) and not \(version)")
        do { try command("start", "rewrap") } catch {
            // The one before may still run.
            guard error.value == EALREADY else { throw error }
        }
        usleep(20_000)
    }
}

/// Watches a directory in which it makes a file.
private final class Watcher: Application {
    private var watch: Int32 = -1

    override func prepare() throws {
        try check(mkdir(path + "/watched", 0o700))
        watch = try check(inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC)))
        try check(inotify_add_watch(watch, path + "/watched", UInt32(IN_CREATE) | UInt32(IN_CLOSE_WRITE)))
    }
    override func act(_ round: Int) throws {
        try put("x", "\(path)/watched/f\(round)")
        var buffer = [UInt8](repeating: 0, count: 4096)
        let count = try check(read(watch, &buffer, buffer.count))
        let masks = stride(from: 0, to: count, by: 32).map { place in
            buffer.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place + 4, as: UInt32.self) }
        }
        try require(masks == [UInt32(IN_CREATE), UInt32(IN_CLOSE_WRITE)], "events \(masks) of a new file")
        try check(unlink("\(path)/watched/f\(round)"))
    }
    override func finish() throws { close(watch) }
}

/// Sets modes, times and extended attributes.
private final class AttributeSetter: Application {
    override func prepare() throws { try put("", path + "/attributes") }
    override func act(_ round: Int) throws {
        let file = path + "/attributes"
        let mode = mode_t(round % 0o1000)
        try check(chmod(file, mode))
        let times = [timespec(tv_sec: round, tv_nsec: 1), timespec(tv_sec: round, tv_nsec: 2)]
        try check(utimensat(AT_FDCWD, file, times, 0))
        try setExtendedAttribute(file, "user.round", "\(round)")
        let found = try attributes(file)
        try require(found.permissions == mode && found.modified == Instant(times[1]), "attributes are not what was set")
        try require(try extendedAttributeText(file, "user.round") == "\(round)", "an extended attribute is old")
    }
}

/// Writes in the middle of a file, makes it shorter and longer.
private final class PlaceWriter: Application {
    override func prepare() throws { try put(pattern(200_000, seed: 8), path + "/places") }
    override func act(_ round: Int) throws {
        let file = try OpenFile(path + "/places", O_RDWR)
        let mark = "<\(round)>"
        let place = round * 7919 % 150_000
        try file.write(mark, at: place)
        try check(ftruncate(file.descriptor, 160_000))
        try check(ftruncate(file.descriptor, 200_000))
        try require(try file.text(mark.utf8.count, at: place) == mark, "what was written in place is not there")
        try require(try file.read(10, at: 180_000) == [UInt8](repeating: 0, count: 10), "what was cut off came back")
        if round % 4 == 0 { try check(fsync(file.descriptor)) }
        try file.close()
    }
}

/// Has a file mapped, and writes to it through the mapping.
private final class Mapper: Application {
    private static let byteCount = 65_536
    private var file: OpenFile?
    private var memory = UnsafeMutableRawBufferPointer(start: nil, count: 0)

    override func prepare() throws {
        try put([UInt8](repeating: 0, count: Self.byteCount), path + "/mapped")
        let file = try OpenFile(path + "/mapped", O_RDWR)
        let mapped = mmap(nil, Self.byteCount, PROT_READ | PROT_WRITE, MAP_SHARED, file.descriptor, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Errno(errno) }
        memory = UnsafeMutableRawBufferPointer(start: mapped, count: Self.byteCount)
        self.file = file
    }
    override func act(_ round: Int) throws {
        let place = round * 4096 % Self.byteCount
        memory.storeBytes(of: UInt64(round) + 1, toByteOffset: place, as: UInt64.self)
        try check(msync(memory.baseAddress, Self.byteCount, Int32(MS_SYNC)))
        // The pages are let go, so that they come from the server again.
        try check(madvise(memory.baseAddress, Self.byteCount, Int32(MADV_DONTNEED)))
        _ = posix_fadvise(file?.descriptor ?? -1, 0, off_t(Self.byteCount), Int32(POSIX_FADV_DONTNEED))
        let found = memory.load(fromByteOffset: place, as: UInt64.self)
        try require(found == UInt64(round) + 1, "a mapped page has lost what was written")
    }
    override func finish() throws { munmap(memory.baseAddress, memory.count) }
}
