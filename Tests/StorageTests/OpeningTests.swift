import Glibc
import Testing

@testable import Storage

@Suite struct OpeningTests {
    private func made(_ scratch: Scratch) throws -> String {
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        try store.put(key(1), [1])
        try store.close()
        return path
    }

    private func sql(_ path: String, _ statements: String) {
        #expect(run("sqlite3", "-batch", path + "/records.sqlite", statements) == 0)
    }

    @Test func `a new store is its owner's alone`() throws {
        let scratch = Scratch()
        let path = try made(scratch)
        var status = stat()
        stat(path, &status)
        #expect(status.st_mode & 0o7777 == 0o700)
        let names = files(in: path).keys.sorted()
        #expect(Set(names).isSubset(of: ["blocks", "journal.0", "journal.1", "lock", "records.sqlite", "reserve"]))
        for name in names {
            stat(path + "/" + name, &status)
            #expect(status.st_mode & 0o7777 == 0o600, "\(name)")
        }
    }

    @Test func `a directory that is not empty is left as it is`() throws {
        let scratch = Scratch()
        put([1], at: scratch.place("mine"))
        let error = storageError { _ = try JournaledStore.create(at: scratch.path) }
        #expect(error == .notAStore("\(scratch.path) is not empty"))
        #expect(files(in: scratch.path) == ["mine": [1]])
        let path = try made(scratch)
        #expect(storageError { _ = try JournaledStore.create(at: path) } == .notAStore("\(path) is not empty"))
        let store = try JournaledStore.open(at: path)
        #expect(try store.value(key(1)) == [1])
        try store.close()
    }

    @Test func `what is no store is said to be none`() throws {
        let scratch = Scratch()
        func isNone(_ path: String) -> Bool {
            guard case .notAStore = storageError({ _ = try JournaledStore.open(at: path) }) else { return false }
            return true
        }
        #expect(isNone(scratch.place("absent")))
        #expect(isNone(scratch.path))
        put([1], at: scratch.place("file"))
        #expect(isNone(scratch.place("file")))
        // As a crash within its making leaves it.
        let path = try made(scratch)
        run("mv", path + "/records.sqlite", path + "/records.sqlite.new")
        #expect(isNone(path))
        put([], at: path + "/records.sqlite")
        #expect(isNone(path))
        // Another program's database.
        run("rm", path + "/records.sqlite")
        sql(path, "CREATE TABLE t(a)")
        #expect(isNone(path))
    }

    @Test(arguments: [
        "CREATE TRIGGER t AFTER INSERT ON record BEGIN DELETE FROM record; END",
        "CREATE VIEW v AS SELECT * FROM record", "CREATE TABLE other(a)", "CREATE INDEX i ON record(value)",
        "DROP TABLE record", "DROP TABLE record; CREATE TABLE record(key TEXT PRIMARY KEY, value BLOB)",
        "DROP TABLE record; CREATE VIEW record AS SELECT x'00' AS key, x'00' AS value", "DELETE FROM progress",
        "UPDATE progress SET sequence = -5", "DROP TABLE progress", "PRAGMA user_version = 0",
    ])
    func `a schema that is not ours is refused`(statements: String) throws {
        let scratch = Scratch()
        let path = try made(scratch)
        sql(path, statements)
        for readOnly in [true, false] {
            guard case .corrupt = storageError({ _ = try JournaledStore.open(at: path, readOnly: readOnly) }) else {
                Issue.record("it was opened")
                continue
            }
        }
    }

    @Test func `a newer format is named`() throws {
        let scratch = Scratch()
        let path = try made(scratch)
        sql(path, "PRAGMA user_version = 7")
        #expect(storageError { _ = try JournaledStore.open(at: path) } == .newerFormat(7))
    }

    @Test func `garbage in the record table is an error and no crash`() throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        for owner in 0..<300 as Range<UInt64> {
            try store.put(key(owner), [UInt8](repeating: UInt8(owner & 255), count: 200))
        }
        try store.close()
        let whole = bytes(of: path + "/records.sqlite")
        var random = Seeded(state: 8)
        for round in 0..<60 {
            var damaged = whole
            if round == 0 { damaged = [UInt8](repeating: 0x41, count: 9000) }
            if round == 1 { damaged = Array(whole.prefix(whole.count / 2)) }
            for _ in 0..<40 where round > 1 {
                damaged[Int.random(in: 0..<damaged.count, using: &random)] = .random(in: .min ... .max, using: &random)
            }
            put(damaged, at: path + "/records.sqlite")
            do {
                let store = try JournaledStore.open(at: path, readOnly: round % 2 == 0)
                defer { try? store.close() }
                #expect(round > 0)
                _ = try store.contents()
                for owner in 0..<300 as Range<UInt64> { _ = try store.value(key(owner)) }
            } catch {
                #expect(error is StorageError)
            }
        }
    }

    @Test func `a value that is no byte string is an error`() throws {
        let scratch = Scratch()
        let path = try made(scratch)
        sql(path, "UPDATE record SET value = 'text'")
        let store = try JournaledStore.open(at: path)
        guard case .corrupt = storageError({ _ = try store.value(key(1)) }) else {
            Issue.record("it was read")
            return
        }
        #expect(storageError { _ = try store.contents() } != nil)
        try store.close()
    }

    @Test func `a missing file of the store is an error`() throws {
        for name in ["lock", "journal.0", "journal.1", "blocks"] {
            let scratch = Scratch()
            let path = try made(scratch)
            run("rm", path + "/" + name)
            guard case .corrupt = storageError({ _ = try JournaledStore.open(at: path) }) else {
                Issue.record("\(name) is not missed")
                continue
            }
        }
    }

    @Test func `a second opening is told who holds the store`() throws {
        let scratch = Scratch()
        let path = try made(scratch)
        #expect(JournaledStore.holder(of: path) == nil)
        let store = try JournaledStore.open(at: path, purpose: "mounted at /mnt/prod")
        let text = "pid \(getpid()) mounted at /mnt/prod"
        #expect(JournaledStore.holder(of: path) == text)
        for readOnly in [true, false] {
            #expect(
                storageError { _ = try JournaledStore.open(at: path, readOnly: readOnly) } == .busy(holder: text))
        }
        try store.describeHolder("for backup")
        #expect(JournaledStore.holder(of: path) == "pid \(getpid()) for backup")
        #expect(try store.value(key(1)) == [1])
        try store.close()
        #expect(JournaledStore.holder(of: path) == nil)
        let reader = try JournaledStore.open(at: path, readOnly: true)
        let second = try JournaledStore.open(at: path, readOnly: true)
        guard case .busy = storageError({ _ = try JournaledStore.open(at: path) }) else {
            Issue.record("a writer came in beside readers")
            return
        }
        try reader.close()
        try second.close()
        try JournaledStore.open(at: path).close()
    }

    // MARK: Reading only

    /// A store with something folded, something in SQLite's log if wanted, something in a journal, and a block.
    private func unclean(_ scratch: Scratch, withLog: Bool) throws -> (path: String, contents: [RecordKey: [UInt8]]) {
        let store = try JournaledStore.create(at: scratch.place("live"))
        let block = try store.allocateBlocks(1)[0]
        try store.write(block, 9)
        try store.put(key(1), [1])
        try store.fold()
        var copied = false
        try store.scan(everything, prefix: 0) { _, _ in
            // While somebody reads, a fold cannot empty the log.
            if withLog {
                try? store.put(key(2), [2])
                try? store.fold()
            }
            try? store.put(key(3), [3])
            run("cp", "-a", scratch.place("live"), scratch.place("killed"))
            copied = true
            return false
        }
        #expect(copied)
        try store.close()
        let log = bytes(of: scratch.place("killed/records.sqlite-wal"))
        #expect(log.isEmpty != withLog)
        var contents: [RecordKey: [UInt8]] = [key(1): [1], key(3): [3]]
        if withLog { contents[key(2)] = [2] }
        return (scratch.place("killed"), contents)
    }

    @Test(arguments: [false, true])
    func `a store opened for reading is read whole and not touched`(withLog: Bool) throws {
        let scratch = Scratch()
        let (path, expected) = try unclean(scratch, withLog: withLog)
        run("rm", "-f", path + "/records.sqlite-shm")
        let before = files(in: path)
        let store = try JournaledStore.open(at: path, readOnly: true, purpose: "status")
        #expect(try store.contents() == expected)
        #expect(try store.value(key(1)) == [1])
        #expect(try store.block(1) == [UInt8](repeating: 9, count: 4096))
        // Two connections at once.
        try store.scan(everything, prefix: 1) { _, _ in (try? store.value(key(3))) == [3] }
        #expect(storageError { try store.put(key(5), []) } == .readOnly)
        #expect(storageError { _ = try store.allocateBlocks(1) } == .readOnly)
        #expect(storageError { try store.write(1, 1) } == .readOnly)
        store.startFolding()
        store.markBlocksUsed([])
        store.finishMarking()
        try store.sync()
        try store.fold()
        #expect(try store.integrityCheck() == [])
        try store.close()
        #expect(files(in: path) == before)
        let writer = try JournaledStore.open(at: path)
        #expect(try writer.contents() == expected)
        try writer.close()
    }

    @Test(arguments: [false, true])
    func `a store on a read-only medium can be read`(withLog: Bool) throws {
        let scratch = Scratch()
        let (path, expected) = try unclean(scratch, withLog: withLog)
        guard let disk = scratch.disk("disk", byteCount: 32 << 20) else { return }
        run("rm", "-f", path + "/reserve")
        run("cp", "-a", path, disk + "/store")
        try #require(run("mount", "-o", "remount,ro", disk) == 0)
        let store = try JournaledStore.open(at: disk + "/store", readOnly: true)
        #expect(try store.contents() == expected)
        try store.close()
        #expect(storageError { _ = try JournaledStore.open(at: disk + "/store") } == .readOnly)
        #expect(storageError { _ = try JournaledStore.create(at: disk + "/new") } == .readOnly)
    }
}
