import Glibc
import Testing

/// The store on a disk whose power goes in the middle of a job: a file system of its own that is shut down, so that what
/// was not brought to it is lost.
@Suite("The power goes in the middle of a job", .serialized, .enabled(if: !Mounted.isPlain))
final class PowerCutTests {
    private let work: Workspace
    private let sizes = [5, 900, 5000, 100_000, 3_000_000]
    private var processes: [pid_t] = []
    private var store: String { work("disk/store") }

    init() throws {
        work = try Workspace()
        try check(mkdir(work("disk"), 0o700))
        try work.shell("truncate -s 400M disk.image && mkfs.xfs -q disk.image && mount -o loop disk.image disk")
        try work.done([try Workspace.program(), "init", store, "--key-service", work.keyService])
        try mount()
        for (number, size) in sizes.enumerated() {
            try put(pattern(size, seed: UInt64(number)), file(number))
            let opened = try OpenFile(file(number), O_RDWR)
            try check(fsync(opened.descriptor))
            try opened.close()
        }
    }

    deinit {
        for process in processes { kill(process, SIGKILL) }
        umount2(work("mnt"), Int32(MNT_DETACH))
        umount2(work("disk"), Int32(MNT_DETACH))
    }

    private func file(_ number: Int) -> String { work("mnt/f\(number)") }
    private func control(_ name: String) -> String { work("mnt/.letterlock/\(name)") }

    private func command(_ command: String, _ name: String) throws {
        let file = try OpenFile(control(name), O_WRONLY)
        try file.write(command)
        try file.close()
    }

    private func mount() throws {
        try work.done([try Workspace.program(), "mount", store, work("mnt"), "--key-service", work.keyService])
        let status = try text(control("status"))
        processes = ["server", "guardian"].compactMap { name in
            guard let start = status.firstRange(of: "\"\(name)\":{\"pid\":") else { return nil }
            return pid_t(status[start.upperBound...].prefix { $0.isNumber })
        }
        try #require(processes.count == 2)
    }

    /// What is on the disk stays, everything else is lost: memory, and what the file system had not written yet.
    private func cutPower() throws {
        try work.done(["xfs_io", "-x", "-c", "shutdown", work("disk")])
        for process in processes { kill(process, SIGSTOP) }
        for process in processes { kill(process, SIGKILL) }
        umount2(work("mnt"), Int32(MNT_DETACH))
        _ = eventually { self.processes.allSatisfy { kill($0, 0) != 0 } }
        try work.shell("umount disk && mount -o loop disk.image disk")
        let verified = try work.letterlock("verify", store, "--key-service", work.keyService)
        #expect(verified.status == 0, "\(verified.text)\(verified.complaint)")
        try mount()
    }

    private func expectValues() throws {
        for (number, size) in sizes.enumerated() {
            #expect(try contents(file(number)) == pattern(size, seed: UInt64(number)), "f\(number)")
        }
    }

    private func isDone(_ job: String) throws -> Bool { try text(control(job)).hasPrefix("{\"state\":\"done\"") }

    @Test(arguments: ["rewrap", "reencrypt"], [0, 2_000, 10_000, 50_000] as [UInt32])
    func aJobLosesNothing(job: String, microseconds: UInt32) throws {
        try command("1", "keys/rotate")
        try command("start", job)
        usleep(microseconds)
        try cutPower()
        try expectValues()
        // The start itself may be what was lost.
        if try text(control(job)).contains("\"state\":\"idle\"") {
            if try text(control("keys/primary")) == "1\n" { try command("1", "keys/rotate") }
            try command("start", job)
        }
        #expect(try eventually { try isDone(job) })
        #expect(try text(control(job)).contains("\"failed\":0"))
        try expectValues()
        #expect(try text(control("keys/1/files")) == "0\n")
    }

    @Test(arguments: [0, 5_000, 50_000] as [UInt32])
    func aRevocationThatWasAcknowledgedIsNotTakenBack(microseconds: UInt32) throws {
        try command("1 laptop lost", "revoke")
        usleep(microseconds)
        try cutPower()
        #expect(try text(control("keys/1/state")) == "compromised\n")
        #expect(try text(control("keys/primary")) == "2\n")
        #expect(try eventually { try isDone("revoke") })
        try expectValues()
        #expect(try text(control("keys/1/files")) == "0\n")
    }

    @Test func aDisabledVersionStaysDisabled() throws {
        try command("1", "keys/rotate")
        try command("disable", "keys/1/state")
        try cutPower()
        #expect(try text(control("keys/1/state")) == "disabled\n")
        expectErrno(EKEYREVOKED) { _ = try contents(file(1)) }
        try command("enable", "keys/1/state")
        try expectValues()
    }
}
