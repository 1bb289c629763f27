import Glibc
import Testing

@Suite("Contents on the mount")
struct ContentTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    @Test(arguments: [0, 1, 15, 16, 4095, 4096, 4097, 65535, 65536, 65537, 131_072, 300_001, 1_048_577])
    func aFileOfAnySizeReadsAsItWasWritten(size: Int) throws {
        let bytes = pattern(size, seed: UInt64(size))
        try put(bytes, mounted("f"))
        #expect(try attributes(mounted("f")).st_size == size)
        #expect(try contents(mounted("f")) == bytes)
        try mounted.remount()
        #expect(try contents(mounted("f")) == bytes)
    }

    /// execve(2) closes what is marked close-on-exec under a lock that much of /proc waits for.
    @Test func aProgramIsStartedWhileAValueIsWritten() throws {
        try put("old", mounted("f"))
        let writer = try OpenFile(mounted("f"), O_WRONLY | O_TRUNC)
        for part in ["one ", "two "] {
            try writer.write(part)
            var process: pid_t = 0
            // Nothing is closed before execve(2), as the harness would.
            let words: [UnsafeMutablePointer<CChar>?] = [strdup("true"), nil]
            defer { free(words[0]) }
            #expect(posix_spawnp(&process, "true", nil, nil, words, environ) == 0)
            try check(waitpid(process, nil, 0))
        }
        try writer.close()
        #expect(try text(mounted("f")) == "one two ")
    }

    @Test func piecesAreWrittenAndReadAnywhere() throws {
        var expected = pattern(200_000)
        try put(expected, mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        for (offset, count) in [
            (0, 1), (4095, 2), (65530, 20), (131_071, 4097), (199_990, 10), (100, 70_000),
        ] {
            let piece = pattern(count, seed: UInt64(offset + 7))
            #expect(pwrite(file.descriptor, piece, count, offset) == count)
            expected.replaceSubrange(offset..<offset + count, with: piece)
        }
        #expect(try file.read(300_000, at: 0) == expected)
        #expect(try file.read(100, at: 199_950) == Array(expected[199_950...]))
        #expect(try file.read(10, at: 200_000) == [])
        #expect(try file.read(10, at: 1 << 40) == [])
        try mounted.remountHolding { try file.close() }
        #expect(try contents(mounted("f")) == expected)
    }

    @Test func appendersNeverOverwriteOneAnother() throws {
        let one = try OpenFile(mounted("log"), O_WRONLY | O_CREAT | O_APPEND)
        let other = try OpenFile(mounted("log"), O_WRONLY | O_APPEND)
        for number in 0..<50 {
            try one.write("one \(number)\n")
            try other.write("other \(number)\n")
        }
        let expected = (0..<50).map { "one \($0)\nother \($0)\n" }.joined()
        #expect(try text(mounted("log")) == expected)
        let writers = try (0..<3).map { writer in
            try mounted.workspace.start([
                "bash", "-c", "for i in $(seq 1 100); do echo \(writer) >>'\(mounted("shared"))'; done",
            ])
        }
        for writer in writers { #expect(try writer.wait().status == 0) }
        #expect(try text(mounted("shared")).split(separator: "\n").count == 300)
    }

    @Test func truncationCutsAndExtendsWithZeros() throws {
        let bytes = pattern(70_000)
        try put(bytes, mounted("f"))
        expectDone(truncate(mounted("f"), 65_000))
        #expect(try contents(mounted("f")) == Array(bytes[..<65_000]))
        expectDone(truncate(mounted("f"), 66_000))
        // What was cut off does not come back.
        #expect(try contents(mounted("f")) == Array(bytes[..<65_000]) + [UInt8](repeating: 0, count: 1000))
        expectDone(truncate(mounted("f"), 0))
        #expect(try contents(mounted("f")) == [])
        expectErrno(EISDIR, truncate(mounted.path, 0))
        expectErrno(EINVAL, truncate(mounted("f"), -1))
        let file = try OpenFile(mounted("f"), O_RDONLY)
        expectErrno(EINVAL, ftruncate(file.descriptor, 0))
    }

    @Test func holesAreZerosAndCostNothing() throws {
        let file = try OpenFile(mounted("f"), O_RDWR | O_CREAT)
        let far = 3 << 30
        try file.write("end", at: far)
        try file.write("start", at: 0)
        #expect(try file.attributes().st_size == far + 3)
        #expect(try file.attributes().st_blocks * 512 < 1 << 20)
        #expect(try file.text(3, at: far) == "end")
        #expect(try file.read(70_000, at: 1 << 30) == [UInt8](repeating: 0, count: 70_000))
        #expect(lseek(file.descriptor, 0, SEEK_DATA) == 0)
        let hole = lseek(file.descriptor, 0, SEEK_HOLE)
        #expect(hole > 0 && hole <= 1 << 20)
        let data = lseek(file.descriptor, hole, SEEK_DATA)
        #expect(data > 1 << 30 && data <= far)
        #expect(lseek(file.descriptor, data, SEEK_HOLE) == far + 3)
        expectErrno(ENXIO, lseek(file.descriptor, far + 3, SEEK_DATA))
        expectErrno(ENXIO, lseek(file.descriptor, far + 3, SEEK_HOLE))
    }

    @Test func spaceIsReservedAndPunched() throws {
        let bytes = pattern(200_000)
        try put(bytes, mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        let keepSize: Int32 = 1
        let punch: Int32 = 2
        expectDone(fallocate(file.descriptor, punch | keepSize, 5000, 100_000))
        var expected = bytes
        for index in 5000..<105_000 { expected[index] = 0 }
        #expect(try file.read(200_000, at: 0) == expected)
        #expect(try file.attributes().st_size == 200_000)
        expectDone(fallocate(file.descriptor, 0, 150_000, 100_000))
        #expect(try file.attributes().st_size == 250_000)
        expected += [UInt8](repeating: 0, count: 50_000)
        #expect(try file.read(300_000, at: 0) == expected)
        expectDone(fallocate(file.descriptor, keepSize, 300_000, 1000))
        #expect(try file.attributes().st_size == 250_000)
        expectErrno(EINVAL, fallocate(file.descriptor, 0, 0, 0))
        // What is reserved within the file changes nothing of it, but its times.
        let before = try file.attributes()
        usleep(20_000)
        expectDone(fallocate(file.descriptor, 0, 0, 1000))
        #expect(try file.attributes().modified > before.modified)
        #expect(try file.attributes().changed > before.changed)
    }

    @Test func moreThanTheDiskHasIsNotReserved() throws {
        let bytes = pattern(100_000)
        try put(bytes, mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        var disk = statvfs()
        try check(statvfs(mounted.path, &disk))
        let tooMuch = off_t(disk.f_bavail * disk.f_frsize) * 2
        for mode: Int32 in [0, 1, 16] { expectErrno(ENOSPC, fallocate(file.descriptor, mode, 0, tooMuch), "\(mode)") }
        #expect(posix_fallocate(file.descriptor, 0, tooMuch) == ENOSPC)
        #expect(try file.attributes().st_size == 100_000)
        #expect(try file.read(200_000, at: 0) == bytes)
        // What is there already needs no room.
        expectDone(posix_fallocate(file.descriptor, 0, 100_000))
    }

    @Test func writersThatTruncateReplaceWholeValues() throws {
        guard !Mounted.isPlain else { return }
        try put("the old value", mounted("secret"))
        let reader = try OpenFile(mounted("secret"), O_RDONLY)
        let writer = try OpenFile(mounted("secret"), O_WRONLY | O_TRUNC)
        #expect(try text(mounted("secret")) == "the old value")
        #expect(try mounted.workspace.done(["stat", "--format=%s", mounted("secret")]).line == "13")
        // To the writer it is empty, as POSIX has it.
        #expect(try writer.attributes().st_size == 0)
        #expect(try text(mounted("secret")) == "the old value")
        #expect(try mounted.workspace.done(["stat", "--format=%s", mounted("secret")]).line == "13")
        try writer.write("new ")
        #expect(try text(mounted("secret")) == "the old value")
        try writer.write("value")
        #expect(try text(mounted("secret")) == "the old value")
        // The writer itself sees what it wrote.
        #expect(try writer.attributes().st_size == 9)
        try writer.close()
        #expect(try text(mounted("secret")) == "new value")
        #expect(try attributes(mounted("secret")).st_size == 9)
        #expect(["the old value", "new value"].contains(try reader.text()))
        // To nothing, and by a shell, which closes a copy of its descriptor before it writes.
        try put("", mounted("secret"))
        #expect(try text(mounted("secret")) == "")
    }

    @Test func aShellThatRedirectsReplacesWholeValues() throws {
        guard !Mounted.isPlain else { return }
        try put("old", mounted("secret"))
        let go = mounted.workspace("go")
        try check(mkfifo(go, 0o600))
        let shell = try mounted.workspace.start([
            "bash", "-c", "{ echo opened >'\(go).1'; read -r <'\(go)'; echo new; } >'\(mounted("secret"))'",
        ])
        #expect(eventually { exists(go + ".1") })
        #expect(try text(mounted("secret")) == "old")
        try put("on\n", go)
        #expect(try shell.wait().status == 0)
        #expect(try text(mounted("secret")) == "new\n")
    }

    @Test func whatAWritersChildrenCloseEndsNoValue() throws {
        guard !Mounted.isPlain else { return }
        try put("old", mounted("secret"))
        let (go, opened) = (mounted.workspace("go"), mounted.workspace("opened"))
        try check(mkfifo(go, 0o600))
        let shell = try mounted.workspace.start([
            "bash", "-c",
            "(echo first; /bin/true; /bin/echo second; touch '\(opened)'; cat '\(go)') >'\(mounted("secret"))'",
        ])
        #expect(eventually { exists(opened) })
        for _ in 0..<3 { #expect(try text(mounted("secret")) == "old") }
        try put("third\n", go)
        #expect(try shell.wait().status == 0)
        #expect(try text(mounted("secret")) == "first\nsecond\nthird\n")
        // A child that goes on after its parent has ended is the one that closes it.
        try check(unlink(opened))
        try mounted.workspace.done([
            "bash", "-c", "(sleep 0.3; echo late; touch '\(opened)') >'\(mounted("secret"))' & exit",
        ])
        #expect(try text(mounted("secret")) == "first\nsecond\nthird\n")
        #expect(eventually { exists(opened) })
        #expect(try eventually { try text(mounted("secret")) == "late\n" })
    }

    @Test func aProgramStartsWhileAValueIsWritten() throws {
        try put("old", mounted("secret"))
        // Closed by execve(2) in the program that is started.
        let writer = try OpenFile(mounted("secret"), O_WRONLY | O_TRUNC)
        try writer.write("half ")
        try mounted.workspace.done(["true"])
        if !Mounted.isPlain { #expect(try text(mounted("secret")) == "old") }
        try writer.write("and half")
        try writer.close()
        #expect(try text(mounted("secret")) == "half and half")
    }

    @Test(arguments: ["kernel", "none"])
    func readersMeetNoHalfValueWhileWritersReplaceIt(cache: String) throws {
        guard !Mounted.isPlain else { return }
        try mounted.remount("cache=\(cache)")
        // A digit each, and a length that goes with it.
        let sizes = [20_000, 10, 70_000, 300, 5000, 1, 40_000, 4096, 4097, 12_345]
        try put(String(repeating: "0", count: sizes[0]), mounted("secret"))
        let writer = try mounted.workspace.start([
            "python3", "-c",
            """
            sizes = \(sizes)
            for n in range(1, 301):
                with open('\(mounted("secret"))', 'w') as f:
                    f.write(str(n % 10) * sizes[n % 10])
            """,
        ])
        var torn: [String] = []
        while !writer.hasEnded {
            let seen = try contents(mounted("secret"))
            let digit = seen.first.map { Int($0) - 48 } ?? -1
            if !sizes.indices.contains(digit) || seen.count != sizes[digit] || Set(seen).count != 1 {
                torn.append("\(digit): \(seen.count) of \(Set(seen).count) sorts")
            }
        }
        #expect(try writer.wait().status == 0)
        #expect(try text(mounted("secret")) == String(repeating: "0", count: sizes[0]))
        #expect(torn.isEmpty, "\(torn)")
    }

    @Test func aKilledWriterLeavesTheOldValue() throws {
        guard !Mounted.isPlain else { return }
        try put("the old value", mounted("secret"))
        let writer = try mounted.workspace.start([
            "python3", "-c",
            """
            import os, sys, time
            f = os.open('\(mounted("secret"))', os.O_WRONLY | os.O_TRUNC)
            os.write(f, b'half of the n')
            open('\(mounted.workspace("wrote"))', 'w').close()
            time.sleep(1000)
            """,
        ])
        #expect(eventually { exists(mounted.workspace("wrote")) })
        kill(writer.pid, SIGKILL)
        #expect(try writer.wait().status == 128 + SIGKILL)
        #expect(try text(mounted("secret")) == "the old value")
        try mounted.remount()
        #expect(try text(mounted("secret")) == "the old value")
    }

    @Test func privateAndSharedMappingsReadWhatIsThere() throws {
        let bytes = pattern(100_000)
        try put(bytes, mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        for flags in [MAP_PRIVATE, MAP_SHARED] {
            let map = mmap(nil, 100_000, PROT_READ | PROT_WRITE, flags, file.descriptor, 0)
            let place = try #require(map != MAP_FAILED ? map : nil)
            #expect(Array(UnsafeRawBufferPointer(start: place, count: 100_000)) == bytes)
            (place + 50_000).storeBytes(of: ~bytes[50_000], as: UInt8.self)
            if flags == MAP_SHARED { expectDone(msync(place, 100_000, MS_SYNC)) }
            expectDone(munmap(place, 100_000))
            #expect(try file.read(1, at: 50_000) == [flags == MAP_SHARED ? ~bytes[50_000] : bytes[50_000]])
        }
        try mounted.remountHolding { try file.close() }
        var expected = bytes
        expected[50_000] = ~expected[50_000]
        #expect(try contents(mounted("f")) == expected)
    }

    @Test func aMappingSeesWhatIsWrittenThroughTheMount() throws {
        try put("first value", mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        let map = mmap(nil, 4096, PROT_READ, MAP_SHARED, file.descriptor, 0)
        let place = try #require(map != MAP_FAILED ? map : nil)
        defer { munmap(place, 4096) }
        func seen() -> String {
            String(decoding: UnsafeRawBufferPointer(start: place, count: 11), as: UTF8.self)
        }
        #expect(seen() == "first value")
        try OpenFile(mounted("f"), O_WRONLY).write("other value", at: 0)
        #expect(seen() == "other value")
    }

    @Test func locksExcludeOneAnother() throws {
        try put("", mounted("f"))
        let one = try OpenFile(mounted("f"), O_RDWR)
        let other = try OpenFile(mounted("f"), O_RDWR)
        expectDone(flock(one.descriptor, LOCK_EX))
        expectErrno(EWOULDBLOCK, flock(other.descriptor, LOCK_EX | LOCK_NB))
        expectDone(flock(one.descriptor, LOCK_UN))
        expectDone(flock(other.descriptor, LOCK_SH | LOCK_NB))
        expectDone(flock(other.descriptor, LOCK_UN))
        // Open file description locks are kept apart also within one process.
        func range(_ type: Int32, _ start: Int, _ count: Int) -> flock {
            var range = flock()
            range.l_type = Int16(type)
            range.l_whence = Int16(SEEK_SET)
            (range.l_start, range.l_len) = (start, count)
            return range
        }
        var first = range(Int32(F_WRLCK), 0, 10)
        expectDone(fcntl(one.descriptor, F_OFD_SETLK, &first))
        var overlapping = range(Int32(F_WRLCK), 5, 10)
        expectErrno(EAGAIN, fcntl(other.descriptor, F_OFD_SETLK, &overlapping))
        var beside = range(Int32(F_WRLCK), 10, 10)
        expectDone(fcntl(other.descriptor, F_OFD_SETLK, &beside))
        try one.close()
        expectDone(fcntl(other.descriptor, F_OFD_SETLK, &overlapping))
    }

    @Test func recordLocksExcludeOtherProcesses() throws {
        try put("", mounted("f"))
        let script = """
            import fcntl, sys
            f = open('\(mounted("f"))', 'r+')
            try:
                fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0)
                print('locked')
            except BlockingIOError:
                print('refused')
            """
        let file = try OpenFile(mounted("f"), O_RDWR)
        var range = flock()
        range.l_type = Int16(F_WRLCK)
        range.l_len = 1
        expectDone(fcntl(file.descriptor, F_SETLK, &range))
        #expect(try mounted.workspace.done(["python3", "-c", script]).line == "refused")
        range.l_type = Int16(F_UNLCK)
        expectDone(fcntl(file.descriptor, F_SETLK, &range))
        #expect(try mounted.workspace.done(["python3", "-c", script]).line == "locked")
    }

    @Test func directInputAndOutputIsTaken() throws {
        let bytes = pattern(65_536)
        try put(bytes, mounted("source"))
        try mounted.workspace.shell(
            """
            cd '\(mounted.path)'
            dd if=source of=direct bs=16k oflag=direct status=none && cmp source direct
            dd if=direct of=back bs=16k iflag=direct status=none && cmp source back
            """)
    }

    @Test func aFileIsCopiedWithinTheMount() throws {
        let bytes = pattern(150_000)
        try put(bytes, mounted("a"))
        let from = try OpenFile(mounted("a"), O_RDONLY)
        let to = try OpenFile(mounted("b"), O_WRONLY | O_CREAT)
        var copied = 0
        while copied < bytes.count {
            let count = copy_file_range(from.descriptor, nil, to.descriptor, nil, bytes.count - copied, 0)
            try check(count)
            guard count > 0 else { break }
            copied += count
        }
        try to.close()
        #expect(try contents(mounted("b")) == bytes)
    }

    @Test func fsyncAndSyncfsAreAnswered() throws {
        let file = try OpenFile(mounted("f"), O_RDWR | O_CREAT)
        try file.write("kept")
        expectDone(fsync(file.descriptor))
        expectDone(fdatasync(file.descriptor))
        expectDone(syncfs(file.descriptor))
        let directory = try OpenFile(mounted.path, O_RDONLY | O_DIRECTORY)
        expectDone(fsync(directory.descriptor))
    }

    @Test func withoutAPageCacheContentsAreTheSame() throws {
        guard !Mounted.isPlain else { return }
        try mounted.remount("cache=none")
        let bytes = pattern(100_000)
        try put(bytes, mounted("f"))
        #expect(try contents(mounted("f")) == bytes)
        let file = try OpenFile(mounted("f"), O_RDWR)
        try file.write("changed", at: 65_533)
        #expect(try file.text(7, at: 65_533) == "changed")
        #expect(try file.read(10, at: 100_000) == [])
        let map = mmap(nil, 100_000, PROT_READ, MAP_PRIVATE, file.descriptor, 0)
        let place = try #require(map != MAP_FAILED ? map : nil)
        #expect(Array(UnsafeRawBufferPointer(start: place, count: 1000)) == Array(bytes[..<1000]))
        munmap(place, 100_000)
        try put("a new value", mounted("f"))
        #expect(try text(mounted("f")) == "a new value")
    }
}
