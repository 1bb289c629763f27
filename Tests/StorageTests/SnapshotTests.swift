import Testing

@testable import Storage

/// Going through a store beside those who change it.
@Suite struct SnapshotTests {
    private func key(_ number: UInt64) -> RecordKey { RecordKey(kind: 9, owner: number) }

    private func change(_ store: JournaledStore, _ body: (inout RecordBatch) -> Void) throws {
        var batch = RecordBatch()
        body(&batch)
        try store.commit(batch)
    }

    private func all(_ snapshot: any StoreSnapshot) throws -> [UInt64: [UInt8]] {
        var found: [UInt64: [UInt8]] = [:]
        var last: RecordKey?
        while let (key, value) = try snapshot.next() {
            #expect(last.map { $0 < key } ?? true)
            last = key
            found[key.owner] = value
        }
        return found
    }

    @Test(arguments: [false, true])
    func `it holds what was there, folded or not`(folds: Bool) throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        defer { try? store.close() }
        try change(store) { batch in for number in 0..<100 as Range<UInt64> { batch.put(key(number), [1]) } }
        if folds { try store.fold() }
        try change(store) { batch in
            batch.delete(key(0))
            batch.delete(key(50))
            batch.put(key(51), [2])
            batch.put(key(200), [3])
        }
        let snapshot = try store.snapshot()
        #expect(try snapshot.next()?.key == key(1))
        try change(store) { batch in
            for number in 1..<300 as Range<UInt64> { batch.put(key(number), [9]) }
            batch.delete(key(99))
        }
        try store.fold()
        var expected: [UInt64: [UInt8]] = [51: [2], 200: [3]]
        for number in 2..<100 as Range<UInt64> where number != 50 && number != 51 { expected[number] = [1] }
        #expect(try all(snapshot) == expected)
        #expect(try all(try store.snapshot()).count == 298)
    }

    @Test func `blocks stay as long as it lives, and go then`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        defer { try? store.close() }
        let blocks = try store.allocateBlocks(4)
        let bytes = [UInt8](repeating: 7, count: 4 * storeBlockByteCount)
        try bytes.withUnsafeBytes { try store.writeBlocks(at: blocks[0], $0) }
        try change(store) { $0.put(key(1), [1]) }
        var buffer = [UInt8](repeating: 0, count: storeBlockByteCount)
        do {
            let snapshot = try store.snapshot()
            try change(store) { $0.delete(key(1)) }
            store.releaseBlocks(blocks)
            try store.sync()
            try store.fold()
            try buffer.withUnsafeMutableBytes { try snapshot.readBlock(blocks[3], into: $0) }
            #expect(buffer.allSatisfy { $0 == 7 })
            #expect(Set(try store.allocateBlocks(8)).isDisjoint(with: blocks))
        }
        try store.fold()
        try buffer.withUnsafeMutableBytes { try store.readBlocks(at: blocks[3], into: $0) }
        #expect(buffer.allSatisfy { $0 == 0 })
    }
}
