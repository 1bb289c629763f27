import Keyring
import SecretTree
import Sodium
import Storage
import Testing

/// A store that is put under another root key.
@Suite struct RekeyTests {
    private func house() throws -> (House, NodeID) {
        let house = try House()
        let file = try house.tree.make("file")
        try house.tree.put(Array(repeating: 7, count: 50_000), to: file)
        return (house, file)
    }

    private func successor(of house: House) throws -> UnlockedKeyring {
        try house.keyring.rekeyed(0, .replaced(by: house.keyService), opener: house.keyService, now: House.now)
    }

    private func opened(_ store: any RecordStore, _ keyring: UnlockedKeyring) throws -> SecretTree {
        try SecretTree.open(store, keyring: keyring, readOnly: false, seenEpoch: nil, now: House.now)
    }

    @Test func `everything is there under the new key, and nothing under the old`() throws {
        let (house, file) = try house()
        let before = try house.tree.attributes(of: file)
        let epoch = house.tree.epoch
        let successor = try successor(of: house)
        try house.tree.rekey(to: successor, now: House.now)
        let tree = try opened(house.store, successor)
        #expect(tree.problems.isEmpty && tree.epoch == epoch + 1)
        #expect(try tree.attributes(of: file) == before)
        #expect(try tree.bytes(of: file) == Array(repeating: 7, count: 50_000))
        #expect(try tree.kekVersion(of: file) == KEKVersion(rawValue: 1))
        let stable = try [house.tree, tree].map { try $0.deriveKey("a").withKey { [UInt8]($0.bytes) } }
        #expect(stable[0] == stable[1])
        let new = try tree.make("new")
        try tree.put([1], to: new)
        #expect(try tree.kekVersion(of: new) == KEKVersion(rawValue: 2))
        let report = try tree.verify()
        #expect(report.problems.isEmpty && report.unreadableCount == 0)
        #expect(refusal { try house.reopened() } == "key" || refusal { try house.reopened() } == "tampered")
        let again = try house.reopenedWithKeysOfTheStore()
        #expect(try again.bytes(of: new) == [1])
    }

    @Test func `what is tampered with afterwards is named, one by one`() throws {
        let (house, file) = try house()
        let other = try house.tree.make("other")
        let successor = try successor(of: house)
        try house.tree.rekey(to: successor, now: House.now)
        let record = try #require(try house.records().first { $0.key.kind == 6 && $0.key.owner == other.rawValue })
        try house.tamper { batch in
            var value = record.value
            value[20] ^= 1
            batch.put(record.key, value)
        }
        let tree = try opened(house.store, successor)
        #expect(Set(tree.problems.map(\.node)) == [other])
        #expect(try tree.bytes(of: file).count == 50_000)
        #expect(refusal { try tree.attributes(of: other) } == "tampered")
    }

    @Test(arguments: [false, true])
    func `a crash leaves the old key or the new one`(diesAfter: Bool) throws {
        let (house, file) = try house()
        let successor = try successor(of: house)
        let crashing = CrashingStore(house.store, commits: 0, diesAfter: diesAfter)
        let tree = try SecretTree.open(
            crashing, keyring: house.keyring, readOnly: false, seenEpoch: nil, now: House.now)
        #expect(throws: TreeError.self) { try tree.rekey(to: successor, now: House.now) }
        let after = try opened(house.store, diesAfter ? successor : house.keyring)
        #expect(after.problems.isEmpty)
        #expect(try after.bytes(of: file).count == 50_000)
        #expect(try after.verify().problems.isEmpty)
        #expect(throws: (any Error).self) { try opened(house.store, diesAfter ? house.keyring : successor) }
    }

    @Test func `what was tampered with before is not hidden by a new sum`() throws {
        let (house, _) = try house()
        try house.store.fold()
        let node = try #require(try house.records().first { $0.key.kind == 6 && $0.key.owner > 1 })
        try house.tamper { $0.delete(node.key) }
        let tree = try house.reopened()
        #expect(refusal { try tree.rekey(to: try successor(of: house), now: House.now) } == "tampered")
    }

    @Test func `another configuration of the same keys is taken`() throws {
        let (house, file) = try house()
        try house.tree.replaceConfiguration(try house.keyring.branched(), now: House.now)
        let tree = try house.reopenedWithKeysOfTheStore()
        #expect(tree.keyring.lineage != nil && tree.problems.isEmpty)
        #expect(try tree.bytes(of: file).count == 50_000)
    }
}
