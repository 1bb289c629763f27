/// Which blocks are in use. A block that is given back waits until the change that dropped it is durable.
struct BlockAllocator: Sendable {
    /// A bit a block, set if it is not free; bit 0 is block 1.
    private var used: [UInt64] = []
    /// As many blocks as were ever handed out or found.
    private(set) var end: UInt64
    private(set) var freeCount: UInt64 = 0
    /// Where the next search begins.
    private var cursor: UInt64 = 0
    /// Blocks given back, and the sequence of the change that must be durable before they are free.
    private var released: [(run: ClosedRange<UInt64>, sequence: UInt64)] = []
    private(set) var releasedCount: UInt64 = 0
    /// A bit a block, set if it is free and still has what it had; shorter than `used` where none is.
    private var stale: [UInt64] = []
    private(set) var staleCount: UInt64 = 0
    /// True until all blocks in use are known.
    private(set) var isMarking: Bool

    /// 32 TiB of blocks.
    static let limit: UInt64 = 1 << 33
    /// How many blocks a search looks at before new ones are taken.
    private static let searchLimit: UInt64 = 1 << 15

    /// - Parameter blockCount: how many there may be already, their use unknown; 0 for a new store.
    init(blockCount: UInt64, isMarking: Bool) {
        end = blockCount
        self.isMarking = isMarking
        used = [UInt64](repeating: 0, count: Int((blockCount + 63) / 64))
    }

    var usedCount: UInt64 { end - freeCount - releasedCount }
    var hasReleased: Bool { !released.isEmpty }

    mutating func allocate(_ count: Int) -> [UInt64] {
        guard count > 0 else { return [] }
        let wanted = UInt64(count)
        if !isMarking, freeCount >= wanted {
            if let first = searchRun(wanted) { return take(first, wanted) }
            // Free blocks take no room on the disk, but a file must not grow for ever.
            if freeCount > end / 2 + Self.searchLimit { return gather(wanted) }
        }
        let first = end
        end += wanted
        used += [UInt64](repeating: 0, count: Int((end + 63) / 64) - used.count)
        freeCount += wanted
        return take(first, wanted)
    }

    mutating func mark(_ blocks: [UInt64]) {
        for block in blocks where block > 0 && block <= Self.limit {
            if block > end {
                end = block
                used += [UInt64](repeating: 0, count: max(0, Int((end + 63) / 64) - used.count))
            }
            set(block - 1)
        }
    }

    /// What was not marked is released.
    mutating func finishMarking(after sequence: UInt64) {
        guard isMarking else { return }
        isMarking = false
        var index: UInt64 = 0
        while index < end {
            if used[Int(index / 64)] == .max {
                index = (index / 64 + 1) * 64
            } else if isFree(index) {
                let first = index
                while index < end, isFree(index) {
                    set(index)
                    index += 1
                }
                released.append((first + 1...index, sequence))
                releasedCount += index - first
            } else {
                index += 1
            }
        }
    }

    mutating func release(_ blocks: [UInt64], after sequence: UInt64) {
        for block in blocks where block > 0 && block <= end {
            releasedCount += 1
            if let last = released.last, last.run.upperBound + 1 == block, last.sequence == sequence {
                released[released.count - 1].run = last.run.lowerBound...block
            } else {
                released.append((block...block, sequence))
            }
        }
    }

    /// The released blocks whose release is durable, in order and each once. They are not free before `free`.
    mutating func takeErasable(durable: UInt64) -> [ClosedRange<UInt64>] {
        var ready: [ClosedRange<UInt64>] = []
        released.removeAll { entry in
            guard entry.sequence <= durable else { return false }
            ready.append(entry.run)
            releasedCount -= UInt64(entry.run.count)
            return true
        }
        ready.sort { $0.lowerBound < $1.lowerBound }
        var runs: [ClosedRange<UInt64>] = []
        for run in ready {
            if let last = runs.last, run.lowerBound <= last.upperBound + 1 {
                runs[runs.count - 1] = last.lowerBound...max(run.upperBound, last.upperBound)
            } else {
                runs.append(run)
            }
        }
        return runs
    }

    mutating func free(_ runs: [ClosedRange<UInt64>]) {
        for run in runs {
            for block in run where !isFree(block - 1) {
                used[Int((block - 1) / 64)] &= ~(1 << ((block - 1) % 64))
                freeCount += 1
            }
        }
    }

    /// Frees blocks that are to be erased later, unless they are used again before that.
    mutating func leave(_ runs: [ClosedRange<UInt64>]) {
        free(runs)
        for block in runs.joined() {
            let word = Int((block - 1) / 64)
            if word >= stale.count { stale += [UInt64](repeating: 0, count: word + 1 - stale.count) }
            guard stale[word] & (1 << ((block - 1) % 64)) == 0 else { continue }
            stale[word] |= 1 << ((block - 1) % 64)
            staleCount += 1
        }
    }

    /// Some of those blocks, in order. They are not free before `free`.
    mutating func takeStale(atMost limit: Int) -> [ClosedRange<UInt64>] {
        var runs: [ClosedRange<UInt64>] = []
        var word = 0
        var count = 0
        while staleCount > 0, word < stale.count, count < limit {
            guard stale[word] != 0 else {
                word += 1
                continue
            }
            let index = UInt64(word * 64 + stale[word].trailingZeroBitCount)
            set(index)
            freeCount -= 1
            count += 1
            if let last = runs.last, last.upperBound == index {
                runs[runs.count - 1] = last.lowerBound...index + 1
            } else {
                runs.append(index + 1...index + 1)
            }
        }
        return runs
    }

    // MARK: Bits

    private func isFree(_ index: UInt64) -> Bool { used[Int(index / 64)] & (1 << (index % 64)) == 0 }
    private mutating func set(_ index: UInt64) {
        let (word, bit) = (Int(index / 64), UInt64(1) << (index % 64))
        used[word] |= bit
        guard staleCount > 0, word < stale.count, stale[word] & bit != 0 else { return }
        stale[word] &= ~bit
        staleCount -= 1
    }

    private mutating func take(_ first: UInt64, _ count: UInt64) -> [UInt64] {
        for index in first..<first + count { set(index) }
        freeCount -= count
        cursor = first + count
        return Array(first + 1...first + count)
    }

    /// A run of so many free blocks, found by a bounded search from where the last one ended.
    private mutating func searchRun(_ count: UInt64) -> UInt64? {
        var index = cursor < end ? cursor : 0
        var run: UInt64 = 0
        var seen: UInt64 = 0
        let limit = min(end, Self.searchLimit)
        while seen < limit {
            if used[Int(index / 64)] == .max {
                let next = (index / 64 + 1) * 64
                seen += next - index
                index = next
                run = 0
            } else {
                run = isFree(index) ? run + 1 : 0
                index += 1
                seen += 1
                if run == count { return index - count }
            }
            if index >= end {
                index = 0
                run = 0
            }
        }
        cursor = index
        return nil
    }

    /// Free blocks wherever they are.
    private mutating func gather(_ count: UInt64) -> [UInt64] {
        var blocks: [UInt64] = []
        var index = cursor < end ? cursor : 0
        while blocks.count < count {
            if used[Int(index / 64)] == .max {
                index = (index / 64 + 1) * 64
            } else {
                if isFree(index) {
                    set(index)
                    blocks.append(index + 1)
                }
                index += 1
            }
            if index >= end { index = 0 }
        }
        freeCount -= count
        cursor = index
        return blocks
    }
}
