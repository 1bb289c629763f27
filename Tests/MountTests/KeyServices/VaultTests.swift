import Glibc
import KeyServices
import Keyring
import Sodium
import Testing

@testable import KeyServices

/// Keyrings that an OpenBao opens: a real one, over TLS.
@Suite("OpenBao", .enabled(if: !Mounted.isPlain), .enabled(if: Bao.isTested, "\(Bao.installing)"))
struct VaultTests {
    let work: Workspace
    let bao: Bao

    init() throws {
        work = try Workspace()
        bao = try Bao(work)
    }

    private func run(_ words: [String], _ environment: [String: String]? = nil) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: environment ?? bao.environment)
    }

    private func make() throws {
        let made = try run(["init", work.store, "--name", "trial", "--key-service", bao()])
        guard made.status == 0 else { throw HarnessError(made.complaint) }
    }

    private func mount() throws -> Outcome { try run(["mount", work.store, work("mnt"), "--key-service", bao()]) }
    private func unmount() { _ = try? run(["umount", work("mnt")]) }

    private func expect(
        _ outcome: Outcome, _ status: Int32, _ words: String = "", at place: SourceLocation = #_sourceLocation
    ) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        #expect(outcome.complaint.contains(words), "\(outcome.complaint)", sourceLocation: place)
        #expect(!outcome.complaint.contains(Bao.token), sourceLocation: place)
    }

    // MARK: The program

    @Test func itOpensAKeyringAndIsNotAskedForFiles() throws {
        try make()
        try #require(try mount().status == 0)
        defer { unmount() }
        #expect(try run(["unlock-with", "list", work("mnt")]).text.contains("vault:transit/prod"))
        try put("value", work("mnt/secret"))
        // Sealed, it gives nobody anything any more, and nobody misses it.
        #expect(try bao.ask("PUT", "sys/seal").status == 0)
        try put("newer", work("mnt/secret"))
        #expect(try text(work("mnt/secret")) == "newer")
        try put("1", work("mnt/.letterlock/keys/rotate"))
        #expect(try run(["lock", work("mnt")]).status == 0)
        expect(try run(["unlock", work("mnt")]), 4)
        expectErrno(EHOSTUNREACH) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
        expectErrno(ENOKEY) { _ = try text(work("mnt/secret")) }
        unmount()
        expect(try mount(), 4, "sealed")
    }

    @Test func aKilledServerIsReplacedWithoutAsking() throws {
        try make()
        try #require(try mount().status == 0)
        defer { unmount() }
        try put("value", work("mnt/secret"))
        #expect(try bao.ask("PUT", "sys/seal").status == 0)
        let status = try text(work("mnt/.letterlock/status"))
        let server = try bao.member(status, "server.pid")
        kill(try #require(pid_t(server)), SIGKILL)
        #expect(try text(work("mnt/secret")) == "value")
    }

    @Test func aRoleWithTheExamplesPolicySuffices() throws {
        let policy = try text(ExampleTests.examples + "/vault/policy.hcl")
        let role = try bao.makeRole(policy: policy)
        func tokens() throws -> String {
            try bao.member(try bao.ask("LIST", "auth/token/accessors").text, "data.keys")
        }
        let before = try tokens()
        #expect(try run(["init", work.store, "--key-service", bao()], role).status == 0)
        #expect(try run(["verify", work.store, "--key-service", bao()], role).status == 0)
        try bao.make("transit/keys/prod/rotate", "")
        #expect(try run(["unlock-with", "renew", work.store, bao()], role).text.contains("anew"))
        #expect(try run(["verify", work.store, "--key-service", bao()], role).status == 0)
        // The tokens that it was given are given back.
        #expect(try tokens().count == before.count)
        // It makes no keys, and uses no others.
        try bao.make("transit/keys/other", #"{"derived":true}"#)
        for key in ["transit/other", "transit/mistyped"] {
            expect(try run(["init", work("other"), "--key-service", bao(key)], role), 3, "may not use the key")
            #expect(!exists(work("other")))
        }
        try put("00000000-0000-0000-0000-000000000000\n", work("secret"), mode: 0o600)
        expect(try run(["verify", work.store, "--key-service", bao()], role), 3)
    }

    @Test func whatGoesWrongIsToldApart() throws {
        try make()
        let verify = ["verify", work.store, "--key-service"]
        #expect(try run(verify + [bao()]).status == 0)
        var environment = bao.environment
        try put("another\n", work("wrong"), mode: 0o600)
        environment["VAULT_TOKEN_FILE"] = work("wrong")
        expect(try run(verify + [bao()], environment), 3, "token")
        try check(chmod(work("wrong"), 0o644))
        expect(try run(verify + [bao()], environment), 4, "others can read it")
        environment["VAULT_TOKEN_FILE"] = work("absent")
        expect(try run(verify + [bao()], environment), 4, "absent")
        environment["VAULT_TOKEN_FILE"] = nil
        expect(try run(verify + [bao()], environment), 4, "no token")
        environment = bao.environment
        environment["VAULT_CACERT"] = nil
        expect(try run(verify + [bao()], environment), 4, "not believed")
        // A certificate is for a name.
        try work.done(["cp", bao.authority, work("authority")])
        expect(try run(verify + ["vault:https://127.0.0.1:1/transit/prod"]), 4, "cannot be reached")
        expect(try run(verify + ["vault:http://example.invalid/transit/prod"]), 4, "without TLS")
        expect(try run(verify + [bao("transit/other")]), 3, "vault:transit/prod")
        expect(try run(["init", work("new"), "--key-service", bao("nowhere/prod")]), 4, "no such key")
        expect(try run(["init", work("new"), "--key-service", "vault:transit/prod"]), 4, "VAULT_ADDR")
        expect(try run(["init", work("new"), "--key-service", bao("transit/a b")]), 2, "no address")
        #expect(!exists(work("new")))
        // A version of the key that may not decrypt any more.
        try bao.make("transit/keys/prod/rotate", "")
        try bao.make("transit/keys/prod/config", #"{"min_decryption_version":2}"#)
        expect(try run(verify + [bao()]), 4, "may not be used")
        try bao.make("transit/keys/prod/config", #"{"min_decryption_version":1}"#)
        #expect(try run(verify + [bao()]).status == 0)
        try bao.make("transit/keys/prod/config", #"{"deletion_allowed":true}"#)
        #expect(try bao.ask("DELETE", "transit/keys/prod").status == 0)
        expect(try run(verify + [bao()]), 4, "no such key")
    }

    @Test func theAddressMayStandInTheEnvironmentOrBeASocket() throws {
        try make()
        var environment = bao.environment
        environment["VAULT_ADDR"] = bao.address
        #expect(try run(["verify", work.store, "--key-service", "vault:transit/prod"], environment).status == 0)
        environment["VAULT_ADDR"] = "unix://" + bao.socket
        let socket = try run(["verify", work.store, "--key-service", "vault:transit/prod"], environment)
        #expect(socket.status == 0, "\(socket.complaint)")
    }

    @Test func aTokenLiesInTheHomeDirectoryOrAmongCredentials() throws {
        try make()
        let environment = ["VAULT_CACERT": bao.authority]
        let words = ["verify", work.store, "--key-service", bao()]
        try put(Bao.token, work("home/.vault-token"), mode: 0o600)
        #expect(try run(words, environment).status == 0)
        try check(unlink(work("home/.vault-token")))
        expect(try run(words, environment), 4)
        try check(mkdir(work("credentials"), 0o700))
        try put(Bao.token, work("credentials/vault-token"), mode: 0o440)
        #expect(try run(words, environment.merging(["CREDENTIALS_DIRECTORY": work("credentials")]) { $1 }).status == 0)
    }

    @Test func namespacesAreApart() throws {
        try bao.make("sys/namespaces/team", "{}")
        try bao.make("sys/mounts/transit", #"{"type":"transit"}"#, namespace: "team")
        try bao.make("transit/keys/own", #"{"derived":true}"#, namespace: "team")
        var environment = bao.environment
        environment["VAULT_NAMESPACE"] = "team"
        let made = try run(["init", work.store, "--key-service", bao("transit/own")], environment)
        #expect(made.status == 0, "\(made.complaint)")
        #expect(try run(["verify", work.store, "--key-service", bao("transit/own")], environment).status == 0)
        expect(try run(["verify", work.store, "--key-service", bao("transit/own")]), 4, "no such key")
    }

    @Test func itIsOneOfSeveralWaysIn() throws {
        try make()
        #expect(
            try run(["unlock-with", "add", work.store, work.keyService, "--key-service", bao()]).status == 0)
        let backup = try run(["backup", work.store, work("backup"), "--key-service", bao()])
        #expect(backup.status == 0 && backup.text.contains("verified"), "\(backup.complaint)")
        #expect(
            try run(["unlock-with", "change", work.store, work.keyService, "--to", bao(), "--key-service", bao()])
                .status
                == 1)
        #expect(try run(["unlock-with", "remove", work.store, bao(), "--key-service", work.keyService]).status == 0)
        expect(try run(["verify", work.store, "--key-service", bao()]), 3)
        #expect(try run(["verify", work.store, "--key-service", work.keyService]).status == 0)
        // The backup still opens by way of the service.
        #expect(try run(["restore", "--dry-run", work("backup"), "--key-service", bao()]).status == 0)
    }

    @Test func aKeyOpensOneEnvironmentUnlessItIsSaid() throws {
        try make()
        let refused = try run(["init", work("other"), "--key-service", bao()])
        expect(refused, 1, "already")
        #expect(!exists(work("other")) && refused.complaint.contains(work.store), "\(refused.complaint)")
        try bao.make("transit/keys/other", #"{"derived":true}"#)
        #expect(try run(["init", work("other"), "--key-service", bao("transit/other")]).status == 0)
        let add = ["unlock-with", "add", work("other"), bao(), "--key-service", bao("transit/other")]
        expect(try run(add), 1, "--shared")
        #expect(try run(add + ["--shared"]).status == 0)
        // A keyring that is mounted is there, one that was thrown away is not.
        try #require(try mount().status == 0)
        expect(try run(["init", work("third"), "--key-service", bao()]), 1, "already")
        unmount()
        try work.done(["rm", "-rf", work.store, work("other")])
        try make()
    }

    // MARK: The service behind its protocol

    private func service(_ key: String = "transit/prod") throws -> VaultService {
        let variables = bao.environment
        return try VaultService(String(bao(key).dropFirst("vault:".count)), settings: VaultSettings { variables[$0] })
    }

    private func context(_ store: StoreID, _ keyring: String = "k", _ purpose: SlotContext.Purpose = .slotKey)
        -> SlotContext
    {
        SlotContext(store: store, keyring: keyring, purpose: purpose)
    }

    private func same(_ a: SecretKey, _ b: SecretKey) -> Bool {
        a.withKey { a in
            let bytes = a.bytes
            return b.withKey { Memory.equal(bytes, $0.bytes) }
        }
    }

    @Test(arguments: [true, false])
    func aSlotOpensInItsContextAlone(isDerived: Bool) throws {
        try bao.make("transit/keys/plain", "{}")
        let service = try service(isDerived ? "transit/prod" : "transit/plain")
        let store = StoreID.random()
        let key = try SecretKey.random()
        let slot = try service.seal(key, for: context(store))
        #expect(slot.parameters == Array((isDerived ? "transit/prod" : "transit/plain").utf8))
        #expect(try same(service.unseal(slot, for: context(store)), key))
        for other in [context(.random()), context(store, "l"), context(store, "k", .backup)] {
            #expect(throws: KeyringError.wrongSecret) { try service.unseal(slot, for: other) }
        }
        #expect(try !self.service("transit/other").opens(slot) && service.opens(slot))
        for index in [2, 30, slot.sealedKey.count - 80, slot.sealedKey.count - 1] {
            var changed = slot
            changed.sealedKey[index] ^= 1
            #expect(throws: KeyringError.self) { try service.unseal(changed, for: context(store)) }
        }
        for count in [0, 2, 73, 74, slot.sealedKey.count - 1] {
            var cut = slot
            cut.sealedKey = Array(cut.sealedKey.prefix(count))
            #expect(throws: KeyringError.damaged("a key slot is malformed")) {
                try service.unseal(cut, for: context(store))
            }
        }
    }

    @Test func aRotatedKeyOpensOldSlotsAndRenewsThem() throws {
        let service = try service()
        let context = context(.random())
        let key = try SecretKey.random()
        let slot = try service.seal(key, for: context)
        #expect(try service.renewed(slot, for: context) == nil)
        try bao.make("transit/keys/prod/rotate", "")
        #expect(try same(service.unseal(slot, for: context), key))
        let renewed = try #require(try service.renewed(slot, for: context))
        #expect(renewed != slot)
        #expect(try same(service.unseal(renewed, for: context), key))
        try bao.make("transit/keys/prod/config", #"{"min_decryption_version":2}"#)
        #expect(try same(service.unseal(renewed, for: context), key))
        #expect(throws: KeyringError.self) { try service.unseal(slot, for: context) }
    }
}
