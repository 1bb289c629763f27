import Keyring
import SecretTree
import Storage
import Testing

/// What somebody with the store's files may do to them, and how it shows.
@Suite struct FreshnessTests {
    /// Three files, folded, and what the store holds of them.
    private func house() throws -> (House, [NodeID], [RecordKey: [UInt8]]) {
        let house = try House()
        let files = try ["one", "two", "three"].map { try house.tree.make($0) }
        for file in files { try house.tree.put(Array("value of \(file.rawValue)".utf8), to: file) }
        try house.store.fold()
        return (house, files, try house.records())
    }

    private enum Kind { static let node: UInt8 = 6, entry: UInt8 = 7, envelope: UInt8 = 8, root: UInt8 = 2 }

    @Test func `every flipped bit is named, and only its file is refused`() throws {
        for kind in [Kind.node, Kind.entry, Kind.envelope] {
            let (house, _, records) = try house()
            let (key, value) = try #require(records.filter { $0.key.kind == kind }.max { $0.key < $1.key })
            var flipped = value
            flipped[value.count / 2] ^= 1
            try house.tamper { $0.put(key, flipped) }
            let tree = try house.reopened()
            let readable = ["one", "two", "three"].filter { name in
                refusal { try tree.bytes(of: tree.find(name).id) } == ""
            }
            #expect(readable.count == 2, "kind \(kind)")
            #expect(!(try tree.verify().problems.isEmpty), "kind \(kind)")
        }
    }

    @Test func `a second root record is named`() throws {
        let (house, _, records) = try house()
        let (key, value) = try #require(records.first { $0.key.kind == Kind.root })
        try house.tamper { $0.put(RecordKey(kind: Kind.root, owner: key.owner, high: key.high, low: 7), value) }
        let tree = try house.reopened()
        #expect(try tree.bytes(of: tree.find("one").id) != [])
        #expect(try tree.verify().problems.map(\.description) == ["a second root record was added"])
    }

    @Test func `a record put back, taken away or added is named and refused`() throws {
        let (house, files, old) = try house()
        try house.tree.put(Array("newer value".utf8), to: files[1])
        try house.store.fold()
        let changed = try house.records()
        // The old envelope still authenticates: only the sum knows that it is old.
        let key = try #require(
            changed.keys.first { $0.kind == Kind.envelope && old[$0] != nil && old[$0] != changed[$0] })
        let before = try #require(old[key])
        try house.tamper { $0.put(key, before) }
        var tree = try house.reopened()
        #expect(tree.problems.count == 1)
        #expect(refusal { try tree.bytes(of: files[1]) } == "tampered")
        #expect(try tree.bytes(of: files[0]) == Array("value of \(files[0].rawValue)".utf8))

        // Writing to it anew is refused; replacing it whole heals it.
        let shadow = try tree.beginReplacement(of: files[1], now: House.now)
        try tree.put(Array("healed".utf8), to: shadow)
        _ = try tree.commitReplacement(shadow, of: files[1], clearsSetID: false, now: House.now)
        #expect(try tree.bytes(of: files[1]) == Array("healed".utf8))
        tree = try house.reopened()
        #expect(tree.problems.isEmpty)

        let entry = try #require(house.records().keys.first { $0.kind == Kind.entry })
        try house.store.fold()
        let kept = try #require(house.records()[entry])
        try house.tamper { $0.delete(entry) }
        tree = try house.reopened()
        #expect(tree.problems.contains { $0.description.contains("is missing") })
        try house.tamper { $0.put(entry, kept) }
        #expect(try house.reopened().problems.isEmpty)
        try house.tamper { $0.put(RecordKey(kind: Kind.node, owner: 77), kept) }
        tree = try house.reopened()
        #expect(tree.problems.contains { $0.description.contains("brought back or added") })
    }

    @Test func `the whole store put back is told by its epoch`() throws {
        let (house, files, old) = try house()
        let seen = house.tree.epoch
        try house.tree.put(Array("newer".utf8), to: files[0])
        try house.store.fold()
        #expect(house.tree.epoch > seen)
        let epoch = house.tree.epoch
        let all = try house.records()
        try house.tamper { batch in
            for key in all.keys where old[key] == nil { batch.delete(key) }
            for (key, value) in old { batch.put(key, value) }
        }
        #expect(refusal { try house.reopened(seenEpoch: epoch) } == "rolledBack")
        #expect(try house.reopened(seenEpoch: seen).problems.isEmpty)
    }

    @Test func `the keys' own records put back refuse the keyring`() throws {
        let (house, _, old) = try house()
        _ = try house.tree.rotate(now: House.now)
        try house.store.fold()
        let lifecycle = RecordKey(kind: 3, owner: 0)
        let before = try #require(old[lifecycle])
        try house.tamper { $0.put(lifecycle, before) }
        #expect(refusal { try house.reopened() } == "tampered")
    }

    @Test func `a hundred records tampered with at once are all named`() throws {
        let house = try House()
        for number in 0..<300 { _ = try house.tree.make("file-\(number)") }
        try house.store.fold()
        let nodes = try house.records().filter { $0.key.kind == Kind.node && $0.key.owner > 1 }.prefix(100)
        try house.tamper { batch in for (key, _) in nodes { batch.delete(key) } }
        let tree = try house.reopened()
        #expect(tree.problems.filter { $0.description.contains("is missing") }.count == 100)
    }
}

extension House {
    /// All that lies in the store.
    func records() throws -> [RecordKey: [UInt8]] {
        var records: [RecordKey: [UInt8]] = [:]
        let all =
            RecordKey(kind: 0, owner: 0)...RecordKey(kind: .max, owner: .max, high: .max, low: .max)
        try store.scan(all, prefix: .max) { key, value in
            records[key] = Array(value)
            return true
        }
        return records
    }

    /// Changes the store behind the tree's back, as somebody with its files can, leaving the localizer as it was.
    func tamper(_ change: (inout RecordBatch) -> Void) throws {
        store.setFoldHooks { [] }
        var batch = RecordBatch()
        change(&batch)
        try store.commit(batch)
        try store.fold()
    }
}
