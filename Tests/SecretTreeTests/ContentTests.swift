import SecretTree
import Testing

@Suite struct ContentTests {
    /// The file as it must be, beside the tree's: the same random edits to both.
    @Test(arguments: [UInt64(1), 2, 3, 4]) func `contents are what was written, whatever the order`(seed: UInt64)
        throws
    {
        var random = Seeded(seed)
        let house = try House()
        let file = try house.tree.make("model")
        var model: [UInt8] = []
        for step in 0..<120 {
            let limit = step < 40 ? 20_000 : 300_000
            let offset = Int.random(in: 0..<limit, using: &random)
            switch Int.random(in: 0..<6, using: &random) {
            case 0:
                let size = Bool.random(using: &random) ? offset : min(offset, model.count)
                try house.tree.resize(file, to: UInt64(size))
                model = Array(model.prefix(size)) + Array(repeating: 0, count: max(0, size - model.count))
            case 1:
                let count = Int.random(in: 1...70_000, using: &random)
                _ = try house.tree.allocate(
                    file, .punchHole, at: UInt64(offset), count: UInt64(count), now: House.now)
                for place in offset..<max(offset, min(model.count, offset + count)) { model[place] = 0 }
            default:
                let count = Int.random(in: 1...(step % 7 == 0 ? 100_000 : 6_000), using: &random)
                let bytes = (0..<count).map { _ in UInt8.random(in: 1...255, using: &random) }
                let appends = Int.random(in: 0..<4, using: &random) == 0
                let place = appends ? model.count : offset
                try house.tree.put(bytes, at: UInt64(offset), to: file, appends: appends)
                if model.count < place + count {
                    model += Array(repeating: 0, count: place + count - model.count)
                }
                model.replaceSubrange(place..<place + count, with: bytes)
            }
            let from = Int.random(in: 0...max(1, model.count), using: &random)
            #expect(
                try house.tree.bytes(of: file, at: UInt64(from), 5_000) == Array(model.dropFirst(from).prefix(5_000)))
        }
        #expect(try house.tree.bytes(of: file) == model)
        try house.tree.sync()
        let again = try house.reopened()
        #expect(again.problems.isEmpty)
        #expect(try again.bytes(of: again.find("model").id) == model)
        #expect(try again.verify().problems.isEmpty)
    }

    @Test func `a sparse file holds nothing where nothing was written`() throws {
        let tree = try House().tree
        let file = try tree.make("sparse")
        try tree.resize(file, to: 1 << 40)
        #expect(try tree.attributes(of: file).storedByteCount == 0)
        try tree.put([1, 2, 3], at: 1 << 30, to: file)
        #expect(try tree.attributes(of: file).storedByteCount == 4096)
        #expect(try tree.bytes(of: file, at: (1 << 30) - 2, 6) == [0, 0, 1, 2, 3, 0])
        #expect(try tree.seek(file, from: 0, forData: true) == 1 << 30)
        #expect(try tree.seek(file, from: 1 << 30, forData: false) == (1 << 30) + 4096)
        #expect(throws: TreeError.self) { try tree.seek(file, from: (1 << 30) + 4096, forData: true) }
        #expect(try tree.bytes(of: file, at: 0, 4) == [0, 0, 0, 0])
    }

    @Test func `a replacement is seen whole or not at all`() throws {
        let house = try House()
        let tree = house.tree
        let file = try tree.make("secret")
        try tree.put(Array("old".utf8), to: file)
        let shadow = try tree.beginReplacement(of: file, now: House.now)
        try tree.put(Array(repeating: 7, count: 100_000), to: shadow)
        #expect(try tree.bytes(of: file) == Array("old".utf8))
        let crashed = try house.reopened()
        #expect(try crashed.bytes(of: file) == Array("old".utf8))
        #expect(try crashed.verify().problems.isEmpty)

        let second = try crashed.beginReplacement(of: file, now: House.now)
        try crashed.put(Array("new".utf8), to: second)
        _ = try crashed.commitReplacement(second, of: file, clearsSetID: false, now: House.now)
        #expect(try crashed.bytes(of: file) == Array("new".utf8))
        #expect(try house.reopened().verify().problems.isEmpty)
    }

    @Test func `an unlinked file stays while it is held, and no longer`() throws {
        let house = try House()
        let tree = house.tree
        let file = try tree.make("held")
        try tree.put(Array(repeating: 9, count: 200_000), to: file)
        tree.hold(file)
        try tree.remove("held")
        #expect(throws: TreeError.self) { try tree.find("held") }
        #expect(try tree.bytes(of: file).count == 200_000)
        tree.release(file, now: House.now)
        #expect(throws: TreeError.self) { try tree.bytes(of: file) }
        #expect(try house.reopened().verify().problems.isEmpty)
        // The root and the localizer stand for all others and are not counted.
        #expect(try UInt64(tree.verify().recordCount) == tree.statistics().recordCount + 2)
    }
}

/// splitmix64, so that a failure can be seen again.
struct Seeded: RandomNumberGenerator {
    private var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}
