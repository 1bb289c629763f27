import Glibc
import Keyring
import SecretTree
import Sodium
import Storage
import Synchronization
import Testing

/// A tree that is read while its store is still being looked at, after its server died.
@Suite struct TakeoverTests {
    private let house: House
    private let file: NodeID
    private let store: CrashingStore
    private let old: [RecordKey: [UInt8]]
    private final class Report: Sendable { let errors = Mutex<[String]>([]) }
    private final class Flag: Sendable {
        private let flag = Atomic(false)
        var isSet: Bool { flag.load(ordering: .acquiring) }
        func set() { flag.store(true, ordering: .releasing) }
    }
    private let report = Report()

    init() throws {
        house = try House()
        file = try house.tree.make("f")
        try house.tree.put(Array("first".utf8), to: file)
        try house.store.fold()
        old = try house.records()
        try house.tree.put(Array("second".utf8), to: file)
        try house.store.fold()
        store = CrashingStore(house.store, commits: -1, diesAfter: false)
        store.holdsWalks.store(true, ordering: .releasing)
    }

    private func takeOver() throws -> SecretTree {
        let report = report
        return try SecretTree.open(
            store, keyring: house.keyring, readOnly: false, seenEpoch: nil, takesOver: true,
            whenUnsound: { error in report.errors.withLock { $0.append("\(error)") } }, now: House.now)
    }

    private func letWalk() { store.holdsWalks.store(false, ordering: .releasing) }

    private func wait(for condition: () -> Bool) -> Bool {
        for _ in 0..<1000 where !condition() { usleep(10_000) }
        return condition()
    }

    @Test func `readers do not wait, changes and counts do`() throws {
        let tree = try takeOver()
        #expect(try tree.bytes(of: tree.find("f").id) == Array("second".utf8))
        let flag = Flag()
        let started = SecretStack.startThread(byteCount: 512 << 10) {
            _ = try? tree.make("g")
            flag.set()
        }
        #expect(started == 0)
        usleep(50_000)
        #expect(!flag.isSet)
        #expect(store.committed.load(ordering: .relaxed) == 0)
        letWalk()
        #expect(wait { flag.isSet })
        #expect(tree.versionCounts.values.reduce(0, +) == 1)
        try tree.close()
        #expect(report.errors.withLock { $0.isEmpty })
        let again = try house.reopened()
        #expect(again.problems.isEmpty && refusal { _ = try again.find("g") } == "")
        #expect(try again.verify().problems.isEmpty)
    }

    @Test func `a record put back is told of, and nothing is changed before it is looked for first`() throws {
        let key = try #require(try house.records().first { $0.key.kind == 8 && old[$0.key] != $0.value }?.key)
        let before = try #require(old[key])
        try house.tamper { $0.put(key, before) }
        let tree = try takeOver()
        letWalk()
        #expect(wait { report.errors.withLock { $0.count == 1 } })
        #expect(refusal { _ = try tree.make("g") } == "tampered")
        #expect(!tree.workOnJobs())
        #expect(store.committed.load(ordering: .relaxed) == 0)
        let next = try house.reopened()
        #expect(refusal { try next.bytes(of: file) } == "tampered")
        #expect(refusal { _ = try next.make("g") } == "")
    }

    @Test func `whoever serves a store that cannot be trusted is told, and nothing is changed`() throws {
        // Another life of the keys, as they once were.
        try house.tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
            _ = try lifecycle.rotate(ifLatest: nil, now: House.now)
        }
        try house.store.fold()
        let lifecycle = try #require(old[RecordKey(kind: 3, owner: 0)])
        try house.tamper { $0.put(RecordKey(kind: 3, owner: 0), lifecycle) }
        let tree = try takeOver()
        letWalk()
        #expect(wait { report.errors.withLock { $0.count == 1 } })
        #expect(refusal { _ = try tree.make("g") } == "tampered")
        #expect(store.committed.load(ordering: .relaxed) == 0)
    }
}
