import Glibc
import Testing

@Suite("Tampering from outside is noticed, named, and never served", .enabled(if: !Mounted.isPlain))
struct TamperingTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }
    var edit: StoreEdit { StoreEdit(work: mounted.workspace) }

    init() throws { mounted = try Mounted() }

    private func verify() throws -> Outcome {
        try work.letterlock("verify", mounted.store, "--key-service", work.keyService)
    }

    private func expectNamed(_ comment: Comment? = nil, at place: SourceLocation = #_sourceLocation) throws {
        let outcome = try verify()
        #expect(outcome.status == 5, comment, sourceLocation: place)
        #expect(
            !(outcome.text + outcome.complaint).isEmpty, "verify has to say what is wrong", sourceLocation: place)
    }

    private func expectClean(at place: SourceLocation = #_sourceLocation) throws {
        let outcome = try verify()
        #expect(outcome.status == 0, "\(outcome.complaint)\(outcome.text)", sourceLocation: place)
    }

    /// What reading `names` gives: the contents' length, or the error number.
    private func reads(_ names: [String]) -> [String: Int32] {
        var results: [String: Int32] = [:]
        for name in names {
            do throws(Errno) {
                _ = try contents(mounted(name))
                results[name] = 0
            } catch { results[name] = error.value }
        }
        return results
    }

    /// Two small files and two of several blocks; the records and the blocks of each, as the store's keys show.
    private func fourFiles() throws {
        for name in ["a", "b"] { try put("secret of " + name, mounted(name)) }
        for (seed, name) in ["big-a", "big-b"].enumerated() {
            try put(pattern(40_000, seed: UInt64(seed + 1)), mounted(name))
        }
    }
    private let four = ["a", "b", "big-a", "big-b"]

    @Test func aCleanStoreVerifies() throws {
        try fourFiles()
        try mounted.unmount()
        try expectClean()
        try expectClean()
        try mounted.mount()
        #expect(try mounted.answer("status").contains("\"last_verify\":\"20"))
        #expect(Set(reads(four).values) == [0])
    }

    @Test func aBitFlippedInAnyRecordIsNamed() throws {
        try fourFiles()
        try check(symlink("a", mounted("link")))
        try setExtendedAttribute(mounted("a"), "user.colour", "blue")
        try mounted.unmount()
        let records = try edit.records()
        for (key, value) in records where StoreEdit.Kind(rawValue: String(key.prefix(2))) != nil {
            for byte in [0, value.count / 4, value.count / 2 - 1] {
                try edit.set(key, StoreEdit.flipped(value, at: byte))
                try expectNamed("record \(key), byte \(byte)")
            }
            try edit.set(key, value)
        }
        try expectClean()
    }

    @Test func aMissingRecordIsNamed() throws {
        try fourFiles()
        try check(symlink("a", mounted("link")))
        try setExtendedAttribute(mounted("a"), "user.colour", "blue")
        try mounted.unmount()
        for (key, value) in try edit.records() where StoreEdit.Kind(rawValue: String(key.prefix(2))) != nil {
            try edit.delete(key)
            try expectNamed("without record \(key)")
            try edit.set(key, value)
        }
        try expectClean()
    }

    @Test func damagedContentsAreRefusedAndTheOthersServed() throws {
        try fourFiles()
        try mounted.unmount()
        for (key, value) in try edit.records(.envelope) {
            try edit.set(key, StoreEdit.flipped(value, at: value.count / 2 - 1))
            try mounted.mount()
            let seen = reads(four)
            #expect(seen.values.filter { $0 == EBADMSG }.count == 1, "\(seen)")
            #expect(seen.values.filter { $0 == 0 }.count == 3, "\(seen)")
            #expect(!(try mounted.answer("status")).contains("\"problems\":[]"))
            let damaged = try #require(seen.first { $0.value != 0 }?.key)
            expectErrno(EBADMSG) { _ = try OpenFile(mounted(damaged), O_RDONLY).read(1, at: 0) }
            #expect(try names(mounted.path) == four)
            try put("new", mounted("c"))
            #expect(try text(mounted("c")) == "new")
            expectDone(unlink(mounted("c")))
            try mounted.unmount()
            let verified = try verify()
            #expect(verified.status == 5 && verified.text.contains("/\(damaged): "), "\(verified.text)")
            try edit.set(key, value)
        }
    }

    @Test func aDamagedBlockIsRefusedAndTheOthersServed() throws {
        try fourFiles()
        try mounted.unmount()
        let size = try attributes(mounted.store + "/blocks").st_size
        var damagedFiles: Set<String> = []
        for block in 0..<size / 4096 {
            let file = try OpenFile(mounted.store + "/blocks", O_RDWR)
            let before = try file.read(4096, at: block * 4096)
            guard before.contains(where: { $0 != 0 }) else { continue }
            let changed = [before[100] ^ 0x10]
            try check(pwrite(file.descriptor, changed, 1, block * 4096 + 100))
            if block % 4 == 0 { try expectNamed("block \(block)") }
            try mounted.mount()
            let damaged = reads(four).filter { $0.value != 0 }
            #expect(damaged.count == 1 && damaged.first?.value == EBADMSG, "\(damaged)")
            damagedFiles.formUnion(damaged.keys)
            try mounted.unmount()
            try check(pwrite(file.descriptor, before, 4096, block * 4096))
        }
        #expect(damagedFiles == ["big-a", "big-b"])
        try expectClean()
    }

    @Test func aTruncatedBlockFileIsNamed() throws {
        try fourFiles()
        try mounted.unmount()
        let size = try attributes(mounted.store + "/blocks").st_size
        expectDone(truncate(mounted.store + "/blocks", size / 2))
        try expectNamed()
        try mounted.mount()
        let seen = reads(four)
        #expect(seen["a"] == 0 && seen["b"] == 0)
        #expect(seen.values.contains(EBADMSG))
        #expect(Set(seen.values).isSubset(of: [0, EBADMSG]))
    }

    @Test func swappedContentsAreRefused() throws {
        try fourFiles()
        try mounted.unmount()
        let small = try edit.records(.envelope).sorted { $0.value.count < $1.value.count }
        // The two small files' envelopes hold their contents: they are alike in size and larger than none.
        let pair = small.filter { one in small.contains { $0.key != one.key && $0.value.count == one.value.count } }
        #expect(pair.count >= 2)
        try edit.set(pair[0].key, pair[1].value)
        try edit.set(pair[1].key, pair[0].value)
        try expectNamed()
        try mounted.mount()
        let seen = reads(four)
        #expect(seen.values.filter { $0 == EBADMSG }.count == 2, "\(seen)")
        #expect(seen.values.filter { $0 == 0 }.count == 2, "\(seen)")
    }

    @Test func anOldValuePutBackIsRefused() throws {
        try fourFiles()
        try mounted.unmount()
        let before = try edit.records()
        try mounted.mount()
        // In place, so that the same record holds the new value.
        let file = try OpenFile(mounted("a"), O_WRONLY)
        try file.write("SECRET", at: 0)
        try file.close()
        try mounted.unmount()
        let after = try edit.records()
        var replayed = 0
        for kind in [StoreEdit.Kind.envelope, .node] {
            for (key, value) in before where key.hasPrefix(kind.rawValue) && after[key] != nil && after[key] != value {
                try edit.set(key, value)
                try expectNamed("replayed \(key)")
                try mounted.mount()
                let seen = reads(four)
                #expect(seen["a"] == EBADMSG, "\(seen)")
                #expect(seen.filter { $0.key != "a" }.values.allSatisfy { $0 == 0 }, "\(seen)")
                try mounted.unmount()
                try edit.set(key, after[key] ?? "")
                replayed += 1
            }
        }
        #expect(replayed > 0)
        for (key, value) in before where key.hasPrefix(StoreEdit.Kind.localizer.rawValue) {
            try edit.set(key, value)
            try expectNamed("replayed \(key)")
            try edit.set(key, after[key] ?? "")
        }
        try expectClean()
    }

    @Test func aDeletedFilePutBackIsNotServed() throws {
        try fourFiles()
        try mounted.unmount()
        let before = try edit.records()
        try mounted.mount()
        expectDone(unlink(mounted("a")))
        try mounted.unmount()
        let after = try edit.records()
        for (key, value) in before where after[key] == nil { try edit.set(key, value) }
        try expectNamed()
        try mounted.mount()
        #expect(reads(["a"])["a"] != 0)
        #expect(reads(["b", "big-a", "big-b"]).values.allSatisfy { $0 == 0 })
    }

    @Test func anOldCopyOfTheWholeStoreIsRefusedUntilAccepted() throws {
        try put("old", mounted("a"))
        try mounted.unmount()
        try edit.copy(to: "backup")
        try mounted.mount()
        try put("new", mounted("a"))
        try mounted.unmount()
        try edit.takeBack("backup")
        let refused = try work.letterlock("mount", mounted.store, mounted.path, "--key-service", work.keyService)
        #expect(refused.status == 5, "\(refused.complaint)")
        #expect(refused.complaint.contains("accept-rollback"), "\(refused.complaint)")
        #expect(try verify().status == 5)
        try mounted.mount("accept-rollback")
        #expect(try text(mounted("a")) == "old")
        try put("newer", mounted("a"))
        try mounted.remount()
        #expect(try text(mounted("a")) == "newer")
    }

    @Test func whatRecordsTheKeysCannotBeForged() throws {
        try put("x", mounted("a"))
        try mounted.command("1", "keys/rotate")
        try mounted.command("disable", "keys/1/state")
        try mounted.unmount()
        for kind in [StoreEdit.Kind.configuration, .lifecycle, .treeKey, .root] {
            for (key, value) in try edit.records(kind) {
                try edit.set(key, StoreEdit.flipped(value, at: value.count / 4))
                let refused = try work.letterlock(
                    "mount", mounted.store, mounted.path, "--key-service", work.keyService)
                #expect(refused.status == 5, "\(kind): \(refused.status) \(refused.complaint)")
                try edit.set(key, value)
            }
        }
        try mounted.mount()
        #expect(try mounted.answer("keys/1/state") == "disabled")
    }

    @Test func aHostileSchemaIsRefused() throws {
        try put("x", mounted("a"))
        try mounted.unmount()
        try edit.sql("CREATE TRIGGER t AFTER UPDATE ON record BEGIN DELETE FROM record; END;")
        let refused = try work.letterlock("mount", mounted.store, mounted.path, "--key-service", work.keyService)
        #expect(refused.status == 5, "\(refused.complaint)")
        try edit.sql("DROP TRIGGER t;")
        try mounted.mount()
        #expect(try text(mounted("a")) == "x")
    }

    @Test func aFileThatIsNoDatabaseAnyMoreIsRefused() throws {
        try put("x", mounted("a"))
        try mounted.unmount()
        let database = try OpenFile(mounted.store + "/records.sqlite", O_RDWR)
        let page = try database.read(4096, at: 0)
        try check(pwrite(database.descriptor, [UInt8](repeating: 0xA5, count: 4096), 4096, 0))
        let refused = try work.letterlock("mount", mounted.store, mounted.path, "--key-service", work.keyService)
        #expect(refused.status == 5 || refused.status == 1, "\(refused.status) \(refused.complaint)")
        #expect(refused.complaint.hasPrefix("letterlock: "))
        try check(pwrite(database.descriptor, page, 4096, 0))
        try expectClean()
    }

    @Test func noOneIsTrickedByAnotherStoresRecords() throws {
        try put("x", mounted("a"))
        try mounted.unmount()
        try edit.copy(to: "kept")
        let made = try work.letterlock("init", work("second"), "--key-service", work.keyService)
        #expect(made.status == 0)
        try work.shell("cp -a '\(work("second"))'/. '\(mounted.store)'/")
        // Another store of the same key, in the first one's place, is another store: it mounts, but holds nothing.
        let outcome = try work.letterlock("mount", mounted.store, mounted.path, "--key-service", work.keyService)
        if outcome.status == 0 {
            #expect(try names(mounted.path) == [])
            #expect(try work.letterlock("umount", mounted.path).status == 0)
        }
        try edit.takeBack("kept")
        let second = StoreEdit(work: work)
        let foreign = try work.done([
            "sqlite3", work("second/records.sqlite"), "SELECT hex(value) FROM record WHERE hex(key) LIKE '03%'",
        ]).line
        let own = try #require(try second.records(.lifecycle).first)
        try edit.set(own.key, foreign)
        #expect(try work.letterlock("mount", mounted.store, mounted.path, "--key-service", work.keyService).status == 5)
        try edit.set(own.key, own.value)
        try expectClean()
    }
}
