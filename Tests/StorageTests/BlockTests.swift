import Glibc
import Testing

@testable import Storage

@Suite struct BlockTests {
    @Test func `blocks read as they were written, in runs and alone`() throws {
        let scratch = Scratch()
        for store in [MemoryStore(), try JournaledStore.create(at: scratch.place("store"))] as [any RecordStore] {
            let blocks = try store.allocateBlocks(5)
            #expect(blocks == [1, 2, 3, 4, 5])
            let bytes = (0..<5 * 4096).map { UInt8($0 / 4096 + 1) }
            try bytes.withUnsafeBytes { try store.writeBlocks(at: 1, $0) }
            #expect(try store.block(3) == [UInt8](repeating: 3, count: 4096))
            var found = [UInt8](repeating: 0, count: 3 * 4096)
            try found.withUnsafeMutableBytes { try store.readBlocks(at: 2, into: $0) }
            #expect(found == Array(bytes[4096..<4 * 4096]))
            for number in [0, 6, 1 << 50, .max] as [UInt64] {
                guard case .corrupt = storageError({ _ = try store.block(number) }) else {
                    Issue.record("block \(number) was read")
                    continue
                }
            }
            #expect(try store.allocateBlocks(0) == [])
            #expect(try store.statistics().usedBlockCount == 5)
            try store.close()
        }
    }

    @Test func `a released block is not used again before its release is durable`() throws {
        let scratch = Scratch()
        for store in [MemoryStore(), try JournaledStore.create(at: scratch.place("store"))] as [any RecordStore] {
            let blocks = try store.allocateBlocks(4)
            for block in blocks { try store.write(block, 7) }
            try store.put(key(1), [1])
            try store.sync()
            try store.commit(batch([(key(1), nil)]))
            store.releaseBlocks([2, 3])
            #expect(try store.allocateBlocks(2) == [5, 6])
            #expect(try store.block(2) == [UInt8](repeating: 7, count: 4096))
            try store.fold()
            #expect(try store.block(2) == [UInt8](repeating: 0, count: 4096), "and it is erased before")
            #expect(try Set(store.allocateBlocks(2)) == [2, 3])
            #expect(try store.block(4) == [UInt8](repeating: 7, count: 4096))
            try store.commit(batch([(key(2), [2])]))
            store.releaseBlocks([1])
            try store.fold()
            #expect(try store.allocateBlocks(1) == [1], "a fold makes durable as well")
            try store.close()
        }
    }

    @Test func `after opening what is not marked is free and the rest is kept`() throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        var store = try JournaledStore.create(at: path)
        for block in try store.allocateBlocks(6) { try store.write(block, UInt8(block)) }
        try store.put(key(1), [1])
        try store.close()
        store = try JournaledStore.open(at: path)
        #expect(try store.allocateBlocks(1) == [7], "until all are known none is used again")
        store.markBlocksUsed([1, 4])
        store.markBlocksUsed([6])
        store.finishMarking()
        try store.sync()
        try store.fold()
        #expect(try store.statistics().usedBlockCount == 4)
        #expect(try Set(store.allocateBlocks(2) + store.allocateBlocks(1)) == [2, 3, 5])
        #expect(try store.allocateBlocks(1) == [8])
        for block in [1, 4, 6] as [UInt64] {
            #expect(try store.block(block) == [UInt8](repeating: UInt8(block), count: 4096))
        }
        #expect(try store.block(5) == [UInt8](repeating: 0, count: 4096))
        try store.close()
    }

    @Test(arguments: [1, 2, 3] as [UInt64])
    func `no block is ever given to two`(seed: UInt64) {
        var random = Seeded(state: seed)
        var allocator = BlockAllocator(blockCount: 0, isMarking: false)
        var held: Set<UInt64> = []
        var waiting: Set<UInt64> = []
        for sequence in 0..<800 as Range<UInt64> {
            if Bool.random(using: &random) || held.isEmpty {
                let count = [1, 1, 2, 16, 100].randomElement(using: &random)!
                let blocks = allocator.allocate(count)
                #expect(blocks.count == count && Set(blocks).count == count)
                #expect(held.isDisjoint(with: blocks) && waiting.isDisjoint(with: blocks))
                held.formUnion(blocks)
            } else {
                let blocks = held.shuffled(using: &random).prefix(.random(in: 1...40, using: &random)).sorted()
                held.subtract(blocks)
                waiting.formUnion(blocks)
                allocator.release(blocks, after: sequence)
            }
            if sequence % 10 == 0 {
                let runs = allocator.takeErasable(durable: sequence)
                for run in runs { waiting.subtract(run) }
                if Bool.random(using: &random) { allocator.free(runs) } else { allocator.leave(runs) }
                #expect(waiting.isEmpty)
            }
            if sequence % 35 == 0 {
                let count = allocator.staleCount
                let limit = Int.random(in: 1...50, using: &random)
                let runs = allocator.takeStale(atMost: limit)
                let taken = runs.joined()
                #expect(taken.count == min(limit, Int(count)) && allocator.staleCount == count - UInt64(taken.count))
                #expect(taken.elementsEqual(Set(taken).sorted()) && held.isDisjoint(with: taken))
                let blocks = allocator.allocate(3)
                #expect(Set(blocks).isDisjoint(with: taken), "what is being erased is not free")
                held.formUnion(blocks)
                allocator.free(runs)
                #expect(allocator.usedCount == UInt64(held.count))
            }
            #expect(allocator.usedCount == UInt64(held.count))
        }
        #expect(allocator.end < 20_000)
    }

    @Test func `short runs are used again while changes are made, and erased when there are none`() throws {
        let scratch = Scratch()
        let path = scratch.place("store")
        let store = try JournaledStore.create(at: path)
        func holdsOld() -> Bool { bytes(of: path + "/blocks").contains { $0 >= 200 } }
        var used: Set<UInt64> = []
        for round in 0..<40 as Range<UInt8> {
            let block = try #require(try store.allocateBlocks(1).first)
            used.insert(block)
            try store.write(block, 200 + round)
            try store.put(key(1), [round])
            store.releaseBlocks([block])
            try store.sync()
        }
        #expect(used.count < 5)
        #expect(holdsOld(), "it was left for later")
        try store.put(key(1), [99])
        try store.fold()
        #expect(!holdsOld())
        try store.close()
    }

    @Test func `a file of blocks does not grow for ever when only single ones are free`() {
        var allocator = BlockAllocator(blockCount: 0, isMarking: false)
        let blocks = allocator.allocate(200_000)
        allocator.release(blocks.filter { $0 % 4 != 0 }, after: 0)
        allocator.free(allocator.takeErasable(durable: 0))
        var seen: Set<UInt64> = []
        for _ in 0..<100 {
            for block in allocator.allocate(100) { #expect(block % 4 != 0 && seen.insert(block).inserted) }
        }
        #expect(allocator.end == 200_000)
    }
}
