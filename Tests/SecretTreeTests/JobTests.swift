import Keyring
import SecretTree
import Storage
import Synchronization
import Testing

@Suite struct JobTests {
    private static let one = KEKVersion(rawValue: 1)
    private static let two = KEKVersion(rawValue: 2)

    /// Files of every shape, under version 1; version 2 is primary.
    private func house(files: Int = 20) throws -> (House, [NodeID: [UInt8]]) {
        let house = try House()
        var values: [NodeID: [UInt8]] = [:]
        for number in 0..<files {
            let file = try house.tree.make("file-\(number)")
            let count = [0, 1, 300, 5_000, 16_384, 16_385, 400_000][number % 7]
            let value = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7 &+ number) }
            if count > 0 { try house.tree.put(value, to: file) }
            values[file] = value
        }
        let sparse = try house.tree.make("sparse")
        try house.tree.put([1, 2, 3], at: 500_000, to: sparse)
        values[sparse] = Array(repeating: 0, count: 500_000) + [1, 2, 3]
        _ = try house.tree.rotate(now: House.now)
        return (house, values)
    }

    private func expect(_ values: [NodeID: [UInt8]], in tree: SecretTree, _ what: Comment? = nil) throws {
        for (file, value) in values { #expect(try tree.bytes(of: file) == value, what) }
        #expect(try tree.verify().problems.isEmpty, what)
    }

    private func finish(_ tree: SecretTree) { while tree.workOnJobs() {} }

    @Test func `rewrapping leaves contents and times alone and moves every wrap to the primary`() throws {
        let (house, values) = try house()
        let before = try values.keys.map { try house.tree.attributes(of: $0) }
        try house.tree.startJob(.rewrap, now: .now())
        #expect(refusal { try house.tree.startJob(.rewrap, now: .now()) } == "busy")
        finish(house.tree)
        let job = house.tree.job(.rewrap)
        #expect(job.state == .done)
        #expect(job.done == job.total && job.failed == 0)
        #expect(house.tree.versionCounts.keys.sorted() == [Self.two])
        #expect(try values.keys.map { try house.tree.attributes(of: $0) } == before)
        try expect(values, in: house.tree)
        try expect(values, in: house.reopened())
    }

    @Test func `re-encrypting gives new keys and new ciphertext and leaves nothing of the old`() throws {
        let (house, values) = try house()
        let before = try house.records()
        let attributes = try values.keys.map { try house.tree.attributes(of: $0) }
        try house.tree.startJob(.reencrypt, now: .now())
        finish(house.tree)
        #expect(house.tree.job(.reencrypt).state == .done)
        #expect(house.tree.job(.reencrypt).failed == 0)
        let after = try house.records()
        for (key, value) in before where [8, 10, 15].contains(key.kind) {
            #expect(after[key] == nil, "\(key) of \(value.count) bytes is still there")
        }
        for (old, new) in zip(attributes, try values.keys.map { try house.tree.attributes(of: $0) }) {
            #expect(old.modificationTime == new.modificationTime && old.statusChangeTime == new.statusChangeTime)
            #expect(old.size == new.size && old.storedByteCount == new.storedByteCount && old.id == new.id)
        }
        #expect(house.tree.versionCounts.keys.sorted() == [Self.two])
        try expect(values, in: house.tree)
        try expect(values, in: house.reopened())
    }

    @Test func `a revocation refuses at once, and gives back what it has re-encrypted, flagged`() throws {
        let (house, values) = try house()
        try house.tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
            try lifecycle.promote(Self.one, now: House.now)
        }
        try house.tree.revoke(Self.one, reason: "laptop lost", now: .now())
        let nonEmpty = values.filter { !$0.value.isEmpty }
        for file in nonEmpty.keys { #expect(refusal { try house.tree.bytes(of: file) } == "key") }
        #expect(house.tree.keyring.lifecycle.state(of: Self.one) == .compromised)
        finish(house.tree)
        let job = house.tree.job(.revoke)
        #expect(job.state == .done && job.version == Self.one && job.successor == KEKVersion(rawValue: 3))
        #expect(job.done == UInt64(nonEmpty.count))
        try expect(values, in: house.tree)
        for file in nonEmpty.keys { #expect(try house.tree.attributes(of: file).needsRegeneration) }
        let first = try #require(nonEmpty.keys.first)
        try house.tree.put([9], to: first)
        #expect(try !house.tree.attributes(of: first).needsRegeneration)
    }

    @Test func `a job is held, goes on, is cancelled, and knows where it was`() throws {
        let (house, values) = try house(files: 300)
        try house.tree.startJob(.reencrypt, now: .now())
        house.tree.workOnJobs()
        try house.tree.pauseJob(.reencrypt, now: .now())
        #expect(!house.tree.workOnJobs())
        let again = try house.reopened()
        #expect(again.job(.reencrypt).state == .paused)
        #expect(again.job(.reencrypt).done > 0)
        try again.resumeJob(.reencrypt, now: .now())
        again.workOnJobs()
        try again.cancelJob(.reencrypt, now: .now())
        #expect(refusal { try again.resumeJob(.reencrypt, now: .now()) } == "notPermitted")
        try expect(values, in: again)
        try again.startJob(.reencrypt, from: Self.one, now: .now())
        finish(again)
        #expect(again.versionCounts.keys.sorted() == [Self.two])
    }

    @Test func `a damaged file is counted and named, and the others go on`() throws {
        let (house, values) = try house()
        try house.store.fold()
        let victim = try #require(house.records().keys.filter { $0.kind == 8 }.min())
        var value = try #require(house.records()[victim])
        value[20] ^= 1
        try house.tamper { $0.put(victim, value) }
        let tree = try house.reopened()
        for kind in [JobKind.rewrap, .reencrypt] {
            try tree.startJob(kind, now: .now())
            finish(tree)
            #expect(tree.job(kind).state == .done)
            #expect(tree.job(kind).failed == 1)
        }
        #expect(tree.versionCounts[Self.one] == 1)
        let sound = values.filter { file in refusal { try tree.bytes(of: file.key) } == "" }
        #expect(sound.count == values.count - 1)
    }

    @Test func `whoever writes while a large file is re-encrypted is not lost`() throws {
        let house = try House()
        let file = try house.tree.make("large")
        var value = (0..<6_000_000).map { UInt8(truncatingIfNeeded: $0 >> 8) }
        try house.tree.put(value, to: file)
        house.tree.startJobs()
        var random = Seeded(7)
        for _ in 0..<3 {
            try house.tree.startJob(.reencrypt, now: .now())
            while house.tree.job(.reencrypt).state == .running {
                let place = Int.random(in: 0..<value.count - 10_000, using: &random)
                let bytes = (0..<Int.random(in: 1...9_000, using: &random)).map { _ in UInt8.random(in: 0...255) }
                try house.tree.put(bytes, at: UInt64(place), to: file)
                value.replaceSubrange(place..<place + bytes.count, with: bytes)
            }
            #expect(house.tree.job(.reencrypt).failed == 0)
            #expect(try house.tree.bytes(of: file, 6_000_000) == value)
        }
        #expect(try house.tree.verify().problems.isEmpty)
        try house.tree.close()
    }

    /// Kills the process at every commit of a job, before and after it, opens the store anew and lets it finish.
    @Test(arguments: [JobKind.rewrap, .reencrypt, .revoke], [false, true])
    func `a crash at any transaction loses nothing, and the job ends after it`(kind: JobKind, diesAfter: Bool) throws {
        var commits = 0
        while true {
            let (house, values) = try house(files: 7)
            let store = CrashingStore(house.store, commits: commits, diesAfter: diesAfter)
            let tree: SecretTree
            do {
                tree = try SecretTree.open(
                    store, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
                switch kind {
                case .revoke:
                    // The primary itself, which takes a new one and another wrap of the tree key.
                    try tree.changeKeys(now: House.now) { lifecycle throws(LifecycleError) in
                        try lifecycle.promote(Self.one, now: House.now)
                    }
                    try tree.revoke(Self.one, reason: "test", now: .now())
                default: try tree.startJob(kind, now: .now())
                }
                while !store.hasDied, tree.workOnJobs() {}
            } catch {
                try #require(store.hasDied, "\(error)")
            }
            let hasEnded = !store.hasDied
            // What the dead process held in memory is gone; what it stored decides.
            let again = try house.reopenedWithKeysOfTheStore()
            let hasBegun = again.job(kind).state != .idle
            finish(again)
            try expect(values, in: again, "died at commit \(commits)")
            if hasBegun {
                #expect(again.job(kind).state == .done, "died at commit \(commits)")
                #expect(again.versionCounts[Self.one] == nil, "died at commit \(commits)")
            }
            if hasEnded { break }
            commits += 1
        }
        #expect(commits >= 2)
    }
}
