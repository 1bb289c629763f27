import Glibc
import Testing

/// Keyrings that a key in a token opens, played by SoftHSM.
@Suite("PKCS#11", .enabled(if: !Mounted.isPlain))
struct PKCS11Tests {
    let work: Workspace
    let hsm: SoftHSM

    init() throws {
        work = try Workspace()
        hsm = try SoftHSM(work)
    }

    private func run(_ words: String...) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: hsm.environment)
    }

    private func expect(
        _ outcome: Outcome, _ status: Int32, _ words: String = "", at place: SourceLocation = #_sourceLocation
    ) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        #expect(outcome.complaint.contains(words), "\(outcome.complaint)", sourceLocation: place)
    }

    @Test func itOpensAKeyringAndUnlocksIt() throws {
        let key = "pkcs11:" + hsm.uri()
        expect(try run("init", work.store, "--key-service", key), 0)
        expect(try run("mount", work.store, work("mnt"), "--key-service", key), 0)
        defer { _ = try? run("umount", work("mnt")) }
        #expect(try run("unlock-with", "list", work("mnt")).text.contains("pkcs11:object=prod;token=t"))
        try put("value", work("mnt/secret"))
        expect(try run("lock", work("mnt")), 0)
        expect(try run("unlock", work("mnt")), 0)
        #expect(try text(work("mnt/secret")) == "value")
        // Without its token a mounted keyring goes on.
        try check(rename(work("tokens"), work("elsewhere")))
        #expect(try text(work("mnt/secret")) == "value")
        expect(try run("lock", work("mnt")), 0)
        expectErrno(EHOSTUNREACH) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
    }

    /// The exit code is a service's failure, whichever it is.
    @Test func unlockTellsADisabledKeyFromOneThatIsMissing() throws {
        let key = "pkcs11:" + hsm.uri()
        expect(try run("init", work.store, "--key-service", key), 0)
        expect(try run("mount", work.store, work("mnt"), "--key-service", key), 0)
        defer { _ = try? run("umount", work("mnt")) }
        expect(try run("lock", work("mnt")), 0)
        try hsm.allowOpening(false)
        expectErrno(EKEYREVOKED) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
        expect(try run("unlock", work("mnt")), 4, "the key service's key is disabled")
        try hsm.removeKey("prod")
        expectErrno(ENOKEY) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
        expect(try run("unlock", work("mnt")), 4, "the key service has no such key")
    }

    @Test func aModuleThatHangsEndsInAFailure() throws {
        let port = try SilentPort()
        let module = try HangingModule.make(work, port)
        expect(try run("init", work.store, "--key-service", "pkcs11:" + hsm.uri()), 0)
        let hanging = "pkcs11:" + hsm.uri().replacing(SoftHSM.module, with: module)
        try withExtendedLifetime(port) {
            expect(try run("verify", work.store, "--key-service", hanging), 4, "does not answer")
        }
    }

    @Test func whatGoesWrongIsToldApart() throws {
        expect(try run("init", work.store, "--key-service", "pkcs11:" + hsm.uri()), 0)
        func verify(_ uri: String) throws -> Outcome { try run("verify", work.store, "--key-service", "pkcs11:" + uri) }
        expect(try verify(hsm.uri()), 0)
        // The same key, spelt otherwise.
        expect(try verify(hsm.uri().replacing("token=t;object=prod", with: "object=%70rod;token=t")), 0)
        try put("0000\n", work("wrong"), mode: 0o600)
        expect(try verify(hsm.uri(pin: "wrong")), 3, "PIN is wrong")
        try check(chmod(work("pin"), 0o644))
        expect(try verify(hsm.uri()), 4, "others can read it")
        try check(chmod(work("pin"), 0o600))
        expect(try verify(hsm.uri().replacing("pin-source=file:", with: "pin-value=1234&x=")), 2, "no place in it")
        expect(try run("init", work("new"), "--key-service", "pkcs11:" + hsm.uri("none")), 4, "no such AES key")
        let other = hsm.uri().replacing("token=t", with: "token=u")
        expect(try run("init", work("new"), "--key-service", "pkcs11:" + other), 4, "not there")
        let module = hsm.uri("absent").replacing(SoftHSM.module, with: "/nowhere.so")
        expect(try run("init", work("new"), "--key-service", "pkcs11:" + module), 4, "cannot be loaded")
        // A key that could be read out is none.
        try hsm.makeKey("loose", "03", ["--private", "--extractable"])
        expect(try run("init", work("new"), "--key-service", "pkcs11:" + hsm.uri("loose")), 4, "could leave its token")
        try hsm.makeKey("prod", "04")
        expect(try verify(hsm.uri()), 4, "several keys")
        expect(try run("init", work("new"), "--key-service", "pkcs11:" + hsm.uri("prod;id=%04")), 0)
        expect(try run("init", work("more"), "--key-service", "pkcs11:" + hsm.uri("prod;id=%04")), 1, "--shared")
    }
}
