import Keyring
import SecretTree
import Storage
import Synchronization
import Testing

@Suite struct KeyTests {
    @Test func `rotation makes a version for what is written from then on, and touches nothing else`() throws {
        let house = try House()
        let tree = house.tree
        let old = try tree.make("old")
        try tree.put([1], to: old)
        let before = try tree.attributes(of: old)
        #expect(try tree.rotate(now: House.now) == KEKVersion(rawValue: 2))
        let new = try tree.make("new")
        try tree.put([2], to: new)
        #expect(try tree.kekVersion(of: old) == KEKVersion(rawValue: 1))
        #expect(try tree.kekVersion(of: new) == KEKVersion(rawValue: 2))
        #expect(try tree.attributes(of: old) == before)
        #expect(tree.versionCounts == [KEKVersion(rawValue: 1): 1, KEKVersion(rawValue: 2): 1])
        #expect(refusal { try tree.rotate(ifLatest: KEKVersion(rawValue: 1), now: House.now) } == "key")
        let again = try house.reopened()
        #expect(try again.bytes(of: old) == [1])
        #expect(try again.bytes(of: new) == [2])
        #expect(again.versionCounts == tree.versionCounts)
    }

    @Test func `a disabled version refuses its files at once, and nothing else`() throws {
        let house = try House()
        let tree = house.tree
        let directory = try tree.make("web", .directory)
        let old = try tree.make("old", in: directory)
        try tree.put(Array(repeating: 5, count: 50_000), to: old)
        _ = try tree.rotate(now: House.now)
        let new = try tree.make("new")
        try tree.put([2], to: new)
        try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
            try lifecycle.disable(KEKVersion(rawValue: 1), now: House.now)
        }
        #expect(refusal { try tree.checkReadable(old) } == "key")
        #expect(refusal { try tree.bytes(of: old) } == "key")
        #expect(refusal { try tree.put([1], at: 100_000, to: old) } == "key")
        #expect(try tree.bytes(of: new) == [2])
        #expect(try tree.attributes(of: old).size == 50_000)
        var paths: [String] = []
        try tree.withPaths(under: KEKVersion(rawValue: 1)) {
            paths.append(String(decoding: $0.dropLast(), as: UTF8.self))
        }
        #expect(paths == ["/web/old"])
        let report = try tree.verify()
        #expect(report.problems.isEmpty)
        #expect(report.unreadableCount == 1)
        try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
            try lifecycle.enable(KEKVersion(rawValue: 1), now: House.now)
        }
        #expect(try tree.bytes(of: old).count == 50_000)
    }

    /// A rotation, a promotion, a revocation are one transaction with the tree key's: there is nothing between.
    @Test(arguments: ["rotate", "promote", "revoke"], [false, true])
    func `a change of the keys is one transaction`(change: String, diesAfter: Bool) throws {
        let house = try House()
        let old = try house.tree.make("old")
        try house.tree.put([1], to: old)
        _ = try house.tree.rotate(now: House.now)
        for commits in [0, -1] {
            let store = CrashingStore(house.store, commits: commits, diesAfter: diesAfter)
            let tree = try SecretTree.open(
                store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
            let outcome = refusal {
                switch change {
                case "rotate": _ = try tree.rotate(now: House.now)
                case "promote":
                    try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
                        try lifecycle.promote(KEKVersion(rawValue: 1), now: House.now)
                    }
                default: try tree.revoke(KEKVersion(rawValue: 2), reason: "lost", now: .now())
                }
            }
            #expect(outcome == (commits == 0 ? "storage" : ""))
            #expect(store.committed.load(ordering: .relaxed) == 1)
            let again = try house.reopenedWithKeysOfTheStore()
            let treeKey = try #require(house.records().first { $0.key.kind == 4 }?.value)
            let version = treeKey.withUnsafeBytes { $0.loadUnaligned(as: UInt32.self) }
            #expect(again.keyring.lifecycle.primary.rawValue == version, "nothing is left for the next start")
            #expect(try again.bytes(of: old) == [1])
            if commits == 0, diesAfter { break }
        }
    }

    @Test func `a destroyed version's key is in no record`() throws {
        let house = try House()
        let tree = house.tree
        _ = try tree.rotate(now: House.now)
        try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
            lifecycle.setDeletionAllowed(true)
            try lifecycle.scheduleDestruction(
                of: KEKVersion(rawValue: 1), days: 7, force: false, files: 0, now: House.now)
        }
        let later = Timestamp(seconds: House.now.seconds + 8 * 86_400, nanoseconds: 0)
        let before = try house.records()
        try tree.changeKeys(now: later) { lifecycle throws(LifecycleError) in _ = lifecycle.destroyDue(now: later) }
        let after = try house.records()
        // 72 bytes of a sealed key are gone.
        let lifecycle = before.keys.first { $0.kind == 3 }!
        #expect(before[lifecycle]!.count - after[lifecycle]!.count == 72)
        #expect(tree.keyring.lifecycle.state(of: KEKVersion(rawValue: 1)) == .destroyed)
        #expect(try house.reopened().verify().problems.isEmpty)
    }
}
