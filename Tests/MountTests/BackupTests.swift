import Glibc
import Testing

/// `letterlock backup` and `restore`.
@Suite("Backups", .enabled(if: !Mounted.isPlain))
struct BackupTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func run(_ words: [String]) throws -> Outcome { try work.run([try Workspace.program()] + words) }

    private var key: [String] { ["--key-service", work.keyService] }

    /// Restores a backup, mounts it beside the keyring it was made of, and unmounts it after `body`.
    private func withRestored(_ file: String, _ name: String = "restored", _ body: (String) throws -> Void) throws {
        let restored = try run(["restore", work(file), work(name)] + key)
        try #require(restored.status == 0, "\(restored.complaint)")
        let place = work(name + "-mnt")
        try check(mkdir(place, 0o755))
        let outcome = try run(["mount", work(name), place] + key)
        try #require(outcome.status == 0, "\(outcome.complaint)")
        defer { _ = try? run(["umount", place]) }
        try body(place)
    }

    private func fill() throws {
        try check(mkdir(mounted("web"), 0o750))
        try put("value", mounted("web/short"))
        try put(pattern(9000), mounted("web/body"))
        try put(pattern(1_000_000), mounted("web/blocks"))
        try work.shell("ln -s short '\(mounted("web/link"))'; setfattr -n user.note -v kept '\(mounted("web/short"))'")
    }

    @Test func aMountedKeyringIsBackedUpWithoutAKeyAndRestoredBesideIt() throws {
        try fill()
        let made = try run(["backup", work.store, work("backup")])
        #expect(made.status == 0, "\(made.complaint)")
        #expect(try attributes(work("backup")).permissions == 0o600)
        for place in [work.store, mounted.path] {
            let misplaced = try run(["backup", place, work.store + "/backup"])
            #expect(misplaced.status == 1)
            #expect(misplaced.complaint.contains("lies in the store"), "\(misplaced.complaint)")
        }
        // Nothing of it is to be seen in the file.
        for word in ["user.note", "short", "value"] {
            #expect(try work.run(["grep", "-c", "--text", word, work("backup")]).line == "0", "\(word)")
        }
        try put("newer", mounted("web/short"))
        try withRestored("backup") { place in
            #expect(try text(place + "/web/short") == "value")
            let list =
                "cd $1; find . | sort; find . -type f -exec sha256sum {} +; getfattr -d web/short; readlink web/link"
            let restored = try work.run(["bash", "-c", list, "list", place]).text
            try put("value", mounted("web/short"))
            #expect(try work.run(["bash", "-c", list, "list", mounted.path]).text == restored)
            for log in [mounted.path, place] {
                #expect(try text(log + "/.letterlock/audit/verify").hasPrefix("ok "), "\(log)")
            }
            // Each goes on by itself, and neither is a rollback of the other.
            try put("another", place + "/web/other")
        }
        for store in [work("restored"), work.store] {
            try? mounted.unmount()
            let verified = try run(["verify", store] + key)
            #expect(verified.status == 0, "\(verified.complaint)")
        }
        try mounted.mount()
        #expect(try text(mounted("web/short")) == "value")
    }

    @Test func aRestoreIsTheFirstThingThatItsLogTells() throws {
        try put("value", mounted("secret"))
        #expect(try run(["backup", work.store, work("backup")]).status == 0)
        try put("newer", mounted("secret"))
        try mounted.unmount()
        let logs = try names(work("state/audit"))
        let restored = try run(["restore", work("backup"), work("restored")] + key)
        #expect(restored.status == 0, "\(restored.complaint)")
        let log = work("state/audit/") + (try #require(try names(work("state/audit")).first { !logs.contains($0) }))
        let lines = try text(log).split(separator: "\n")
        #expect(lines.count == 3 && lines[0].contains(#""reason":"restore""#) && lines[2].contains("checkpoint"))
        #expect(lines[1].contains(#""type":"restore""#) && lines[1].contains(work("backup")), "\(lines[1])")
        // What was seen last is newer than what is accepted.
        let pick = "import json, sys; r = json.loads(sys.argv[1]); print(r['seen'] > r['epoch'] > 0)"
        #expect(try work.done(["python3", "-c", pick, String(lines[1])]).line == "True")
        #expect(try run(["audit", "verify", log]).status == 0)
        // Where nothing can be recorded nothing is restored.
        let refused = try work.run(
            [try Workspace.program(), "restore", work("backup"), work("unrecorded")] + key,
            environment: ["LETTERLOCK_STATE_DIRECTORY": "/proc/nowhere"])
        #expect(refused.status == 1 && refused.complaint.contains("audit log"), "\(refused.complaint)")
        #expect(!exists(work("unrecorded")))
    }

    @Test func anUnmountedOneIsVerifiedFromEndToEnd() throws {
        try fill()
        try mounted.unmount()
        #expect(try run(["backup", work.store, work("backup")] + key).text.contains("verified"))
        let dry = try run(["restore", "--dry-run", work("backup"), work("nowhere")] + key)
        #expect(dry.status == 0 && dry.text.contains("3 files"), "\(dry.complaint)")
        #expect(access(work("nowhere"), F_OK) != 0)
        try withRestored("backup") { place in
            let blocks = try contents(place + "/web/blocks")
            #expect(blocks == pattern(1_000_000))
        }
    }

    @Test func itIsOfOneMomentWhileWritersGoOn() throws {
        // Of each pair the second is written after the first: it may be behind by one, and never ahead.
        try check(mkdir(mounted("pairs"), 0o755))
        let script = """
            for round in $(seq 1 100000); do
                echo $round >one; echo $round >two; head -c 200000 /dev/zero >filling
                [ ! -e ../stop ] || exit 0
            done
            """
        let writer = try work.start(["bash", "-c", script], directory: mounted("pairs"))
        defer {
            kill(-writer.pid, SIGKILL)
            _ = try? writer.wait()
        }
        #expect(eventually { (try? text(mounted("pairs/two"))) != nil })
        for number in 0..<4 {
            let made = try run(["backup", work.store, work("backup-\(number)")])
            #expect(made.status == 0, "\(made.complaint)")
        }
        try put("", mounted("stop"))
        _ = try writer.wait()
        for number in 0..<4 {
            try withRestored("backup-\(number)", "restored-\(number)") { place in
                let one = try #require(Int(try text(place + "/pairs/one").dropLast()))
                let two = try #require(Int(try text(place + "/pairs/two").dropLast()))
                #expect(one == two || one == two + 1, "\(one) and \(two)")
            }
            #expect(try run(["verify", work("restored-\(number)")] + key).status == 0)
        }
    }

    @Test func whatIsCutOrDamagedOrOfAnotherKeyIsRefusedAndMakesNothing() throws {
        try fill()
        #expect(try run(["backup", work.store, work("backup")]).status == 0)
        let whole = try contents(work("backup"))
        var flipped = whole
        flipped[whole.count / 2] ^= 1
        try put(pattern(32, seed: 5), work("other"), mode: 0o600)
        let other = ["--key-service", "keyfile:" + work("other")]
        for (name, content, options, status) in [
            ("half", Array(whole.prefix(whole.count / 2)), key, 5), ("short", Array(whole.dropLast()), key, 5),
            ("head", Array(whole.prefix(30)), key, 5), ("flipped", flipped, key, 5), ("longer", whole + [0], key, 5),
            ("none", Array("text".utf8), key, 5), ("whole", whole, other, 3), ("absent", nil, key, 1),
        ] as [(String, [UInt8]?, [String], Int32)] {
            if let content { try put(content, work(name)) }
            for more in [[], ["--dry-run"]] {
                let refused = try run(["restore", work(name), work("restored")] + options + more)
                #expect(refused.status == status, "\(name): \(refused.complaint)")
                #expect(refused.complaint.hasPrefix("letterlock: ") && refused.bytes.isEmpty, "\(refused.complaint)")
                #expect(access(work("restored"), F_OK) != 0, "\(name)")
            }
        }
    }

    @Test func aFlippedBitIsNoticedWhereverItIs() throws {
        try fill()
        #expect(try run(["backup", work.store, work("backup")]).status == 0)
        let whole = try contents(work("backup"))
        // All over the head and the beginning of the first part, then here and there, and the last tag.
        let places = Array(stride(from: 0, to: 512, by: 19)) + (1..<16).map { whole.count * $0 / 16 }
        for place in places + [whole.count - 16, whole.count - 1] {
            var flipped = whole
            flipped[place] ^= 1 << UInt8(place % 8)
            try put(flipped, work("flipped"))
            let refused = try run(["restore", "--dry-run", work("flipped")] + key)
            #expect(refused.status != 0 && refused.bytes.isEmpty, "byte \(place): \(refused.complaint)")
            #expect(refused.complaint.hasPrefix("letterlock: "), "byte \(place): \(refused.complaint)")
        }
    }

    @Test func aFullDirectoryIsNotRestoredTo() throws {
        #expect(try run(["backup", work.store, work("backup")]).status == 0)
        try check(mkdir(work("full"), 0o755))
        try put("mine", work("full/file"))
        for target in [work("full"), work.store] {
            for more in [[], ["--dry-run"]] {
                #expect(try run(["restore", work("backup"), target] + key + more).status == 1)
            }
        }
        #expect(try names(work("full")) == ["file"] && (try text(work("full/file"))) == "mine")
        try check(mkdir(work("empty"), 0o755))
        #expect(try run(["restore", work("backup"), work("empty")] + key).status == 0)
        #expect(try attributes(work("empty")).permissions == 0o700)
    }

    @Test func aFullDiskKeepsTheBackupThatWasThere() throws {
        let disk = work("disk")
        try check(mkdir(disk, 0o755))
        try work.done(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk])
        defer { umount2(disk, Int32(MNT_DETACH)) }
        try put("v", mounted("small"))
        #expect(try run(["backup", work.store, disk + "/backup"]).status == 0)
        let before = try contents(disk + "/backup")
        try put(pattern(4_000_000), mounted("large"))
        let refused = try run(["backup", work.store, disk + "/backup"])
        #expect(refused.status == 1 && refused.complaint.contains("full"), "\(refused.complaint)")
        #expect(try contents(disk + "/backup") == before && names(disk) == ["backup"])
        // Nor does a disk that is too small for what is restored keep half of it.
        #expect(try run(["backup", work.store, work("backup")]).status == 0)
        let full = try run(["restore", work("backup"), disk + "/store"] + key)
        #expect(full.status == 1 && full.complaint.contains("full"), "\(full.complaint)")
        #expect(try names(disk) == ["backup"])
    }

    @Test func aServerThatDiesHasItBegunAgain() throws {
        try put(pattern(2_000_000), mounted("large"))
        let stream = try OpenFile(mounted.control("backup"), O_RDONLY)
        #expect(try stream.read(100_000, at: 0).count == 100_000)
        let generation = try mounted.process("server")
        kill(generation, SIGKILL)
        #expect(throws: Errno(ESTALE)) { _ = try stream.read(100_000, at: 100_000) }
        try stream.close()
        let made = try run(["backup", work.store, work("backup")] + key)
        #expect(made.status == 0 && made.text.contains("verified"), "\(made.complaint)")
    }

    @Test func aLockedKeyringGivesNone() throws {
        #expect(try run(["lock", mounted.path]).status == 0)
        let refused = try run(["backup", work.store, work("backup")])
        #expect(refused.status == 4, "\(refused.complaint)")
        #expect(access(work("backup"), F_OK) != 0)
        #expect(try run(["unlock", mounted.path]).status == 0)
    }

    @Test func aDamagedStoreIsNotBackedUp() throws {
        try put("one", mounted("one"))
        try put("two", mounted("two"))
        try mounted.unmount()
        let edit = StoreEdit(work: work)
        let node = try #require(try edit.records(.envelope).first)
        try edit.set(node.key, StoreEdit.flipped(node.value, at: 40))
        #expect(try run(["backup", work.store, work("backup")] + key).status == 5)
        try mounted.mount()
        let refused = try run(["backup", work.store, work("backup")])
        #expect(refused.status == 5, "\(refused.complaint)")
        #expect(access(work("backup"), F_OK) != 0)
    }
}
