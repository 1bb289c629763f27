import Glibc
import Synchronization
import Testing

@testable import Storage

@Suite struct FoldTests {
    @Test func `the hook's records are written with the fold and readable afterwards`() throws {
        let scratch = Scratch()
        for store in [MemoryStore(), try JournaledStore.create(at: scratch.place("store"))] as [any RecordStore] {
            let calls = Atomic<Int>(0)
            let digest = RecordKey(kind: 5, owner: 0)
            store.setFoldHooks {
                let number = calls.wrappingAdd(1, ordering: .relaxed).newValue
                return [(digest, [UInt8(number)])]
            }
            try store.fold()
            #expect(calls.load(ordering: .relaxed) == 0, "a fold with nothing to do asks for nothing")
            try store.put(key(1), [1])
            #expect(store.overlayKeys == [key(1)])
            #expect(try store.foldedContents() == [:])
            try store.fold()
            #expect(try store.foldedContents() == [digest: [1], key(1): [1]])
            #expect(store.overlayKeys == [])
            try store.commit(batch([(key(1), nil), (key(2), [2])]))
            #expect(try store.foldedContents() == [digest: [1], key(1): [1]])
            #expect(try store.contents() == [digest: [1], key(2): [2]])
            #expect(store.overlayKeys == [key(1), key(2)])
            try store.fold()
            #expect(try store.value(digest) == [2])
            #expect(try store.contents() == [digest: [2], key(2): [2]])
            try store.close()
        }
    }

    @Test func `what was not folded is in the overlay after opening`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        try store.put(key(1), [1])
        try store.fold()
        try store.commit(batch([(key(2), [2]), (key(1), nil)]))
        run("cp", "-a", scratch.place("store"), scratch.place("killed"))
        try store.close()
        let again = try JournaledStore.open(at: scratch.place("killed"))
        #expect(again.overlayKeys == [key(1), key(2)])
        #expect(try again.foldedContents() == [key(1): [1]])
        #expect(try again.contents() == [key(2): [2]])
        try again.close()
    }

    @Test func `readers see every change and no other while folds run`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        let total = 40
        // Each batch moves one from one record to another: a scan that is not of one moment finds another sum.
        try store.commit(batch((0..<20).map { (key(UInt64($0)), [UInt8(total)]) }))
        let flags = Flags()
        let readers = (0..<2).map { _ in
            Thread {
                while !flags.isDone.load(ordering: .relaxed) {
                    var sum = 0
                    var count = 0
                    try? store.scan(everything, prefix: .max) { _, value in
                        sum += Int(value[0])
                        count += 1
                        return true
                    }
                    if sum != 20 * total || count != 20 { flags.wrong.wrappingAdd(1, ordering: .relaxed) }
                    flags.scans.wrappingAdd(1, ordering: .relaxed)
                }
            }
        }
        var random = Seeded(state: 3)
        var model = [UInt8](repeating: UInt8(total), count: 20)
        for round in 0..<400 {
            let (from, to) = (Int.random(in: 0..<20, using: &random), Int.random(in: 0..<20, using: &random))
            if from != to, model[from] > 0, model[to] < 255 {
                model[from] -= 1
                model[to] += 1
                try store.commit(batch([(key(UInt64(from)), [model[from]]), (key(UInt64(to)), [model[to]])]))
            }
            if round % 10 == 0 { try store.fold() }
        }
        flags.isDone.store(true, ordering: .relaxed)
        for reader in readers { reader.join() }
        #expect(flags.wrong.load(ordering: .relaxed) == 0)
        #expect(
            try store.contents() == Dictionary(uniqueKeysWithValues: model.enumerated().map { (key(UInt64($0)), [$1]) })
        )
        try store.close()
    }

    @Test func `the background folds by itself`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        store.startFolding()
        try store.put(key(1), [1])
        var waited = 0
        while !store.overlayKeys.isEmpty, waited < 300 {
            usleep(100_000)
            waited += 1
        }
        #expect(try store.foldedContents() == [key(1): [1]])
        try store.close()
    }

    @Test func `many threads commit and sync at once`() throws {
        let scratch = Scratch()
        let store = try JournaledStore.create(at: scratch.place("store"))
        store.startFolding()
        let threads = (0..<4 as Range<UInt64>).map { owner in
            Thread {
                for low in 0..<50 as Range<UInt64> {
                    try? store.put(key(owner, low), [UInt8(low)])
                    if low % 10 == 0 { try? store.sync() }
                }
            }
        }
        for thread in threads { thread.join() }
        #expect(try store.contents().count == 200)
        try store.close()
        let again = try JournaledStore.open(at: scratch.place("store"))
        #expect(try again.contents().count == 200)
        try again.close()
    }
}

final class Flags: Sendable {
    let isDone = Atomic<Bool>(false)
    let wrong = Atomic<Int>(0)
    let scans = Atomic<Int>(0)
}

/// A thread that runs a closure.
final class Thread {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private var thread = pthread_t()

    init(_ run: @escaping @Sendable () -> Void) {
        let body = Unmanaged.passRetained(Body(run))
        pthread_create(
            &thread, nil,
            { context in
                Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}
