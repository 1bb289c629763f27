internal import Glibc
internal import Threads

/// The file of blocks, and which of them are in use. Block n lies at byte (n - 1) × 4096.
final class BlockFile: @unchecked Sendable {
    static let fileName = "blocks"
    private static let size = storeBlockByteCount
    private static let longRun = 128 * 1024
    /// Blocks.
    private static let shortRun = 16
    private static let staleBatch = 256

    private let file: File
    private let syncLock = Monitor()
    /// Guards the four below. The innermost lock of the store.
    private let lock = Monitor()
    private var allocator: BlockAllocator
    private var needsSync: Bool
    /// Checksums of blocks written since the last batch was committed.
    private var sums: [UInt64: UInt64] = [:]
    /// How many snapshots want blocks to stay that are given back.
    private var holders = 0

    init(in directory: File, _ flags: Int32, isNew: Bool) throws(StorageError) {
        file = try File(Self.fileName, in: directory, flags)
        file.expectLongRuns()
        let count = (try file.byteCount() + Self.size - 1) / Self.size
        guard count <= BlockAllocator.limit else { throw .corrupt("\(Self.fileName) is longer than any store's") }
        allocator = BlockAllocator(blockCount: UInt64(count), isMarking: !isNew)
        needsSync = !isNew
    }

    func allocate(_ count: Int) -> [UInt64] {
        lock.locked { allocator.allocate(count) }
    }

    func write(at first: UInt64, _ bytes: UnsafeRawBufferPointer) throws(StorageError) {
        precondition(first > 0 && bytes.count % Self.size == 0, "blocks are written whole")
        try file.write(bytes, at: Self.offset(first))
        // The disk begins with a long run at once, so that a sync finds less to wait for.
        if bytes.count >= Self.longRun { file.beginWriting(at: Self.offset(first), bytes.count) }
        lock.locked {
            needsSync = true
            for index in 0..<bytes.count / Self.size {
                let block = UnsafeRawBufferPointer(
                    rebasing: bytes[index * Self.size..<(index + 1) * Self.size])
                sums[first + UInt64(index)] = WordSum.of(block)
            }
        }
    }

    func read(at first: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        precondition(bytes.count % Self.size == 0, "blocks are read whole")
        // A number from a damaged record must not overflow.
        guard first > 0, first < 1 << 50 else { throw .corrupt("there is no block \(first)") }
        let count = try file.read(into: bytes, at: Self.offset(first))
        guard count == bytes.count else {
            throw .corrupt("block \(first + UInt64(count / Self.size)) is missing")
        }
    }

    /// The checksums of blocks that no batch has told of yet, for the batch that is being committed.
    func takeSums() -> [UInt64: UInt64] {
        lock.locked {
            guard !sums.isEmpty else { return [:] }
            defer { sums = [:] }
            return sums
        }
    }

    /// Gives checksums back, of a batch that was not committed.
    func restore(_ taken: [UInt64: UInt64]) {
        guard !taken.isEmpty else { return }
        lock.locked { sums.merge(taken) { newer, _ in newer } }
    }

    /// True if a block is as a batch said; anything else was lost with the power.
    func matches(_ block: UInt64, sum: UInt64) -> Bool {
        withUnsafeTemporaryAllocation(byteCount: Self.size, alignment: 16) { bytes in
            guard (try? read(at: block, into: bytes)) != nil else { return false }
            return WordSum.of(UnsafeRawBufferPointer(bytes)) == sum
        }
    }

    /// On return the blocks written before survive the loss of power.
    func sync() throws(StorageError) {
        // Held throughout: who finds nothing to sync must not run ahead of who is syncing it.
        try syncLock.locked { () throws(StorageError) in
            let needed = lock.locked {
                defer { needsSync = false }
                return needsSync
            }
            if needed { try file.sync() }
        }
    }

    /// On return what `reclaim` has erased stays so after a loss of power.
    func syncErased() throws(StorageError) { try syncLock.locked { () throws(StorageError) in try file.sync() } }

    func release(_ blocks: [UInt64], after sequence: UInt64) {
        lock.locked { allocator.release(blocks, after: sequence) }
    }

    func mark(_ blocks: [UInt64]) { lock.locked { allocator.mark(blocks) } }

    func finishMarking(after sequence: UInt64) { lock.locked { allocator.finishMarking(after: sequence) } }

    /// Blocks that `reclaim` gives back to the disk.
    var reclaimableCount: UInt64 { lock.locked { allocator.releasedCount + allocator.staleCount } }
    var hasReleased: Bool { lock.locked { allocator.hasReleased } }
    var usedCount: UInt64 { lock.locked { allocator.usedCount } }

    /// From now on no block is erased or used again that is in use now, until as many have let go as hold.
    func hold() { lock.locked { holders += 1 } }
    var isHeld: Bool { lock.locked { holders > 0 } }
    func letGo() { lock.locked { holders -= 1 } }

    /// Frees the blocks whose release is durable, and erases them.
    ///
    /// - Parameter leavesShort: Short runs are not erased now, but by a later call without it. While many small changes
    ///   are made most of these blocks are soon used again, and to make a hole for each takes longer than to write it.
    func reclaim(durable: UInt64, leavesShort: Bool) {
        guard hasReleased || (!leavesShort && hasStale) else { return }
        let runs = lock.locked { () -> [ClosedRange<UInt64>] in
            guard holders == 0 else { return [] }
            var runs = allocator.takeErasable(durable: durable)
            // What is erased must not be missed after a loss of power.
            if !sums.isEmpty { for run in runs { for block in run { sums[block] = nil } } }
            if leavesShort {
                allocator.leave(runs.filter { $0.count < Self.shortRun })
                runs.removeAll { $0.count < Self.shortRun }
            }
            return runs
        }
        erase(runs)
        while !leavesShort, eraseStale() {}
    }

    var hasStale: Bool { lock.locked { allocator.staleCount > 0 } }

    /// Erases some of the short runs that were left; false if there are no more.
    func eraseStale() -> Bool {
        let runs = lock.locked { allocator.takeStale(atMost: Self.staleBatch) }
        erase(runs)
        return !runs.isEmpty
    }

    private func erase(_ runs: [ClosedRange<UInt64>]) {
        guard !runs.isEmpty else { return }
        for run in runs { erase(run) }
        lock.locked { allocator.free(runs) }
    }

    private func erase(_ run: ClosedRange<UInt64>) {
        let offset = Self.offset(run.lowerBound)
        guard !file.punch(offset, run.count * Self.size) else { return }
        // A file system that cannot make holes: at least the old ciphertext goes.
        let zeros = [UInt8](repeating: 0, count: Self.size)
        zeros.withUnsafeBytes { zeros in
            for block in run { try? file.write(zeros, at: Self.offset(block)) }
        }
    }

    private static func offset(_ block: UInt64) -> Int { Int(block - 1) * size }
}
