import Glibc
import Testing

/// `letterlock backup --incremental`, and `restore` of a chain.
@Suite("Incremental backups", .enabled(if: !Mounted.isPlain))
struct IncrementalBackupTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func run(_ words: [String]) throws -> Outcome { try work.run([try Workspace.program()] + words) }
    private var key: [String] { ["--key-service", work.keyService] }

    private func backup(_ name: String, on base: String? = nil, _ more: [String] = []) throws -> Outcome {
        try run(["backup", work.store, work(name)] + (base.map { ["--incremental", work($0)] } ?? []) + more)
    }

    private func made(_ name: String, on base: String? = nil, _ more: [String] = []) throws {
        let outcome = try backup(name, on: base, more)
        try #require(outcome.status == 0, "\(outcome.complaint)")
    }

    private func restore(_ names: String..., to place: String) throws -> Outcome {
        try run(["restore"] + names.map { work($0) } + [work(place)] + key)
    }

    private static let list =
        "cd $1; find . | sort; find . -type f -exec sha256sum {} +; find . -printf '%p %m %T@\\n' | sort"

    private func picture(_ place: String) throws -> String {
        try work.done(["bash", "-c", Self.list, "list", place]).text
    }

    /// What a chain restores to, seen through a mount of it.
    private func restored(_ names: [String], _ name: String) throws -> String {
        let outcome = try run(["restore"] + names.map { work($0) } + [work(name)] + key)
        try #require(outcome.status == 0, "\(outcome.complaint)")
        let place = work(name + "-mnt")
        try check(mkdir(place, 0o755))
        let up = try run(["mount", work(name), place] + key)
        try #require(up.status == 0, "\(up.complaint)")
        defer { _ = try? run(["umount", place]) }
        #expect(try text(place + "/.letterlock/audit/verify").hasPrefix("ok "))
        return try picture(place)
    }

    private func size(_ name: String) throws -> Int64 { Int64(try attributes(work(name)).st_size) }

    private func change(_ round: Int) throws {
        try put("round \(round)", mounted("web/short"))
        try put(pattern(150_000, seed: UInt64(round)), mounted("web/new-\(round)"))
        try work.shell(
            "cd '\(mounted.path)/web'; mv body moved-\(round); cp moved-\(round) body; rm -f new-\(round - 1); "
                + "dd if=/dev/urandom of=blocks bs=4096 seek=\(round) count=1 conv=notrunc status=none; mkdir d\(round)"
        )
        try mounted.command("1", "keys/rotate")
    }

    private func fill() throws {
        try check(mkdir(mounted("web"), 0o750))
        try put(pattern(9000), mounted("web/body"))
        try put(pattern(3_000_000), mounted("web/blocks"))
    }

    @Test func aChainIsMadeWhileMountedAndRestoredToAnyOfItsEnds() throws {
        try fill()
        try made("full")
        var pictures = [try picture(mounted.path)]
        for round in 1...3 {
            try change(round)
            // With a key and without.
            try made("part-\(round)", on: round == 1 ? "full" : "part-\(round - 1)", round == 2 ? key : [])
            pictures.append(try picture(mounted.path))
            #expect(try size("part-\(round)") < 400_000 && size("full") > 3_000_000)
            #expect(try attributes(work("part-\(round)")).permissions == 0o600)
        }
        let chain = ["full", "part-1", "part-2", "part-3"]
        for (count, picture) in pictures.enumerated() {
            #expect(try restored(Array(chain[...count]), "restored-\(count)") == picture, "\(count)")
        }
        // Of what changed since the full one there may be several.
        try made("differential", on: "full", key)
        #expect(try restored(["full", "differential"], "restored-d") == pictures[3])
        // A server that took over, and one that was mounted anew, remember as well.
        kill(try mounted.process("server"), SIGKILL)
        try made("after-kill", on: "part-3")
        try mounted.remount()
        try change(4)
        try made("after-mount", on: "after-kill")
        let now = try picture(mounted.path)
        try mounted.unmount()
        let verified = try backup("unmounted", on: "after-mount", key)
        #expect(verified.text.contains("verified") && verified.text.contains("changed"), "\(verified.complaint)")
        #expect(try restored(chain + ["after-kill", "after-mount", "unmounted"], "restored-all") == now)
        // What was added since opens the last one, and with it all.
        try put(pattern(32, seed: 3), work("key2"), mode: 0o600)
        let key2 = ["--key-service", "keyfile:" + work("key2")]
        #expect(try run(["unlock-with", "add", work.store, key2[1]] + key).status == 0)
        try made("added", on: "full", key)
        #expect(try run(["restore", work("full"), work("added"), work("restored-added")] + key2).status == 0)
        #expect(try run(["verify", work("restored-added")] + key2).status == 0)
        let dry = try run(["restore", "--dry-run"] + (chain + ["after-kill"]).map { work($0) } + key)
        #expect(dry.status == 0 && dry.text.contains("all of it verified"), "\(dry.complaint)")
        let free = try run(["restore", "--dry-run", work("full"), work("part-1"), work("free")] + key)
        #expect(free.status == 0 && !exists(work("free")), "\(free.complaint)")
    }

    @Test func whatIsNoChainIsRefusedByName() throws {
        try fill()
        try made("full")
        try put("x", mounted("x"))
        try made("one", on: "full")
        try put("y", mounted("y"))
        try made("two", on: "one")
        try made("full-2")
        for (names, words) in [
            (["one"], ["one", "holds only what has changed"]),
            (["full", "two"], ["two", "does not follow", "missing"]),
            (["full", "two", "one"], ["two", "follows", "one"]), (["full", "full-2"], ["full-2", "is a full backup"]),
            (["full-2", "one"], ["one", "does not follow"]), (["full", "one", "one"], ["follows"]),
        ] {
            for more in [[work("restored")], ["--dry-run"], ["--dry-run", work("restored")]] {
                let refused = try run(["restore"] + names.map { work($0) } + more + key)
                #expect(refused.status == 1 && refused.bytes.isEmpty, "\(names): \(refused.complaint)")
                for word in words { #expect(refused.complaint.contains(word), "\(refused.complaint)") }
                #expect(!exists(work("restored")))
            }
        }
        // Nor is one made on what is none, or over its base.
        try put("text", work("text"))
        for (base, target, status) in [
            ("absent", "b", 1), ("text", "b", 5), ("full", "full", 2),
        ] as [(String, String, Int32)] {
            let refused = try backup(target, on: base)
            #expect(refused.status == status && !exists(work("b")), "\(base): \(refused.complaint)")
        }
        #expect(try run(["restore", "--dry-run", work("full")] + key).status == 0)
        #expect(try run(["init", work("other"), "--key-service", work.keyService]).status == 0)
        let foreign = try run(["backup", work("other"), work("b"), "--incremental", work("full")] + key)
        #expect(foreign.status == 1 && foreign.complaint.contains("another keyring"), "\(foreign.complaint)")
    }

    @Test func aBaseThatIsNotRememberedAsksForAFullOne() throws {
        try fill()
        try made("full")
        try work.shell("rm '\(work("state"))'/*.catalogue")
        let refused = try backup("one", on: "full")
        #expect(refused.status == 1 && refused.complaint.contains("make a full one"), "\(refused.complaint)")
        try made("full")
        try mounted.unmount()
        try put(pattern(32, seed: 8), work("key2"), mode: 0o600)
        let changed = try run(["unlock-with", "change", work.store, work.keyService, "--to", "keyfile:" + work("key2")])
        #expect(changed.status == 0, "\(changed.complaint)")
        let other = ["--key-service", "keyfile:" + work("key2")]
        let rekeyed = try backup("one", on: "full", other)
        #expect(rekeyed.status == 1 && rekeyed.complaint.contains("key has changed"), "\(rekeyed.complaint)")
        #expect(!exists(work("one")))
        // A restored keyring has none of its past.
        try made("full-2", on: nil, other)
        #expect(try run(["restore", work("full-2"), work("restored")] + other).status == 0)
        let branch = try run(["backup", work("restored"), work("one"), "--incremental", work("full-2")] + other)
        #expect(branch.status == 1 && branch.complaint.contains("not remembered"), "\(branch.complaint)")
    }

    @Test func whatIsCutFlippedOrOfAnotherKeyMakesNothing() throws {
        try fill()
        try made("full")
        try change(1)
        try made("one", on: "full")
        let whole = try contents(work("one"))
        try put(pattern(32, seed: 5), work("other"), mode: 0o600)
        func refused(_ bytes: [UInt8], _ options: [String], _ status: Int32, _ what: String) throws {
            try put(bytes, work("bad"))
            for more in [[work("restored")], ["--dry-run"]] {
                let outcome = try run(["restore", work("full"), work("bad")] + more + options)
                #expect(outcome.status == status && outcome.bytes.isEmpty, "\(what): \(outcome.complaint)")
                #expect(outcome.complaint.hasPrefix("letterlock: "))
                #expect(!exists(work("restored")))
            }
        }
        for count in [40, 70, 200, whole.count / 2, whole.count - 1] {
            try refused(Array(whole[..<count]), key, 5, "\(count) bytes")
        }
        for place in [20, 60, 100, 400, whole.count / 3, whole.count / 2, whole.count - 20] {
            var flipped = whole
            flipped[place] ^= 0x10
            // A base that is another one is missing.
            try refused(flipped, key, (52..<84).contains(place) ? 1 : 5, "byte \(place)")
        }
        try refused(whole, ["--key-service", "keyfile:" + work("other")], 3, "another key")
    }

    @Test func aFullDiskKeepsWhatWasThere() throws {
        let disk = work("disk")
        try check(mkdir(disk, 0o755))
        try work.done(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk])
        defer { umount2(disk, Int32(MNT_DETACH)) }
        try put("v", mounted("small"))
        try made("full")
        #expect(try run(["backup", work.store, disk + "/one", "--incremental", work("full")]).status == 0)
        let before = try contents(disk + "/one")
        try put(pattern(3_000_000), mounted("large"))
        let refused = try run(["backup", work.store, disk + "/one", "--incremental", work("full")])
        #expect(refused.status == 1 && refused.complaint.contains("full"), "\(refused.complaint)")
        #expect(try contents(disk + "/one") == before && names(disk) == ["one"])
        // What is restored of a chain is whole or not there.
        try made("two", on: "full")
        let full = try run(["restore", work("full"), work("two"), disk + "/store"] + key)
        #expect(full.status == 1 && full.complaint.contains("full"), "\(full.complaint)")
        #expect(try names(disk) == ["one"])
        // A state directory without room costs the next one, not this one.
        try mounted.unmount()
        try work.done(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", work("state")])
        defer { umount2(work("state"), Int32(MNT_DETACH)) }
        try mounted.mount("audit=off")
        try mounted.unmount()
        try work.shell("cat /dev/zero >'\(work("state/filling"))' || true")
        let warned = try backup("three", on: nil, key)
        #expect(warned.status == 0 && warned.complaint.contains("no incremental"), "\(warned.complaint)")
        #expect(try !names(work("state")).contains { $0.contains("catalogue") })
    }

    @Test func theControlFileTakesWhatIsWanted() throws {
        try put("v", mounted("f"))
        let file = try OpenFile(mounted.control("backup"), O_RDWR)
        for wrong in [
            "since=12", "since", "recipient=age1x", "recipient=/etc/passwd", "now",
            "since=\(String(repeating: "g", count: 64))",
        ] {
            expectErrno(EINVAL) { try file.write(wrong) }
        }
        expectErrno(ENODATA) { try file.write("since=" + String(repeating: "0", count: 64)) }
        try file.close()
        #expect(try attributes(mounted.control("backup")).permissions == 0o600)
        // As a shell has it.
        try made("full")
        let id =
            "sys.stdout.write(hashlib.blake2b(d[:52+int.from_bytes(d[48:52],'little')],digest_size=32).hexdigest())"
        let script = "import hashlib, sys; d = open(sys.argv[1], 'rb').read(); \(id)"
        try put("w", mounted("f"))
        try work.shell(
            "exec 3<>'\(mounted.control("backup"))'; printf 'since=%s' $(python3 -c \"\(script)\" '\(work("full"))') >&3; "
                + "cat <&3 >'\(work("one"))'")
        #expect(try restore("full", "one", to: "restored").status == 0)
    }

    @Test func aRecipientOpensItsBackupAndNoOther() throws {
        for name in ["safe", "stranger"] { try work.done(["age-keygen", "-o", work(name)]) }
        let recipient = try work.done(["age-keygen", "-y", work("safe")]).line
        func opens(_ names: [String], _ identity: String, _ status: Int32) throws {
            let outcome = try run(
                ["restore", "--dry-run"] + names.map { work($0) } + ["--key-service", "age:" + work(identity)])
            #expect(outcome.status == status, "\(names) \(identity): \(outcome.complaint)")
        }
        try put("value", mounted("f"))
        try made("plain")
        try made("escrowed", on: nil, ["--recovery-recipient", recipient] + key)
        try put("newer", mounted("f"))
        try made("plain-part", on: "escrowed")
        try made("escrowed-part", on: "plain", ["--recovery-recipient", recipient])
        try opens(["plain"], "safe", 3)
        try opens(["escrowed"], "safe", 0)
        try opens(["escrowed"], "stranger", 3)
        // What opens the last of a chain opens it all.
        try opens(["escrowed", "plain-part"], "safe", 3)
        try opens(["plain", "escrowed-part"], "safe", 0)
        #expect(try run(["restore", "--dry-run", work("escrowed")] + key).status == 0)
        #expect(try run(["backup", work.store, work("b"), "--recovery-recipient", "nobody"]).status == 2)
        try mounted.unmount()
        try made("offline", on: nil, ["--recovery-recipient", recipient] + key)
        try opens(["offline"], "safe", 0)
        // It opens nothing else, until a keyring is restored with it.
        let safe = ["--key-service", "age:" + work("safe")]
        #expect(try run(["verify", work.store] + safe).status == 3)
        #expect(try run(["restore", work("offline"), work("mine")] + key).status == 0)
        #expect(try run(["verify", work("mine")] + safe).status == 3)
        #expect(try run(["restore", work("offline"), work("rescued")] + safe).status == 0)
        #expect(try run(["verify", work("rescued")] + safe).status == 0)
        #expect(try run(["unlock-with", "list", work("rescued")]).text.contains("age:" + recipient))
    }
}
