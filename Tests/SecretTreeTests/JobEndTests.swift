import Glibc
import Keyring
import SecretTree
import Storage
import Synchronization
import Testing

/// When a job is done, and what it waits for.
@Suite struct JobEndTests {
    private static let one = KEKVersion(rawValue: 1)

    private func tree(_ house: House) throws -> (SecretTree, CrashingStore) {
        let store = CrashingStore(house.store, commits: -1, diesAfter: false)
        return (
            try SecretTree.open(store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now), store
        )
    }

    private func finish(_ tree: SecretTree) { while tree.workOnJobs() {} }

    /// What runs in the background comes to an end by itself.
    private func settle(_ tree: SecretTree, _ kind: JobKind) {
        for _ in 0..<2000 where tree.job(kind).state == .running { usleep(10_000) }
    }

    @Test(arguments: [JobKind.rewrap, .reencrypt, .revoke])
    func `a job is not done before the old is erased, and does that after a crash too`(kind: JobKind) throws {
        let house = try House()
        let file = try house.tree.make("f")
        try house.tree.put([1, 2, 3], to: file)
        let (tree, store) = try tree(house)
        store.isWalked.store(true, ordering: .relaxed)
        if kind == .revoke {
            try tree.revoke(Self.one, reason: "lost", now: .now())
        } else {
            _ = try tree.rotate(now: House.now)
            try tree.startJob(kind, now: .now())
        }
        finish(tree)
        #expect(tree.versionCounts[Self.one] == nil)
        #expect(tree.job(kind).state == .running && tree.job(kind).obstacle == "it is being read")
        #expect(tree.job(kind).done == 1 && tree.job(kind).total == 1)
        let again = try house.reopened()
        #expect(again.job(kind).state == .running && again.job(kind).obstacle == nil)
        #expect(again.job(kind).done == 1)
        finish(again)
        #expect(again.job(kind).state == .done)
        #expect(try again.bytes(of: file) == [1, 2, 3])
    }

    @Test func `a full disk holds a revocation, which goes on by itself when there is space`() throws {
        let house = try House()
        let file = try house.tree.make("f")
        try house.tree.put(Array(repeating: 7, count: 300_000), to: file)
        let (tree, store) = try tree(house)
        try tree.revoke(Self.one, reason: "lost", now: .now())
        store.isFull.store(true, ordering: .relaxed)
        tree.startJobs()
        for _ in 0..<500 where tree.job(.revoke).obstacle == nil { usleep(10_000) }
        #expect(tree.job(.revoke).state == .running && tree.job(.revoke).obstacle == "the disk is full")
        #expect(refusal { try tree.bytes(of: file) } == "key")
        store.isFull.store(false, ordering: .relaxed)
        settle(tree, .revoke)
        #expect(tree.job(.revoke).state == .done && tree.job(.revoke).obstacle == nil)
        #expect(try tree.bytes(of: file).count == 300_000)
        #expect(tree.problems.isEmpty)
        try tree.close()
    }

    @Test func `a copy that was under way is thrown away by the server that takes over`() throws {
        let house = try House()
        let file = try house.tree.make("f")
        try house.tree.put(Array(repeating: 7, count: 3_000_000), to: file)
        // The start, the batch, the copy's beginning and its first part.
        let store = CrashingStore(house.store, commits: 4, diesAfter: false)
        let tree = try SecretTree.open(store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
        try tree.startJob(.reencrypt, now: .now())
        while !store.hasDied, tree.workOnJobs() {}
        #expect(store.hasDied)
        let between = try house.reopened(readOnly: true)
        #expect(between.versionCounts == [Self.one: 2])
        let again = try SecretTree.open(
            house.store, keyring: house.keyring, readOnly: false, seenEpoch: nil, takesOver: true, now: House.now)
        // Nothing is put in order before whoever serves it has found out what the last server had committed.
        #expect(again.versionCounts == [Self.one: 2])
        finish(again)
        #expect(again.versionCounts == [Self.one: 1])
        #expect(again.job(.reencrypt).state == .done && again.job(.reencrypt).done == 1)
        #expect(try again.verify().problems.isEmpty)
    }

    // MARK: On a disk

    private func scratch() throws -> String {
        var template = Array("/tmp/letterlock-erase-XXXXXX".utf8CString)
        try #require(mkdtemp(&template) != nil)
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    private func contents(of directory: String) throws -> [UInt8] {
        var all: [UInt8] = []
        for name in ["records.sqlite", "records.sqlite-wal", "journal.0", "journal.1", "blocks"] {
            let descriptor = open(directory + "/" + name, O_RDONLY)
            guard descriptor >= 0 else { continue }
            defer { close(descriptor) }
            let count = Int(lseek(descriptor, 0, SEEK_END))
            all += [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
                filled = max(0, pread(descriptor, buffer.baseAddress, count, 0))
            }
        }
        return all
    }

    private func isIn(_ all: [UInt8], _ mark: ArraySlice<UInt8>) -> Bool {
        let mark = Array(mark)
        return all.withUnsafeBytes { all in
            mark.withUnsafeBytes { memmem(all.baseAddress!, all.count, $0.baseAddress!, $0.count) != nil }
        }
    }

    private func onDisk(_ body: (String, JournaledStore, SecretTree) throws -> Void) throws {
        let directory = try scratch()
        defer {
            for name in ["records.sqlite", "records.sqlite-wal", "records.sqlite-shm", "journal.0", "journal.1"] {
                unlink(directory + "/" + name)
            }
            for name in ["blocks", "lock", "reserve"] { unlink(directory + "/" + name) }
            rmdir(directory)
        }
        let house = try House()
        let store = try JournaledStore.create(at: directory)
        try SecretTree.create(in: store, keyring: house.keyring, uid: 1, gid: 2, now: House.now)
        let tree = try SecretTree.open(store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
        try body(directory, store, tree)
        try tree.close()
    }

    @Test(arguments: [JobKind.rewrap, .reencrypt, .revoke])
    func `at the moment it is done, old wraps and old ciphertext are in no file`(kind: JobKind) throws {
        try onDisk { directory, store, tree in
            for number in 0..<400 {
                let file = try tree.make("f\(number)")
                let count = [1, 300, 900, 3000, 9000, 20_000][number % 6]
                try tree.put(Array(repeating: UInt8(number % 251), count: count), to: file)
                if number % 40 == 0 { try store.fold() }
            }
            var marks: [ArraySlice<UInt8>] = []
            let (first, last) = (RecordKey(kind: 8, owner: 0), RecordKey(kind: 8, owner: .max, high: .max, low: .max))
            try store.scan(first...last, prefix: .max) { _, value in
                marks.append(Array(value)[4..<36])
                if kind != .rewrap, value.count > 170 { marks.append(Array(value).suffix(32)) }
                return true
            }
            let before = try contents(of: directory)
            #expect(marks.count >= 400 && marks.allSatisfy { isIn(before, $0) })
            if kind == .revoke {
                try tree.revoke(Self.one, reason: "lost", now: .now())
            } else {
                _ = try tree.rotate(now: House.now)
                try tree.startJob(kind, now: .now())
            }
            while tree.job(kind).state == .running { tree.workOnJobs() }
            let after = try contents(of: directory)
            #expect(tree.job(kind).state == .done && tree.job(kind).failed == 0)
            #expect(marks.count { isIn(after, $0) } == 0)
        }
    }

    @Test func `a destroyed key's sealed form is in no file`() throws {
        try onDisk { directory, store, tree in
            for _ in 0..<20 { _ = try tree.rotate(now: House.now) }
            func lifecycle() throws -> [UInt8] { try #require(try SecretTree.lifecycle(of: store)) }
            let before = try lifecycle()
            try store.fold()
            let later = Timestamp(seconds: House.now.seconds + 8 * 86_400, nanoseconds: 0)
            try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
                lifecycle.setDeletionAllowed(true)
                try lifecycle.scheduleDestruction(of: Self.one, days: 7, force: false, files: 0, now: House.now)
            }
            let scheduled = try lifecycle()
            try tree.changeKeys(now: later) { lifecycle throws(LifecycleError) in _ = lifecycle.destroyDue(now: later) }
            #expect(tree.job(.erase).state == .running)
            // Every record that has the key is sealed as a whole: its parts are random bytes.
            let marks = [before, scheduled].flatMap { [$0[40..<72], $0.suffix(32)] }
            #expect(marks.contains { mark in (try? contents(of: directory)).map { isIn($0, mark) } ?? false })
            finish(tree)
            #expect(tree.job(.erase).state == .done)
            let after = try contents(of: directory)
            #expect(marks.allSatisfy { !isIn(after, $0) })
            #expect(isIn(after, try lifecycle()[40..<72]), "the search finds what is there")
        }
    }
}
