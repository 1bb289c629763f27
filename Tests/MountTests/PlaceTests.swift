import Glibc
import Testing

@Suite("Disks that fill, fail or forbid", .enabled(if: !Mounted.isPlain))
struct PlaceTests {
    let work: Workspace

    init() throws {
        work = try Workspace()
        try check(mkdir(work("disk"), 0o755))
    }

    private func letterlock(_ command: String, _ more: String...) throws -> Outcome {
        try work.run([try Workspace.program(), command] + more)
    }

    private func expectDoneBy(_ outcome: Outcome, at place: SourceLocation = #_sourceLocation) {
        #expect(outcome.status == 0, "\(outcome.complaint)", sourceLocation: place)
    }

    private func mountStore(_ more: String...) throws -> Outcome {
        try work.run(
            [try Workspace.program(), "mount", work("disk/store"), work("mnt"), "--key-service", work.keyService] + more
        )
    }

    private func makeStore() throws {
        expectDoneBy(try letterlock("init", work("disk/store"), "--key-service", work.keyService))
    }

    private func expectClean(at place: SourceLocation = #_sourceLocation) throws {
        expectDoneBy(try letterlock("verify", work("disk/store"), "--key-service", work.keyService), at: place)
    }

    @Test func aFullDiskLosesNothingAndRoomCanBeMade() throws {
        try work.done(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", work("disk")])
        try makeStore()
        expectDoneBy(try mountStore())
        try put("kept from before", work("mnt/kept"))
        try check(mkdir(work("mnt/d"), 0o700))
        var whole = 0
        var number: Errno?
        while number == nil, whole < 200 {
            do throws(Errno) {
                try put(pattern(500_000, seed: UInt64(whole)), work("mnt/d/f\(whole)"))
                whole += 1
            } catch { number = error }
        }
        #expect(number == Errno(ENOSPC))
        #expect(whole > 5)
        // A new value that there is no room for is none.
        expectErrno(ENOSPC) { try put(pattern(20_000_000), work("mnt/kept")) }
        #expect(try text(work("mnt/kept")) == "kept from before")
        for index in 0..<whole {
            #expect(try contents(work("mnt/d/f\(index)")) == pattern(500_000, seed: UInt64(index)), "f\(index)")
        }
        // A full disk must not keep one from making room.
        for name in try names(work("mnt/d")) { expectDone(unlink(work("mnt/d/" + name))) }
        #expect(
            eventually { (try? put(pattern(500_000), work("mnt/again"))) != nil }, "there is room again")
        #expect(try contents(work("mnt/again")) == pattern(500_000))
        expectDoneBy(try letterlock("umount", work("mnt")))
        try expectClean()
        expectDoneBy(try mountStore())
        #expect(try text(work("mnt/kept")) == "kept from before")
        #expect(try contents(work("mnt/again")) == pattern(500_000))
        expectDoneBy(try letterlock("umount", work("mnt")))
    }

    @Test func aReadOnlyDiskIsReadAndNeverWritten() throws {
        try work.done(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", work("disk")])
        try makeStore()
        expectDoneBy(try mountStore())
        try put("kept", work("mnt/f"))
        expectDoneBy(try letterlock("umount", work("mnt")))
        try work.done(["mount", "-o", "remount,ro", work("disk")])
        expectDoneBy(try mountStore("-o", "ro"))
        #expect(try text(work("mnt/f")) == "kept")
        expectErrno(EROFS, open(work("mnt/f"), O_WRONLY))
        expectDoneBy(try letterlock("umount", work("mnt")))
        try expectClean()
        let refused = try letterlock("init", work("disk/other"), "--key-service", work.keyService)
        #expect(refused.status == 1 && refused.complaint.hasPrefix("letterlock: "), "\(refused.complaint)")
    }

    @Test func withoutFUSEItSaysSo() throws {
        try makeStore()
        let program = try Workspace.program()
        let outcome = try work.run([
            "unshare", "--mount", "sh", "-c",
            "mount -t tmpfs tmpfs /dev && exec '\(program)' mount '\(work("disk/store"))' '\(work("mnt"))' --key-service '\(work.keyService)'",
        ])
        #expect(outcome.status == 1, "\(outcome.complaint)")
        #expect(outcome.complaint.contains("/dev/fuse"), "\(outcome.complaint)")
        try expectClean()
    }

    /// Whether a disk can be made of a file here.
    static let hasLoopDevices = access("/dev/loop-control", W_OK) == 0

    @Test(.enabled(if: hasLoopDevices))
    func whatFsyncReturnedForSurvivesPowerLoss() throws {
        try work.shell("truncate -s 320M disk.image && mkfs.xfs -q disk.image && mount -o loop disk.image disk")
        try makeStore()
        expectDoneBy(try mountStore())
        for number in 0..<30 {
            let file = try OpenFile(work("mnt/f\(number)"), O_WRONLY | O_CREAT)
            try file.write(pattern(number * 1000, seed: UInt64(number)))
            expectDone(fsync(file.descriptor))
            try file.close()
        }
        let directory = try OpenFile(work("mnt"), O_RDONLY | O_DIRECTORY)
        expectDone(rename(work("mnt/f1"), work("mnt/moved")))
        expectDone(fsync(directory.descriptor))
        try directory.close()
        // These nobody waited for: they may be there or not, but never half.
        for number in 0..<20 { try put(pattern(3000, seed: 7), work("mnt/late\(number)")) }
        try work.done(["xfs_io", "-x", "-c", "shutdown", work("disk")])
        let status = try text(work("mnt/.letterlock/status"))
        let processes = try ["guardian", "server"].map { name in
            try #require(
                status.firstRange(of: "\"\(name)\"").flatMap { found in
                    pid_t(status[found.upperBound...].drop { !$0.isNumber }.prefix { $0.isNumber })
                })
        }
        for process in processes { kill(process, SIGKILL) }
        umount2(work("mnt"), Int32(MNT_DETACH))
        #expect(eventually { processes.allSatisfy { kill($0, 0) != 0 } })
        try work.done(["umount", work("disk")])
        try work.shell("mount -o loop disk.image disk")
        expectDoneBy(try mountStore())
        for number in 0..<30 {
            let name = number == 1 ? "moved" : "f\(number)"
            #expect(try contents(work("mnt/" + name)) == pattern(number * 1000, seed: UInt64(number)), "\(name)")
        }
        for name in try names(work("mnt")) where name.hasPrefix("late") {
            #expect([[], pattern(3000, seed: 7)].contains(try contents(work("mnt/" + name))), "\(name)")
        }
        expectDoneBy(try letterlock("umount", work("mnt")))
        try expectClean()
        try work.done(["umount", work("disk")])
    }
}
