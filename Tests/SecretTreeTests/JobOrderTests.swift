import Glibc
import Keyring
import SecretTree
import Storage
import Synchronization
import Testing

/// Which job comes first, what it takes, and when it is done.
@Suite struct JobOrderTests {
    private static let one = KEKVersion(rawValue: 1)
    private static let two = KEKVersion(rawValue: 2)
    private static let three = KEKVersion(rawValue: 3)

    private func value(_ number: Int, _ count: Int = 300) -> [UInt8] {
        Array(repeating: UInt8(number % 251), count: count)
    }

    /// `count` files under version 1, then a rotation.
    private func house(_ count: Int, bytes: Int = 300) throws -> (House, [NodeID]) {
        let house = try House()
        let files = try (0..<count).map { number in
            let file = try house.tree.make("f\(number)")
            try house.tree.put(value(number, bytes), to: file)
            return file
        }
        _ = try house.tree.rotate(now: House.now)
        return (house, files)
    }

    private func finish(_ tree: SecretTree) { while tree.workOnJobs() {} }

    private func change(_ tree: SecretTree, _ body: (inout KeyLifecycle) throws(LifecycleError) -> Void) throws {
        try tree.changeKeys(now: House.now, body)
    }

    @Test func `rewrapping leaves what is compromised, and what is disabled, alone`() throws {
        let (house, files) = try house(5)
        let tree = house.tree
        let under2 = try tree.make("under 2")
        try tree.put([2], to: under2)
        _ = try tree.rotate(now: House.now)
        try change(tree) { lifecycle throws(LifecycleError) in
            try lifecycle.compromise(Self.one, reason: "lost", now: House.now)
        }
        try tree.startJob(.rewrap, now: .now())
        #expect(tree.job(.rewrap).total == 1)
        finish(tree)
        #expect(tree.job(.rewrap).state == .done && tree.job(.rewrap).failed == 0)
        #expect(tree.versionCounts == [Self.one: 5, Self.three: 1])
        #expect(refusal { try tree.bytes(of: files[0]) } == "key")
        // Re-encryption may, and says of each value that others may know it.
        try tree.startJob(.reencrypt, from: Self.one, now: .now())
        finish(tree)
        #expect(tree.versionCounts == [Self.three: 6])
        #expect(try tree.bytes(of: files[0]) == value(0))
        #expect(try tree.attributes(of: files[0]).needsRegeneration)
        #expect(try !tree.attributes(of: under2).needsRegeneration)
    }

    /// Two threads do a batch, and a large file ends it, with those behind it done or not.
    @Test(arguments: [JobKind.reencrypt, .revoke])
    func `large files and damaged ones between the others are counted once each`(kind: JobKind) throws {
        let house = try House()
        let tree = house.tree
        let large = Set(stride(from: 3, to: 300, by: 11)).union(100..<104)
        let files = try (0..<300).map { number in
            let file = try tree.make("f\(number)")
            try tree.put(value(number, large.contains(number) ? 20_000 : 600), to: file)
            return file
        }
        _ = try tree.rotate(now: House.now)
        // Under the open tree, which so has not yet seen it.
        let damaged = Set(stride(from: 0, to: 300, by: 9)).subtracting(large).union([298, 299])
        let contents = Set(try damaged.map { try tree.attributes(of: files[$0]).content })
        let records = try house.records()
        try house.tamper { batch in
            for (record, value) in records where record.kind == 8 && contents.contains(record.owner) {
                var changed = value
                changed[20] ^= 1
                batch.put(record, changed)
            }
        }
        switch kind {
        case .revoke: try tree.revoke(Self.one, reason: "lost", now: .now())
        default: try tree.startJob(kind, now: .now())
        }
        finish(tree)
        let job = tree.job(kind)
        #expect(job.state == .done && job.total == 300)
        #expect(job.failed == UInt64(damaged.count) && job.done == UInt64(300 - damaged.count))
        #expect(Set(tree.failures(of: kind).compactMap(\.node)) == Set(damaged.map { files[$0] }))
        #expect(tree.versionCounts == [Self.one: damaged.count, Self.two: 300 - damaged.count])
        for number in 0..<300 where !damaged.contains(number) {
            #expect(try tree.bytes(of: files[number]) == value(number, large.contains(number) ? 20_000 : 600))
        }
    }

    @Test func `a revocation goes before a rewrap and a re-encryption that are under way`() throws {
        let (house, files) = try house(500)
        let tree = house.tree
        try tree.startJob(.rewrap, now: .now())
        try tree.startJob(.reencrypt, now: .now())
        tree.workOnJobs()
        try tree.revoke(Self.one, reason: "lost", now: .now())
        let before = tree.job(.rewrap)
        while tree.job(.revoke).state == .running { try #require(tree.workOnJobs()) }
        #expect(tree.job(.revoke).state == .done && tree.versionCounts[Self.one] == nil)
        #expect(tree.job(.rewrap).done == before.done && tree.job(.rewrap).state == .running)
        finish(tree)
        #expect(tree.job(.rewrap).state == .done && tree.job(.reencrypt).state == .done)
        for (number, file) in files.enumerated() { #expect(try tree.bytes(of: file) == value(number)) }
    }

    /// A large file is copied for long: a revocation does not wait for its end.
    @Test func `a revocation interrupts the copying of a large file`() throws {
        let house = try House()
        let tree = house.tree
        let small = try tree.make("small")
        try tree.put(value(1), to: small)
        _ = try tree.rotate(now: House.now)
        let large = try tree.make("large")
        let content = Array(repeating: UInt8(7), count: 24_000_000)
        try tree.put(content, to: large)
        let witness = Counter()
        tree.report(commitsTo: witness)
        try tree.startJob(.reencrypt, from: Self.two, now: .now())
        let begun = witness.seen.load(ordering: .relaxed)
        tree.startJobs()
        while witness.seen.load(ordering: .relaxed) < begun + 3 {}
        try tree.revoke(Self.one, reason: "lost", now: .now())
        while [JobKind.revoke, .reencrypt].contains(where: { tree.job($0).state == .running }) { usleep(1000) }
        #expect(tree.job(.revoke).state == .done && tree.job(.reencrypt).state == .done)
        let (revoked, reencrypted) = (tree.job(.revoke).ended, tree.job(.reencrypt).ended)
        #expect(try #require(revoked) <= #require(reencrypted))
        #expect(tree.job(.reencrypt).failed == 0)
        #expect(try tree.bytes(of: large, 30_000_000) == content)
        #expect(try tree.bytes(of: small) == value(1))
        #expect(try tree.verify().problems.isEmpty)
        try tree.close()
    }

    @Test(arguments: [JobKind.rewrap, .reencrypt])
    func `what cannot be a source is refused by its state`(kind: JobKind) throws {
        let (house, _) = try house(1)
        let tree = house.tree
        for _ in 0..<5 { _ = try tree.rotate(now: House.now) }
        let later = Timestamp(seconds: House.now.seconds + 8 * 86_400, nanoseconds: 0)
        try change(tree) { lifecycle throws(LifecycleError) in
            lifecycle.setDeletionAllowed(true)
            try lifecycle.scheduleDestruction(of: Self.two, days: 7, force: true, files: 0, now: House.now)
            _ = lifecycle.destroyDue(now: later)
            try lifecycle.disable(Self.three, now: House.now)
            try lifecycle.compromise(KEKVersion(rawValue: 4), reason: "lost", now: House.now)
            try lifecycle.scheduleDestruction(
                of: KEKVersion(rawValue: 5), days: 7, force: true, files: 0, now: House.now)
            try lifecycle.setMinDecryption(Self.two)
        }
        finish(tree)
        func refused(_ number: UInt32) -> KeyringError? {
            do throws(TreeError) {
                try tree.startJob(kind, from: KEKVersion(rawValue: number), now: .now())
                try tree.cancelJob(kind, now: .now())
                return nil
            } catch {
                guard case .key(let error) = error else { return .noSuchVersion }
                return error
            }
        }
        #expect(refused(1) == .expired)
        #expect(refused(2) == .destroyed)
        #expect(refused(3) == .revoked(.disabled))
        #expect(refused(4) == (kind == .rewrap ? .revoked(.compromised) : nil))
        #expect(refused(5) == .revoked(.pendingDestruction))
        #expect(refused(6) == nil)
        #expect(refused(99) == .noSuchVersion)
    }

    @Test func `a value that was gathered before the start and comes behind the cursor is re-encrypted`() throws {
        let (house, files) = try house(200)
        let tree = house.tree
        try change(tree) { lifecycle throws(LifecycleError) in try lifecycle.promote(Self.one, now: House.now) }
        // Two that gather: one whose number the job has not reached, one that keeps the old value for a reader.
        let shadows = try (0..<2).map { number in
            let shadow = try tree.beginReplacement(of: files[number], now: House.now)
            tree.hold(shadow)
            try tree.put(value(100 + number), to: shadow)
            return shadow
        }
        try change(tree) { lifecycle throws(LifecycleError) in try lifecycle.promote(Self.two, now: House.now) }
        try tree.startJob(.reencrypt, from: Self.one, now: .now())
        while tree.job(.reencrypt).done < 40 { tree.workOnJobs() }
        _ = try tree.commitReplacement(shadows[0], of: files[0], clearsSetID: false, now: House.now)
        _ = try tree.commitReplacement(shadows[1], of: files[1], clearsSetID: false, keepsOld: true, now: House.now)
        finish(tree)
        #expect(tree.job(.reencrypt).state == .done && tree.job(.reencrypt).failed == 0)
        #expect(tree.job(.reencrypt).done <= tree.job(.reencrypt).total)
        #expect(tree.versionCounts[Self.one] == nil)
        for number in 0..<2 { #expect(try tree.bytes(of: files[number]) == value(100 + number)) }
        #expect(try tree.bytes(of: shadows[1]) == value(1))
    }

    @Test func `a rotation in the middle of a rewrap leaves nothing under the old primary`() throws {
        let (house, _) = try house(500)
        let tree = house.tree
        try tree.startJob(.rewrap, now: .now())
        tree.workOnJobs()
        let late = try tree.make("late")
        try tree.put([1], to: late)
        _ = try tree.rotate(now: House.now)
        finish(tree)
        #expect(tree.versionCounts == [Self.three: 501])
        #expect(tree.job(.rewrap).done <= tree.job(.rewrap).total)
    }

    @Test func `a file that goes while a rewrap has just seen it is not wrapped anew`() throws {
        let (house, files) = try house(5)
        let store = CrashingStore(house.store, commits: -1, diesAfter: false)
        let tree = try SecretTree.open(store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
        try tree.startJob(.rewrap, now: .now())
        store.afterEnvelopes.withLock { $0 = { try? tree.remove("f2") } }
        finish(tree)
        #expect(store.afterEnvelopes.withLock { $0 == nil })
        #expect(tree.job(.rewrap).state == .done)
        #expect(tree.versionCounts.filter { $0.value != 0 } == [Self.two: 4])
        #expect(refusal { try tree.find("f2") } == "notFound")
        #expect(try tree.bytes(of: files[3]) == value(3))
        #expect(try tree.verify().problems.isEmpty)
        #expect(try house.reopened().verify().problems.isEmpty)
    }

    @Test func `a failed file is counted once however often a job goes round`() throws {
        let (house, files) = try house(50)
        try house.store.fold()
        let victim = try #require(house.records().keys.filter { $0.kind == 8 }.min())
        var envelope = try #require(house.records()[victim])
        envelope[20] ^= 1
        try house.tamper { $0.put(victim, envelope) }
        let tree = try house.reopened()
        try tree.startJob(.reencrypt, now: .now())
        tree.workOnJobs()
        _ = try tree.rotate(now: House.now)
        finish(tree)
        #expect(tree.job(.reencrypt).failed == 1 && tree.job(.reencrypt).done == UInt64(files.count - 1))
    }
}

/// Counts transactions.
private final class Counter: CommitWitness {
    let seen = Atomic<Int>(0)
    func willCommit(epoch: UInt64) { seen.add(1, ordering: .relaxed) }
    func didNotCommit(epoch: UInt64) {}
}
