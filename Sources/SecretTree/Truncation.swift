public import Keyring
internal import Storage
internal import Threads

/// What fallocate(2) is asked for.
public enum AllocationMode: Sendable, Equatable {
    /// Grow to hold the range. There must be room for it, but none is set apart: a block that is written goes to a
    /// new place anyway.
    case extend
    /// The same with the file's size kept.
    case keepSize
    case punchHole
    case zeroRange(keepsSize: Bool)
}

extension SecretTree {
    /// Changes a file's layout without writing bytes.
    public func allocate(
        _ id: NodeID, _ mode: AllocationMode, at offset: UInt64, count: UInt64, now: Timestamp
    ) throws(TreeError) -> NodeAttributes {
        guard count > 0 else { throw .invalid }
        guard offset <= Contents.sizeLimit, count <= Contents.sizeLimit - offset else { throw .fileTooLarge }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            var node = try transaction.file(id)
            let (end, size) = (offset + count, node.attributes.size)
            switch mode {
            case .keepSize, .extend:
                try transaction.checkRoom(for: node, from: offset, to: end)
                if mode == .extend, end > node.attributes.size { try transaction.resize(&node, to: end) }
                // The value is the same, if longer by zeros; both times move, as on other file systems.
                guard mode == .extend, end > size else {
                    node.modified(at: now)
                    transaction.set(node)
                    return node.attributes
                }
            case .punchHole:
                try transaction.clear(&node, from: offset, to: end)
            case .zeroRange(let keepsSize):
                try transaction.checkRoom(for: node, from: offset, to: end)
                try transaction.clear(&node, from: offset, to: end)
                if !keepsSize, end > node.attributes.size { try transaction.resize(&node, to: end) }
            }
            node.valueChanged(at: now)
            transaction.set(node)
            return node.attributes
        }
    }

    /// The first data or hole at or after `offset`, as lseek(2) has SEEK_DATA and SEEK_HOLE; the end of the file
    /// is a hole.
    public func seek(_ id: NodeID, from offset: UInt64, forData: Bool) throws(TreeError) -> UInt64 {
        try lock.reading { () throws(TreeError) -> UInt64 in
            let node = try file(id)
            let size = node.attributes.size
            guard offset < size else { throw .noData }
            guard node.isInBlocks else {
                // A small content is one piece, unless it was never written.
                if node.attributes.content == 0 { return try forData ? noData() : offset }
                return forData ? offset : size
            }
            let found = try forData ? firstData(of: node, from: offset) : firstHole(of: node, from: offset)
            guard found < size else { return try forData ? noData() : size }
            return found
        }
    }

    private func noData() throws(TreeError) -> UInt64 { throw .noData }

    private func firstData(of node: NodeRecord, from offset: UInt64) throws(TreeError) -> UInt64 {
        let size = UInt64(Contents.blockByteCount)
        let content = node.attributes.content
        var record = RecordKey(.map, content, high: offset / Contents.mapSpan)
        let last = RecordKey(.map, content, high: .max, low: .max)
        while let index = try firstMap(in: record...last) {
            if let map = try map(index, of: node) {
                for slot in 0..<Contents.blocksPerMap where map[slot].block != 0 {
                    let begin = index * Contents.mapSpan + UInt64(slot) * size
                    if begin + size > offset { return max(begin, offset) }
                }
            }
            record = RecordKey(.map, content, high: index + 1)
        }
        return node.attributes.size
    }

    private func firstMap(in range: ClosedRange<RecordKey>) throws(TreeError) -> UInt64? {
        var first: UInt64?
        do {
            try store.scan(range, prefix: 0) { record, _ in
                first = record.high
                return false
            }
        } catch { throw TreeError(error) }
        return first
    }

    private func firstHole(of node: NodeRecord, from offset: UInt64) throws(TreeError) -> UInt64 {
        let size = UInt64(Contents.blockByteCount)
        var place = offset
        while place < node.attributes.size {
            guard let map = try map(place / Contents.mapSpan, of: node) else { return place }
            for slot in Int(place % Contents.mapSpan / size)..<Contents.blocksPerMap {
                if map[slot].block == 0 { return place }
                place = (place / size + 1) * size
            }
        }
        return place
    }
}

extension Transaction {
    /// Refuses a range whose holes there are not blocks enough for.
    fileprivate func checkRoom(for node: NodeRecord, from offset: UInt64, to end: UInt64) throws(TreeError) {
        let free: UInt64
        do { free = try tree.store.statistics().freeByteCount } catch { throw TreeError(error) }
        let size = UInt64(Contents.blockByteCount)
        let blocks = offset / size...(end - 1) / size
        // Most ranges have room as a whole.
        guard UInt64(blocks.count) > free / size else { return }
        var missing = UInt64(blocks.count)
        if node.isInBlocks {
            let blocksPerMap = UInt64(Contents.blocksPerMap)
            let (first, last) = (blocks.lowerBound / blocksPerMap, blocks.upperBound / blocksPerMap)
            for index in try mapIndices(node.attributes.content, from: first, to: last) {
                guard let map = try map(index, of: node) else { continue }
                for slot in 0..<Contents.blocksPerMap
                where map[slot].block != 0 && blocks.contains(index * blocksPerMap + UInt64(slot)) { missing -= 1 }
            }
        }
        guard missing <= free / size else { throw .full }
    }

    /// Sets a file's size; what is cut off is gone, what is added is a hole.
    mutating func resize(_ node: inout NodeRecord, to size: UInt64) throws(TreeError) {
        guard size <= Contents.sizeLimit else { throw .fileTooLarge }
        let old = node.attributes.size
        if size == 0 {
            freesSpace = true
            try dropContent(of: &node)
        } else if size < old {
            freesSpace = node.isInBlocks
            try clear(&node, from: size, to: old, isCutOff: true)
        } else if !node.isInBlocks, node.attributes.content != 0, size > UInt64(Contents.inlineLimit) {
            // What an inline body does not reach is zeros already, but later writes there need blocks.
            try moveToBlocks(&node)
        }
        node.attributes.size = size
    }

    /// Zeroes a range of a content, or takes it off the end.
    mutating func clear(_ node: inout NodeRecord, from offset: UInt64, to end: UInt64, isCutOff: Bool = false)
        throws(TreeError)
    {
        guard node.attributes.content != 0, offset < node.attributes.size else { return }
        if node.isInBlocks {
            // Blocks beyond the end may be left in the last map's span; a cut takes them along.
            let stop = isCutOff ? rounded(end, upTo: Contents.mapSpan) : end
            return try punch(from: offset, to: min(stop, Contents.sizeLimit), of: &node)
        }
        let size = Int(isCutOff ? offset : node.attributes.size)
        let stop = Int(min(end, node.attributes.size))
        try writeInline(of: &node, size: size) { body in
            body.zero(from: min(Int(offset), body.count), to: min(stop, body.count))
        }
    }

    private func rounded(_ value: UInt64, upTo step: UInt64) -> UInt64 {
        value > .max - step ? value : (value + step - 1) / step * step
    }
}
