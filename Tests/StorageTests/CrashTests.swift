import Glibc
import Testing

@testable import Storage

@Suite struct CrashTests {
    /// A store as a kill leaves it: two records folded, then batches in the journal. `states[n]` after n batches.
    private func killed(_ scratch: Scratch, batches: Int) throws -> (path: String, states: [[RecordKey: [UInt8]]]) {
        let store = try JournaledStore.create(at: scratch.place("live"))
        var state: [RecordKey: [UInt8]] = [key(1): [1], key(2): [2]]
        try store.commit(batch(state.map { ($0, $1) }))
        try store.fold()
        var states = [state]
        for number in 0..<batches {
            let fresh = key(10 + UInt64(number))
            state[fresh] = [UInt8](repeating: UInt8(number), count: number)
            state[key(1)] = [UInt8(number)]
            let gone = number == 2 ? key(2) : key(99)
            state[gone] = nil
            try store.commit(batch([(fresh, state[fresh]), (key(1), state[key(1)]), (gone, nil)]))
            states.append(state)
        }
        run("cp", "-a", scratch.place("live"), scratch.place("killed"))
        try store.close()
        return (scratch.place("killed"), states)
    }

    @Test func `a journal cut anywhere gives the state before or after a batch`() throws {
        let scratch = Scratch()
        let (path, states) = try killed(scratch, batches: 4)
        let journal = path + "/" + (bytes(of: path + "/journal.0").isEmpty ? "journal.1" : "journal.0")
        let whole = bytes(of: journal)
        var reached: Set<Int> = []
        var last = 0
        for length in 0...whole.count {
            put(Array(whole[..<length]), at: journal)
            let store = try JournaledStore.open(at: path, readOnly: true)
            let found = try store.contents()
            let number = try #require(states.firstIndex(of: found), "cut at \(length)")
            #expect(number >= last, "cut at \(length)")
            last = number
            reached.insert(number)
            try store.close()
        }
        #expect(reached == Set(states.indices))
    }

    @Test func `a byte changed in the last batch drops that batch`() throws {
        let scratch = Scratch()
        let (path, states) = try killed(scratch, batches: 4)
        let journal = path + "/" + (bytes(of: path + "/journal.0").isEmpty ? "journal.1" : "journal.0")
        let whole = bytes(of: journal)
        let end = whole.withUnsafeBytes { Journal.parse($0).frames[2].end }
        for place in end..<whole.count {
            var changed = whole
            changed[place] ^= 0x40
            put(changed, at: journal)
            let store = try JournaledStore.open(at: path, readOnly: true)
            #expect(try store.contents() == states[3], "byte \(place)")
            try store.close()
        }
    }

    @Test func `after a torn batch new ones are kept`() throws {
        let scratch = Scratch()
        let (path, states) = try killed(scratch, batches: 3)
        let journal = path + "/" + (bytes(of: path + "/journal.0").isEmpty ? "journal.1" : "journal.0")
        let whole = bytes(of: journal)
        for cut in [1, 7, 20, 40] {
            put(Array(whole.dropLast(cut)), at: journal)
            run("rm", "-rf", scratch.place("copy"))
            run("cp", "-a", path, scratch.place("copy"))
            var expected = states[2]
            for round in 0..<3 {
                let store = try JournaledStore.open(at: scratch.place("copy"))
                #expect(try store.contents() == expected, "cut \(cut) round \(round)")
                expected[key(50)] = [UInt8(round)]
                try store.put(key(50), [UInt8(round)])
                run("rm", "-rf", scratch.place("next"))
                run("cp", "-a", scratch.place("copy"), scratch.place("next"))
                try store.close()
                run("rm", "-rf", scratch.place("copy"))
                run("mv", scratch.place("next"), scratch.place("copy"))
            }
        }
    }

    @Test func `a crash within a fold leaves batches in both journals, and none is lost`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        try store.put(key(1), [1])
        try store.put(key(2), [2])
        run("cp", "-a", scratch.place("store"), scratch.place("before"))
        try store.fold()
        try store.commit(batch([(key(2), [3]), (key(1), nil)]))
        let newer = bytes(of: scratch.place("store/journal.1"))
        try store.close()
        // The fold's transaction has not happened; its journal is whole, and the other has a batch more.
        put(newer, at: scratch.place("before/journal.1"))
        for round in 0..<2 {
            let again = try JournaledStore.open(at: scratch.place("before"))
            #expect(again.bothHoldBatches)
            #expect(try again.contents() == [key(2): [3]])
            #expect(again.overlayKeys == [key(1), key(2)] + (round == 0 ? [] : [key(3)]))
            try again.put(key(3), [3])
            run("cp", "-a", scratch.place("before"), scratch.place("second"))
            again.setFoldHooks { [(key(7), [7])] }
            try again.fold()
            #expect(!again.bothHoldBatches)
            try again.put(key(4), [4])
            let expected = [key(2): [3], key(3): [3], key(4): [4], key(7): [7]] as [RecordKey: [UInt8]]
            #expect(try again.contents() == expected)
            try again.close()
            let closed = try JournaledStore.open(at: scratch.place("before"))
            #expect(try closed.contents() == expected)
            try closed.close()
            run("rm", "-rf", scratch.place("before"))
            run("mv", scratch.place("second"), scratch.place("before"))
            // The second time round the batch of the first is there already.
            let third = try JournaledStore.open(at: scratch.place("before"))
            try third.commit(batch([(key(3), nil)]))
            run("cp", "-a", scratch.place("before"), scratch.place("second"))
            try third.close()
            run("rm", "-rf", scratch.place("before"))
            run("mv", scratch.place("second"), scratch.place("before"))
        }
    }

    @Test func `batches that were folded already are not taken up again`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        try store.put(key(1), [1])
        let old = bytes(of: scratch.place("store/journal.0"))
        try store.fold()
        try store.put(key(1), [2])
        try store.fold()
        try store.close()
        put(old, at: scratch.place("store/journal.0"))
        let again = try JournaledStore.open(at: scratch.place("store"))
        #expect(try again.contents() == [key(1): [2]])
        #expect(again.overlayKeys == [])
        try again.close()
    }

    @Test func `a gap between the journals ends what is taken up`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        try store.put(key(1), [1])
        run("cp", "-a", scratch.place("store"), scratch.place("before"))
        try store.put(key(2), [2])
        try store.fold()
        try store.put(key(3), [3])
        put(bytes(of: scratch.place("store/journal.1")), at: scratch.place("before/journal.1"))
        try store.close()
        let again = try JournaledStore.open(at: scratch.place("before"))
        #expect(try again.contents() == [key(1): [1]])
        try again.put(key(4), [4])
        try again.close()
        let last = try JournaledStore.open(at: scratch.place("before"))
        #expect(try last.contents() == [key(1): [1], key(4): [4]])
        try last.close()
    }

    @Test func `after a loss of power a batch whose blocks are lost is dropped`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        let blocks = try store.allocateBlocks(2)
        try store.write(blocks[0], 1)
        try store.put(key(1), [1])
        try store.sync()
        try store.write(blocks[1], 2)
        try store.put(key(2), [2])
        try store.put(key(3), [3])
        run("cp", "-a", scratch.place("store"), scratch.place("killed"))
        try store.close()
        let path = scratch.place("killed")
        /// - Parameter handedOver: By a process that has the store open all the time.
        func found(_ step: String, handedOver: Bool = false) throws -> [RecordKey: [UInt8]] {
            let lock = handedOver ? Glibc.open(path + "/lock", O_RDWR | O_CLOEXEC) : nil
            let store = try JournaledStore.open(at: path, readOnly: true, inheritedLock: lock)
            defer { try? store.close() }
            return try store.contents()
        }
        let everything: [RecordKey: [UInt8]] = [key(1): [1], key(2): [2], key(3): [3]]
        let saved = bytes(of: path + "/blocks")
        #expect(try found("killed") == everything)
        put(Array(saved.prefix(4096)), at: path + "/blocks")
        #expect(try found("to a successor the kernel has them", handedOver: true) == everything)
        // A disk that goes and comes back in the same boot.
        #expect(try found("lost with the disk") == [key(1): [1]])
        var journal = bytes(of: path + "/journal.0")
        journal[8] ^= 1
        put(journal, at: path + "/journal.0")
        for handedOver in [false, true] { #expect(try found("lost", handedOver: handedOver) == [key(1): [1]]) }
        put(saved, at: path + "/blocks")
        #expect(try found("not lost") == everything)
        put([UInt8](repeating: 0, count: 4096) + saved[4096...], at: path + "/blocks")
        #expect(try found("what was synced may have gone since") == everything)
        // Once taken up in this boot the batches stay for successors.
        let again = try JournaledStore.open(at: path)
        #expect(try again.contents() == everything)
        put([], at: path + "/blocks")
        run("cp", "-a", path, scratch.place("again"))
        try again.close()
        let third = try JournaledStore.open(
            at: scratch.place("again"), readOnly: true,
            inheritedLock: Glibc.open(scratch.place("again") + "/lock", O_RDWR | O_CLOEXEC))
        #expect(try third.contents() == everything)
        try third.close()
    }

    @Test func `no journal however damaged brings the reader down`() throws {
        let scratch = Scratch()
        let (path, _) = try killed(scratch, batches: 4)
        let name = bytes(of: path + "/journal.0").isEmpty ? "journal.1" : "journal.0"
        let whole = bytes(of: path + "/" + name)
        var random = Seeded(state: 11)
        for _ in 0..<3000 {
            var damaged = whole
            for _ in 0..<Int.random(in: 1...6, using: &random) {
                damaged[Int.random(in: 0..<damaged.count, using: &random)] = .random(in: .min ... .max, using: &random)
            }
            // With checksums that hold, so that what is behind them is reached.
            damaged.withUnsafeMutableBytes { bytes in
                var place = Journal.headerByteCount
                while bytes.count - place >= Journal.frameHeaderByteCount {
                    let length = Int(bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
                    let start = place + Journal.frameHeaderByteCount
                    guard bytes.count - start >= length else { break }
                    let sum = Journal.frameSum(
                        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[place..<place + 16]),
                        UnsafeRawBufferPointer(rebasing: UnsafeRawBufferPointer(bytes)[start..<start + length]))
                    bytes.storeBytes(of: sum, toByteOffset: place + 16, as: UInt64.self)
                    place = start + length
                }
            }
            let frames = damaged.withUnsafeBytes { Journal.parse($0).frames }
            #expect(frames.count <= 4)
        }
    }
}
