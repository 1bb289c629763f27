import Glibc
import Testing

@testable import Storage

@Suite struct ErasingTests {
    /// Values by the first bytes of what must be found nowhere any more.
    private struct Marks {
        private(set) var all: [[UInt8]] = []
        mutating func add(_ value: [UInt8]) {
            all.append(Array(value.prefix(16)))
            all.append(Array(value.suffix(16)))
        }

        /// How many of them are in the store's files.
        func found(in path: String) -> Int {
            let looked = Set(all)
            var found: Set<[UInt8]> = []
            // Sixteen random bytes are told by their first eight, and most places by the low bits of these.
            var heads: [UInt64: [UInt8]] = [:]
            let mayBe = UnsafeMutablePointer<Bool>.allocate(capacity: 1 << 20)
            mayBe.initialize(repeating: false, count: 1 << 20)
            defer { mayBe.deallocate() }
            for mark in looked {
                let head = mark.withUnsafeBytes { $0.loadUnaligned(as: UInt64.self) }
                heads[head] = mark
                mayBe[Int(head & 0xF_FFFF)] = true
            }
            for (_, bytes) in files(in: path) where bytes.count >= 16 {
                bytes.withUnsafeBytes { bytes in
                    var place = -1
                    while place < bytes.count - 16 {
                        place += 1
                        let head = bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self)
                        guard mayBe[Int(head & 0xF_FFFF)], let mark = heads[head],
                            bytes[place..<place + 16].elementsEqual(mark)
                        else {
                            continue
                        }
                        found.insert(mark)
                    }
                }
            }
            return found.count
        }
    }

    private func random(_ count: Int, _ numbers: inout Seeded) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: count + 8) { bytes, filled in
            for place in stride(from: 0, to: count, by: 8) {
                let word = numbers.next()
                UnsafeMutableRawBufferPointer(bytes).storeBytes(of: word, toByteOffset: place, as: UInt64.self)
            }
            filled = count
        }
    }

    private func envelope(_ owner: UInt64) -> RecordKey { RecordKey(kind: 8, owner: owner) }
    private func body(_ owner: UInt64) -> RecordKey { RecordKey(kind: 15, owner: owner) }

    /// As re-encryption does it: old records go, new ones of other lengths come, a batch a transaction.
    @Test(arguments: [1, 2] as [UInt64])
    func `nothing of a dropped or replaced record is left in the files`(seed: UInt64) throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        var numbers = Seeded(state: seed)
        var marks = Marks()
        let count: UInt64 = 3000
        func value() -> [UInt8] { random([120, 400, 700, 1100].randomElement(using: &numbers)!, &numbers) }
        func long() -> [UInt8] { random([2000, 5000, 16_000].randomElement(using: &numbers)!, &numbers) }
        for first in stride(from: 1, through: count, by: 500) {
            var changes: [(RecordKey, [UInt8]?)] = []
            for owner in first..<first + 500 {
                changes.append((envelope(owner), value()))
                if owner % 3 == 0 { changes.append((body(owner), long())) }
                for (_, value) in changes.suffix(2) { marks.add(value!) }
                changes.append((key(owner), random(200, &numbers)))
            }
            try store.commit(batch(changes))
        }
        try store.fold()
        for first in stride(from: 1, through: count, by: 100) {
            var changes: [(RecordKey, [UInt8]?)] = []
            for owner in first..<first + 100 {
                changes += [(envelope(owner), nil), (body(owner), nil), (envelope(owner + count), value())]
                if owner % 3 == 0 { changes.append((body(owner + count), long())) }
                changes.append((key(owner), random(200, &numbers)))
            }
            try store.commit(batch(changes))
            if first % 500 == 1 { try store.fold() }
        }
        let before = try store.contents()
        try store.eraseRemains()
        #expect(marks.found(in: path) == 0)
        #expect(try store.contents() == before)
        #expect(try store.integrityCheck().isEmpty)
        // Nor does it come back with pages that the store still had in memory.
        for owner in 1...50 as ClosedRange<UInt64> { try store.put(envelope(count + owner * 7), value()) }
        try store.close()
        #expect(marks.found(in: path) == 0)
        let again = try JournaledStore.open(at: path)
        #expect(try again.contents().count == before.count)
        try again.close()
    }

    @Test func `the search finds what is there`() throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        var numbers = Seeded(state: 4)
        var marks = Marks()
        let value = random(700, &numbers)
        marks.add(value)
        try store.put(envelope(1), value)
        #expect(marks.found(in: path) == 2)
        try store.commit(batch([(envelope(1), nil)]))
        #expect(marks.found(in: path) == 2)
        try store.eraseRemains()
        #expect(marks.found(in: path) == 0)
        try store.close()
    }

    @Test func `blocks that were given back are erased with the rest`() throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        let blocks = try store.allocateBlocks(3)
        for block in blocks { try store.write(block, 0xA5) }
        try store.put(key(1), [1])
        store.releaseBlocks(blocks)
        try store.eraseRemains()
        #expect(!bytes(of: path + "/blocks").contains(0xA5))
        try store.close()
    }

    @Test func `a walk that is under way is waited for, and said so if it does not end`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        try store.commit(batch((0..<2000).map { (key($0), [UInt8](repeating: 7, count: 100)) }))
        try store.fold()
        try store.put(key(5000), [1])
        var problem: StorageError?
        try store.scan(everything, prefix: 0) { _, _ in
            problem = storageError { try store.eraseRemains(patience: 50) }
            return false
        }
        guard case .io(EBUSY, _) = problem else {
            Issue.record("\(String(describing: problem))")
            return
        }
        try store.eraseRemains()
        try store.close()
    }
}
