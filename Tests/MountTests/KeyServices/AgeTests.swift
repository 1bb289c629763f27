import Glibc
import Sodium
import Testing

@testable import KeyServices

/// Keyrings that an age identity opens, and what Letterlock and the program age make of each other's files.
@Suite("age", .enabled(if: !Mounted.isPlain))
struct AgeTests {
    let work: Workspace
    let recipient: String

    init() throws {
        work = try Workspace()
        try work.done(["age-keygen", "-o", work("identity")])
        recipient = try work.done(["age-keygen", "-y", work("identity")]).line
    }

    private func run(_ words: String..., environment: [String: String] = [:]) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: environment)
    }

    private func expect(
        _ outcome: Outcome, _ status: Int32, _ words: String = "", at place: SourceLocation = #_sourceLocation
    ) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        #expect(outcome.complaint.contains(words), "\(outcome.complaint)", sourceLocation: place)
    }

    @Test(arguments: [0, 1, 32, 65_536])
    func theProgramOpensWhatWasSealedHere(count: Int) throws {
        let plaintext = pattern(count)
        let file = try plaintext.withUnsafeBytes { try AgeFile.seal($0, for: try #require(AgeRecipient(recipient))) }
        try put(file, work("sealed"))
        #expect(try work.done(["age", "--decrypt", "-i", work("identity"), work("sealed")]).bytes == plaintext)
        try put(AgeArmour.add(to: file), work("armoured"))
        #expect(try work.done(["age", "--decrypt", "-i", work("identity"), work("armoured")]).bytes == plaintext)
    }

    @Test(arguments: [0, 1, 32, 65_536])
    func whatTheProgramSealedOpensHere(count: Int) throws {
        let plaintext = pattern(count)
        try put(plaintext, work("plain"))
        try work.done(["age-keygen", "-o", work("other")])
        let other = try work.done(["age-keygen", "-y", work("other")]).line
        try work.done(["age", "-r", other, "-r", recipient, "-o", work("sealed"), work("plain")])
        try work.done(["age", "-a", "-r", other, "-r", recipient, "-o", work("armoured"), work("plain")])
        let file = try contents(work("sealed"))
        for (name, file) in [("identity", file), ("other", file), ("other", try contents(work("armoured")))] {
            let opened = try file.withUnsafeBytes { file in
                try AgeFile.open(file, with: try AgeIdentityFile.read(work(name))).withUnsafeBytes { [UInt8]($0) }
            }
            #expect(opened == plaintext)
        }
        try work.done(["age-keygen", "-o", work("third")])
        let stranger = try AgeIdentityFile.read(work("third"))
        #expect(throws: (any Error).self) { try file.withUnsafeBytes { _ = try AgeFile.open($0, with: stranger) } }
    }

    @Test func aSafeHoldsWhatOpensAKeyringWhoseKeyIsLost() throws {
        let made = try run(
            "init", work.store, "--key-service", work.keyService, "--recovery-recipient", recipient)
        expect(made, 0)
        let mounted = try run("mount", work.store, work("mnt"), "--key-service", work.keyService)
        try #require(mounted.status == 0, "\(mounted.complaint)")
        defer { _ = try? run("umount", work("mnt")) }
        try put("value", work("mnt/secret"))
        #expect(try run("unlock-with", "list", work("mnt")).text.contains("age:" + recipient))
        expect(try run("backup", work("mnt"), work("backup")), 0)
        _ = try run("umount", work("mnt"))
        // The key file is lost; the recipient alone opens nothing.
        try check(unlink(work("key")))
        expect(try run("verify", work.store, "--key-service", "age:" + recipient), 4, "identity is not here")
        expect(
            try run(
                "verify", work.store, "--key-service", "age:" + recipient,
                environment: ["AGE_IDENTITY_FILE": work("identity")]), 0)
        // The keyring, and its backup, by a path in whatever directory.
        for store in [work.store, work("restored")] {
            if store != work.store {
                expect(try run("restore", work("backup"), store, "--key-service", "age:" + work("identity")), 0)
            }
            expect(try run("mount", store, work("mnt"), "--key-service", "age:./identity"), 0)
            #expect(try text(work("mnt/secret")) == "value")
            expect(try run("lock", work("mnt")), 0)
            expect(try run("unlock", work("mnt")), 0)
            #expect(try text(work("mnt/secret")) == "value")
            expect(try run("umount", work("mnt")), 0)
        }
    }

    @Test func itIsOneOfSeveralWaysIn() throws {
        expect(try run("init", work.store, "--key-service", work.keyService), 0)
        let key = ["--key-service", work.keyService]
        let add = ["unlock-with", "add", work.store, "age:" + recipient] + key
        expect(try work.run([try Workspace.program()] + add), 0)
        expect(try work.run([try Workspace.program()] + add), 1, "opens it already")
        expect(try run("verify", work.store, "--key-service", "age:" + work("identity")), 0)
        // Somebody else's identity.
        try work.done(["age-keygen", "-o", work("other")])
        expect(try run("verify", work.store, "--key-service", "age:" + work("other")), 3)
        try check(chmod(work("identity"), 0o644))
        expect(try run("verify", work.store, "--key-service", "age:" + work("identity")), 4, "others can read it")
        try check(chmod(work("identity"), 0o600))
        // A new root key reaches the slot without its identity.
        let change = ["unlock-with", "change", work.store, work.keyService, "--to", "credential:new"] + key
        try put(pattern(32, seed: 9), work("new"), mode: 0o600)
        let changed = try work.run(
            [try Workspace.program()] + change, environment: ["CREDENTIALS_DIRECTORY": work.path])
        expect(changed, 0)
        expect(try run("verify", work.store, "--key-service", work.keyService), 3)
        expect(try run("verify", work.store, "--key-service", "age:" + work("identity")), 0)
        expect(
            try run("unlock-with", "remove", work.store, "age:" + recipient, "--key-service", "keyfile:" + work("new")),
            0)
        expect(try run("verify", work.store, "--key-service", "age:" + work("identity")), 3)
        expect(try run("init", work("bad"), "--key-service", work.keyService, "--recovery-recipient", "age1x"), 2)
        #expect(!exists(work("bad")))
    }
}
