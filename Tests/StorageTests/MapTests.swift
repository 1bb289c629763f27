import Glibc
import Testing

@testable import Storage

@Suite struct MapTests {
    enum Kind: String, CaseIterable, Sendable { case memory, journaled }

    private func make(_ kind: Kind, _ scratch: Scratch) throws -> any RecordStore {
        switch kind {
        case .memory: MemoryStore()
        case .journaled: try JournaledStore.create(at: scratch.place("store"))
        }
    }

    @Test(arguments: Kind.allCases, [1, 2] as [UInt64])
    func `a store behaves as an ordered map`(kind: Kind, seed: UInt64) throws {
        let scratch = Scratch()
        var random = Seeded(state: seed)
        var store = try make(kind, scratch)
        var model: [RecordKey: [UInt8]] = [:]
        func randomKey() -> RecordKey {
            RecordKey(
                kind: .random(in: 1...3, using: &random), owner: .random(in: 0...20, using: &random),
                high: [0, 1, .max].randomElement(using: &random)!, low: .random(in: 0...3, using: &random))
        }
        for round in 0..<250 {
            var next = RecordBatch()
            for _ in 0..<Int.random(in: 0...8, using: &random) {
                let key = randomKey()
                if Bool.random(using: &random) || model[key] == nil {
                    let count = [0, 1, 30, 300, 5000].randomElement(using: &random)!
                    let value = (0..<count).map { _ in UInt8.random(in: .min ... .max, using: &random) }
                    next.put(key, value)
                    model[key] = value
                } else {
                    next.delete(key)
                    model[key] = nil
                }
            }
            try store.commit(next)
            if round % 17 == 0 { try store.fold() }
            if round % 60 == 59, kind == .journaled {
                try store.close()
                store = try JournaledStore.open(at: scratch.place("store"))
            }
            let probe = randomKey()
            #expect(try store.value(probe) == model[probe], "seed \(seed) round \(round)")
            if round % 5 == 0 {
                let ends = [randomKey(), randomKey()].sorted()
                let range = ends[0]...ends[1]
                let prefix = [0, 1, 100, Int.max].randomElement(using: &random)!
                let expected = model.filter { range.contains($0.key) }.mapValues { Array($0.prefix(prefix)) }
                #expect(try store.contents(range, prefix: prefix) == expected, "seed \(seed) round \(round)")
            }
        }
        #expect(try store.contents() == model)
        #expect(try store.integrityCheck() == [])
        try store.close()
    }

    @Test(arguments: Kind.allCases)
    func `a scan stops when it is told to`(kind: Kind) throws {
        let scratch = Scratch()
        let store = try make(kind, scratch)
        for owner in 0..<10 as Range<UInt64> {
            try store.put(key(owner), [UInt8(owner)])
            if owner == 4 { try store.fold() }
        }
        var seen: [UInt64] = []
        try store.scan(everything, prefix: 1) { key, _ in
            seen.append(key.owner)
            return seen.count < 7
        }
        #expect(seen == [0, 1, 2, 3, 4, 5, 6])
        try store.close()
    }

    @Test(arguments: Kind.allCases)
    func `a batch whose expectation does not hold changes nothing`(kind: Kind) throws {
        let scratch = Scratch()
        let store = try make(kind, scratch)
        try store.put(key(1), [1])
        var wrong = batch([(key(1), [2]), (key(2), [2])])
        wrong.expect(key(1), [9])
        var ran = false
        #expect(storageError { try store.commit(wrong) { ran = true } } == .conflict)
        var absent = batch([(key(2), [2])])
        absent.expect(key(1), nil)
        #expect(storageError { try store.commit(absent) { ran = true } } == .conflict)
        #expect(!ran)
        #expect(try store.contents() == [key(1): [1]])
        var right = batch([(key(1), [2])])
        right.expect(key(1), [1])
        right.expect(key(3), nil)
        try store.commit(right) { ran = true }
        #expect(ran)
        #expect(try store.contents() == [key(1): [2]])
        try store.close()
    }

    @Test(arguments: Kind.allCases)
    func `of two changes of a record in one batch the later holds`(kind: Kind) throws {
        let scratch = Scratch()
        let store = try make(kind, scratch)
        try store.commit(batch([(key(1), [1]), (key(1), nil), (key(2), nil), (key(2), [3])]))
        #expect(try store.contents() == [key(2): [3]])
        try store.close()
    }

    @Test(arguments: Kind.allCases)
    func `a closed store says so, and may be closed again`(kind: Kind) throws {
        let scratch = Scratch()
        let store = try make(kind, scratch)
        try store.close()
        try store.close()
        #expect(storageError { _ = try store.value(key(1)) } == .closed)
        #expect(storageError { try store.put(key(1), []) } == .closed)
        #expect(storageError { try store.sync() } == .closed)
        #expect(storageError { _ = try store.contents() } == .closed)
        #expect(storageError { _ = try store.allocateBlocks(1) } == .closed)
    }

    @Test func `keys sort as their bytes do`() {
        var random = Seeded(state: 5)
        func part() -> UInt64 { [0, 1, 255, 256, 1 << 40, .max].randomElement(using: &random)! }
        for _ in 0..<500 {
            let keys = (0..<2).map { _ in
                RecordKey(kind: UInt8(part() & 255), owner: part(), high: part(), low: part())
            }
            let encoded = keys.map { key in
                [UInt8](unsafeUninitializedCapacity: 25) { buffer, count in
                    key.encode(into: UnsafeMutableRawBufferPointer(buffer))
                    count = 25
                }
            }
            #expect((keys[0] < keys[1]) == encoded[0].lexicographicallyPrecedes(encoded[1]))
            #expect(encoded[0].withUnsafeBytes { RecordKey($0) } == keys[0])
        }
    }
}
