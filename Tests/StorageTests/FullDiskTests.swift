import Glibc
import Testing

@testable import Storage

@Suite struct FullDiskTests {
    private func fill(_ path: String, leaving byteCount: Int = 0) {
        var disk = statvfs()
        statvfs(path, &disk)
        let free = Int(disk.f_bavail) * Int(disk.f_frsize) - byteCount
        if free > 0 { run("fallocate", "-l", "\(free)", path + "/filler") }
    }

    @Test func `a full disk refuses a batch whole, and takes one that frees space`() throws {
        let scratch = Scratch()
        guard let disk = scratch.disk("disk", byteCount: 48 << 20) else { return }
        let path = disk + "/store"
        let store = try JournaledStore.create(at: path)
        #expect(files(in: path)["reserve"]?.count == Reserve.byteCount)
        var model: [RecordKey: [UInt8]] = [:]
        for owner in 0..<20 as Range<UInt64> {
            model[key(owner)] = [UInt8](repeating: UInt8(owner), count: 10_000)
            try store.put(key(owner), model[key(owner)]!)
        }
        try store.fold()
        fill(disk)
        var ran = false
        let big = [UInt8](repeating: 1, count: 20_000)
        #expect(storageError { try store.commit(batch([(key(50), big), (key(1), nil)])) { ran = true } } == .full)
        #expect(!ran)
        #expect(try store.contents() == model)
        let block = try store.allocateBlocks(1)[0]
        #expect(storageError { try store.write(block, 1) } == .full)
        // What was refused may be tried for ever, and nothing of it stays.
        for _ in 0..<5 { #expect(storageError { try store.put(key(51), big) } == .full) }
        try store.commit(batch([(key(1), nil)], freesSpace: true))
        model[key(1)] = nil
        #expect(files(in: path)["reserve"] == nil)
        #expect(try store.contents() == model)
        try store.sync()
        try store.fold()
        #expect(try store.foldedContents() == model)
        run("rm", disk + "/filler")
        try store.put(key(60), [6])
        model[key(60)] = [6]
        try store.fold()
        #expect(files(in: path)["reserve"]?.count == Reserve.byteCount, "the reserve is made again")
        try store.close()
        let again = try JournaledStore.open(at: path)
        #expect(try again.contents() == model)
        try again.close()
    }

    @Test func `a store on a disk without a free byte is opened at the cost of its reserve`() throws {
        let scratch = Scratch()
        guard let disk = scratch.disk("disk", byteCount: 48 << 20) else { return }
        let path = disk + "/store"
        let store = try JournaledStore.create(at: path)
        try store.put(key(1), [1])
        try store.put(key(2), [2])
        try store.close()
        fill(disk)
        run("dd", "if=/dev/zero", "of=" + disk + "/rest", "bs=512", "status=none")
        let again = try JournaledStore.open(at: path)
        #expect(files(in: path)["reserve"] == nil)
        try again.commit(batch([(key(1), nil)], freesSpace: true))
        #expect(try again.contents() == [key(2): [2]])
        try again.close()
    }

    @Test func `what a full disk cannot fold stays in the journal`() throws {
        let scratch = Scratch()
        guard let disk = scratch.disk("disk", byteCount: 24 << 20) else { return }
        let path = disk + "/store"
        let store = try JournaledStore.create(at: path)
        var model: [RecordKey: [UInt8]] = [:]
        for owner in 0..<30 as Range<UInt64> {
            model[key(owner)] = [UInt8](repeating: UInt8(owner), count: 10_000)
            try store.put(key(owner), model[key(owner)]!)
        }
        fill(disk, leaving: 60_000)
        #expect(storageError { try store.fold() } == .full)
        #expect(try store.contents() == model)
        try store.put(key(40), [4])
        model[key(40)] = [4]
        #expect(storageError { try store.fold() } == .full)
        #expect(try store.contents() == model)
        run("cp", "-a", path, scratch.place("killed"))
        try store.close()
        let killed = try JournaledStore.open(at: scratch.place("killed"))
        #expect(try killed.contents() == model)
        try killed.close()
        var again = try JournaledStore.open(at: path)
        #expect(try again.contents() == model)
        #expect(storageError { try again.fold() } == .full)
        #expect(try again.contents() == model)
        run("rm", disk + "/filler")
        try again.fold()
        #expect(again.overlayKeys == [])
        try again.close()
        again = try JournaledStore.open(at: path)
        #expect(try again.contents() == model)
        try again.close()
    }

    @Test func `blocks that were released give room at once`() throws {
        let scratch = Scratch()
        guard let disk = scratch.disk("disk", byteCount: 24 << 20) else { return }
        let store = try JournaledStore.create(at: disk + "/store")
        let blocks = try store.allocateBlocks(256)
        try [UInt8](repeating: 5, count: 256 * 4096).withUnsafeBytes { try store.writeBlocks(at: blocks[0], $0) }
        try store.put(key(1), [1])
        fill(disk, leaving: 8192)
        let more = try store.allocateBlocks(100)
        func fillMore() throws {
            try [UInt8](repeating: 6, count: 100 * 4096).withUnsafeBytes { try store.writeBlocks(at: more[0], $0) }
        }
        #expect(storageError(fillMore) == .full)
        try store.commit(batch([(key(1), nil)], freesSpace: true))
        store.releaseBlocks(blocks)
        try fillMore()
        #expect(try store.block(more[99]) == [UInt8](repeating: 6, count: 4096))
        try store.close()
    }

    @Test func `a store that has no room is not made`() throws {
        let scratch = Scratch()
        guard let disk = scratch.disk("disk", byteCount: 1 << 20) else { return }
        fill(disk, leaving: 8192)
        #expect(storageError { _ = try JournaledStore.create(at: disk + "/store") } == .full)
        var status = stat()
        #expect(stat(disk + "/store", &status) != 0)
    }
}
