import Glibc
import Testing

/// Keyrings that a TPM opens, played by swtpm.
@Suite("TPM 2.0", .enabled(if: !Mounted.isPlain))
struct TPM2Tests {
    let work: Workspace
    let tpm: SoftTPM

    init() throws {
        work = try Workspace()
        tpm = try SoftTPM(work)
        try put("2468-of-the-test\n", work("pin"), mode: 0o600)
        try put("1357\n", work("wrong"), mode: 0o600)
    }

    private func run(_ words: String..., on other: SoftTPM? = nil) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: (other ?? tpm).environment)
    }

    private func expect(
        _ outcome: Outcome, _ status: Int32, _ words: String = "", at place: SourceLocation = #_sourceLocation
    ) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        #expect(outcome.complaint.contains(words), "\(outcome.complaint)", sourceLocation: place)
        // What its libraries have to say stays with them.
        #expect(!outcome.complaint.contains("esys"), "\(outcome.complaint)", sourceLocation: place)
    }

    @Test func itOpensAKeyringAndUnlocksIt() throws {
        expect(try run("init", work.store, "--key-service", "tpm2"), 0)
        expect(try run("mount", work.store, work("mnt"), "--key-service", "tpm2"), 0)
        defer { _ = try? run("umount", work("mnt")) }
        #expect(try run("unlock-with", "list", work("mnt")).text.contains("tpm2"))
        try put("value", work("mnt/secret"))
        expect(try run("lock", work("mnt")), 0)
        expect(try run("unlock", work("mnt")), 0)
        #expect(try text(work("mnt/secret")) == "value")
        // Without it a mounted keyring goes on.
        tpm.end()
        #expect(try text(work("mnt/secret")) == "value")
        expect(try run("lock", work("mnt")), 0)
        expectErrno(EHOSTUNREACH) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
    }

    @Test func oneThatHangsHoldsUpNobodyElse() throws {
        expect(try run("init", work.store, "--key-service", "tpm2"), 0)
        expect(try run("mount", work.store, work("mnt"), "--key-service", "tpm2"), 0)
        defer { _ = try? run("umount", work("mnt")) }
        try put("value", work("mnt/secret"))
        expect(try run("lock", work("mnt")), 0)
        tpm.pause(true)
        defer { tpm.pause(false) }
        let unlocking = try work.start(
            [try Workspace.program(), "unlock", work("mnt")], environment: tpm.environment)
        #expect(try text(work("mnt/.letterlock/lock")) == "locked\n")
        expect(try run("status", work("mnt")), 0)
        #expect(!unlocking.hasEnded)
        expect(try unlocking.wait(), 4)
        // It has not answered the first yet.
        expectErrno(ETIMEDOUT) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
        tpm.pause(false)
        #expect(eventually { (try? run("unlock", work("mnt")).status) == 0 })
        #expect(try text(work("mnt/secret")) == "value")
    }

    @Test func itOpensAfterTheMachineWasSwitchedOffAndNotOnAnother() throws {
        expect(try run("init", work.store, "--key-service", "tpm2"), 0)
        tpm.end()
        expect(try run("verify", work.store, "--key-service", "tpm2"), 4, "there is no TPM")
        try tpm.start()
        expect(try run("verify", work.store, "--key-service", "tpm2"), 0)
        let other = try SoftTPM(work, "other")
        expect(try run("verify", work.store, "--key-service", "tpm2", on: other), 3)
        // Cleared, it is another one.
        try #require(try tpm.ask("tpm2_clear").status == 0)
        expect(try run("verify", work.store, "--key-service", "tpm2"), 3)
    }

    @Test func itsPolicyIsHeldTo() throws {
        let key = "tpm2:pcrs=7+16?pin-source=file:" + work("pin")
        expect(try run("init", work.store, "--key-service", key), 0)
        #expect(
            try run("unlock-with", "list", work.store).text.contains("tpm2:pcrs=7+16;bank=sha256;pin"))
        expect(try run("verify", work.store, "--key-service", key), 0)
        // The same policy, spelt otherwise.
        let otherwise = "tpm2:bank=sha256;pcrs=16+7?tcti=\(tpm.tcti)&pin-source=\(work("pin"))"
        expect(try run("verify", work.store, "--key-service", otherwise), 0)
        // Another policy opens none of its slots.
        for other in ["tpm2", "tpm2:pcrs=7", "tpm2:pcrs=7+16", "tpm2:pin-source=file:" + work("pin")] {
            expect(try run("verify", work.store, "--key-service", other), 3, "tpm2:pcrs=7+16;bank=sha256;pin")
        }
        let wrong = "tpm2:pcrs=7+16?pin-source=file:" + work("wrong")
        expect(try run("verify", work.store, "--key-service", wrong), 3, "PIN is wrong")
        try check(chmod(work("pin"), 0o644))
        expect(try run("verify", work.store, "--key-service", key), 4, "others can read it")
        try check(chmod(work("pin"), 0o600))
        try tpm.extend(16)
        expect(try run("verify", work.store, "--key-service", key), 3, "PCRs are not what they were")
    }

    @Test func tooManyWrongPINsLockIt() throws {
        let service = "tpm2:pin-source=file:"
        expect(try run("init", work.store, "--key-service", service + work("pin")), 0)
        var last = try run("verify", work.store, "--key-service", service + work("wrong"))
        for _ in 0..<40 where !last.complaint.contains("locked") {
            #expect(last.complaint.contains("PIN is wrong"), "\(last.complaint)")
            last = try run("verify", work.store, "--key-service", service + work("wrong"))
        }
        expect(last, 3, "PINs were wrong too often")
        expect(try run("verify", work.store, "--key-service", service + work("pin")), 3, "PINs were wrong too often")
    }
}
