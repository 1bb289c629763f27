import Glibc
import Testing

/// `letterlock unlock-with`: several services that open one keyring.
@Suite("What opens a keyring, changed", .enabled(if: !Mounted.isPlain))
struct SlotCommandTests {
    let work: Workspace

    init() throws {
        work = try Workspace()
        for (seed, name) in ["key2", "key3"].enumerated() {
            try put(pattern(32, seed: UInt64(900 + seed)), work(name), mode: 0o600)
        }
        try put("old passphrase\n", work("old"), mode: 0o600)
        try put("new passphrase\n", work("new"), mode: 0o600)
        let made = try work.letterlock("init", work.store, "--name", "trial", "--key-service", work.keyService)
        guard made.status == 0 else { throw HarnessError(made.complaint) }
    }

    private func run(_ words: String...) throws -> Outcome { try work.run([try Workspace.program()] + words) }
    private func run(_ words: [String]) throws -> Outcome { try work.run([try Workspace.program()] + words) }
    private func key(_ name: String) -> String { "keyfile:" + work(name) }

    private func slots(_ action: String, _ rest: String...) throws -> Outcome {
        try run(["unlock-with", action, work.store] + rest)
    }

    /// Exit codes of `verify` with each key.
    private func opens(_ keys: String...) throws -> [Int32] {
        try keys.map { try run("verify", work.store, "--key-service", $0).status }
    }

    private func listed() throws -> String {
        try work.done(
            [
                "python3", "-c",
                "import json, sys; print(*[s['key_service'] for s in json.load(sys.stdin)])",
            ], input: try slots("list", "--json").text
        ).line
    }

    @Test func aSecondKeyOpensAndAThirdDoesNot() throws {
        #expect(try slots("add", key("key2"), "--key-service", work.keyService).status == 0)
        #expect(try opens(work.keyService, key("key2"), key("key3")) == [0, 0, 3])
        #expect(try listed() == "keyfile keyfile")
        #expect(try slots("list").text.contains("keyfile"))
        // Twice the same is a mistake.
        let again = try slots("add", key("key2"), "--key-service", work.keyService)
        #expect(again.status == 1 && again.complaint.contains("already"), "\(again.complaint)")
        #expect(try listed() == "keyfile keyfile")
    }

    @Test func aPassphraseIsAddedChangedAndRemoved() throws {
        // What is opened with a key file leaves the passphrase options to what is added.
        #expect(
            try slots("add", "passphrase", "--key-service", work.keyService, "--passphrase-file", work("old")).status
                == 0)
        #expect(try run("verify", work.store, "--passphrase-file", work("old")).status == 0)
        let changed = try slots(
            "change", "passphrase", "--passphrase-file", work("old"), "--new-passphrase-file", work("new"))
        #expect(changed.status == 0 && changed.text.contains("old"), "\(changed.complaint)")
        #expect(try run("verify", work.store, "--passphrase-file", work("old")).status == 3)
        #expect(try run("verify", work.store, "--passphrase-file", work("new")).status == 0)
        #expect(try opens(work.keyService) == [0])
        let wrong = try slots(
            "change", "passphrase", "--passphrase-file", work("old"), "--new-passphrase-file", work("new"))
        #expect(wrong.status == 3)
        #expect(try slots("remove", "passphrase", "--key-service", work.keyService).status == 0)
        #expect(try run("verify", work.store, "--passphrase-file", work("new")).status == 3)
        #expect(try opens(work.keyService) == [0])
    }

    @Test func theLastOneStays() throws {
        let refused = try slots("remove", work.keyService)
        #expect(refused.status == 1 && refused.complaint.contains("last"), "\(refused.complaint)")
        #expect(try opens(work.keyService) == [0])
        for spec in ["7", "0", "passphrase", "nonsense"] {
            let status = try slots("remove", spec, "--key-service", work.keyService).status
            #expect(status == 1 || status == 2, "\(spec)")
        }
        #expect(try listed() == "keyfile")
    }

    @Test func ofSeveralKeyFilesTheOneThatIsNamedGoes() throws {
        for name in ["key2", "key3"] {
            #expect(try slots("add", key(name), "--key-service", work.keyService).status == 0)
        }
        #expect(try slots("remove", key("key2"), "--key-service", key("key3")).status == 0)
        #expect(try opens(work.keyService, key("key2"), key("key3")) == [0, 3, 0])
        // By its number, without its key.
        #expect(try slots("remove", "1", "--key-service", key("key3")).status == 0)
        #expect(try opens(work.keyService, key("key3")) == [3, 0])
    }

    @Test func anOldCopyOfARemovedSlotOpensNothingNew() throws {
        #expect(try slots("add", key("key2"), "--key-service", work.keyService).status == 0)
        let edit = StoreEdit(work: work)
        let old = try edit.records()
        #expect(try run("mount", work.store, work("mnt"), "--key-service", work.keyService).status == 0)
        try put("older", work("mnt/secret"))
        #expect(try run("umount", work("mnt")).status == 0)
        #expect(try slots("remove", key("key2"), "--key-service", work.keyService).status == 0)
        #expect(try run("mount", work.store, work("mnt"), "--key-service", work.keyService).status == 0)
        try put("newer", work("mnt/secret"))
        #expect(try text(work("mnt/.letterlock/keys/primary")) == "2\n")
        // The log goes on, signed by the same key.
        #expect(try text(work("mnt/.letterlock/audit/verify")).hasPrefix("ok "))
        #expect(try run("umount", work("mnt")).status == 0)
        let now = try edit.records()
        // The configuration alone, then with all that is sealed under its root key.
        for kinds in [
            [StoreEdit.Kind.configuration], [.configuration, .lifecycle], [.configuration, .lifecycle, .root],
        ] {
            for kind in kinds {
                for (key, value) in old where key.hasPrefix(kind.rawValue) { try edit.set(key, value) }
            }
            #expect(try opens(key("key2")) == [5], "\(kinds)")
        }
        for (key, value) in now { try edit.set(key, value) }
        #expect(try opens(work.keyService, key("key2")) == [0, 3])
    }

    @Test func aMountedKeyringIsBusyAndListsItsServices() throws {
        #expect(try run("mount", work.store, work("mnt"), "--key-service", work.keyService).status == 0)
        defer { _ = try? run("umount", work("mnt")) }
        for words in [["add", work.store, key("key2")], ["remove", work.store, "1"], ["change", work.store, "1"]] {
            let refused = try run(["unlock-with"] + words + ["--key-service", work.keyService])
            #expect(refused.status == 6, "\(words): \(refused.complaint)")
        }
        #expect(try listed() == "keyfile")
        #expect(try run("unlock-with", "list", work("mnt")).text.contains("keyfile"))
    }

    @Test func aLockedMountIsUnlockedByEitherKey() throws {
        #expect(
            try slots("add", "passphrase", "--key-service", work.keyService, "--passphrase-file", work("old")).status
                == 0)
        #expect(try run("mount", work.store, work("mnt"), "--key-service", work.keyService).status == 0)
        defer { _ = try? run("umount", work("mnt")) }
        try put("v", work("mnt/secret"))
        for more in [[], ["--passphrase-file", work("old")]] {
            #expect(try run("lock", work("mnt")).status == 0)
            let unlocked = try run(["unlock", work("mnt")] + more)
            #expect(unlocked.status == 0, "\(more): \(unlocked.complaint)")
            #expect(try text(work("mnt/secret")) == "v")
        }
        #expect(try run("lock", work("mnt")).status == 0)
        #expect(try run("unlock", work("mnt"), "--passphrase-file", work("new")).status == 3)
        #expect(try run("unlock", work("mnt")).status == 0)
    }

    @Test func aRecoveryPhraseIsWrittenForItsOwnerAloneAndOpens() throws {
        let other = work("other")
        let made = try run(
            "init", other, "--key-service", work.keyService, "--recovery", "--recovery-file", work("phrase"))
        #expect(made.status == 0, "\(made.complaint)")
        let phrase = try text(work("phrase"))
        #expect(phrase.utf8.count == 45 && !made.text.contains(phrase.prefix(9)))
        #expect(try attributes(work("phrase")).permissions == 0o600)
        let words = ["verify", other, "--key-service", "recovery", "--passphrase-file"]
        #expect(try run(words + [work("phrase")]).status == 0)
        try put(phrase.lowercased().replacing("-", with: " "), work("typed"), mode: 0o600)
        #expect(try run(words + [work("typed")]).status == 0)
        try put("AAAA" + phrase.dropFirst(4), work("typed"), mode: 0o600)
        #expect(try run(words + [work("typed")]).status == 3)
        // It mounts, too, and is added to a keyring that has none.
        #expect(
            try run(
                "mount", other, work("mnt"), "--key-service", "recovery", "--passphrase-file", work("phrase")
            ).status == 0)
        #expect(try run("umount", work("mnt")).status == 0)
        let added = try slots("add", "recovery", "--key-service", work.keyService, "--recovery-file", work("second"))
        #expect(added.status == 0, "\(added.complaint)")
        #expect(try listed() == "keyfile recovery")
        // A log is no place for it, and a file that is there is not overwritten.
        let refused = try slots("add", "recovery", "--key-service", work.keyService)
        #expect(refused.status == 2 && refused.text.isEmpty)
        #expect(
            try slots("add", "recovery", "--key-service", work.keyService, "--recovery-file", work("second")).status
                == 1)
        #expect(try listed() == "keyfile recovery")
        #expect(try slots("remove", "recovery", "--key-service", work.keyService).status == 0)
        #expect(
            try run("verify", work.store, "--key-service", "recovery", "--passphrase-file", work("second")).status == 3)
    }

    @Test func aStoreThatIsDamagedIsNotRekeyed() throws {
        #expect(try slots("add", key("key2"), "--key-service", work.keyService).status == 0)
        #expect(try run("mount", work.store, work("mnt"), "--key-service", work.keyService).status == 0)
        try put("v", work("mnt/secret"))
        #expect(try run("umount", work("mnt")).status == 0)
        let edit = StoreEdit(work: work)
        let node = try #require(try edit.records(.envelope).first)
        try edit.set(node.key, StoreEdit.flipped(node.value, at: 40))
        for words in [["remove", "2"], ["add", key("key3")], ["change", "2", "--to", key("key3")]] {
            let refused = try run(
                ["unlock-with", words[0], work.store] + words[1...] + ["--key-service", work.keyService])
            #expect(refused.status == 5, "\(words): \(refused.complaint)")
        }
        #expect(try listed() == "keyfile keyfile")
    }
}
