internal import Sodium
internal import Storage

/// Writing contents that lie in blocks. A block is never overwritten in place: it goes to a new place, the map
/// that names the place is part of the transaction, and the old place is free once that is durable.
extension Transaction {
    mutating func writeToBlocks(
        _ bytes: UnsafeRawBufferPointer, at offset: UInt64, of node: inout NodeRecord
    ) throws(TreeError) {
        let size = UInt64(Contents.blockByteCount)
        let end = offset + UInt64(bytes.count)
        let blockCount = Int((end + size - 1) / size - offset / size)
        var writer = BlockWriter(blocks: try allocate(blockCount))
        let content = node.attributes.content
        let id = node.attributes.id
        let before = node
        var stored = node.attributes.storedByteCount
        var place = offset
        try withUnwrapped(content, of: id) { (dek, transaction: inout Transaction) throws(TreeError) in
            while place < end {
                let index = place / Contents.mapSpan
                var map = try transaction.map(index, of: before) ?? BlockMap(index: index)
                let mapEnd = min(end, (index + 1) * Contents.mapSpan)
                while place < mapEnd {
                    let slot = Int(place % Contents.mapSpan / size)
                    let within = Int(place % size)
                    let count = Int(min(mapEnd - place, size - UInt64(within)))
                    let source = bytes.part(Int(place - offset), count)
                    let old = map[slot].block
                    if count == Contents.blockByteCount {
                        map[slot] = writer.seal(source, transaction.tree, content, index, slot, dek)
                    } else {
                        let block = ScratchBuffer(byteCount: Contents.blockByteCount)
                        try transaction.readBlock(map, slot, of: before, into: block.bytes, dek)
                        block.bytes.put(source, at: within)
                        map[slot] = writer.seal(block.bytes.readOnly, transaction.tree, content, index, slot, dek)
                    }
                    if old == 0 { stored += size } else { transaction.releasedBlocks.append(old) }
                    if writer.isFull { try writer.flush(to: transaction.tree.store) }
                    place += UInt64(count)
                }
                transaction.set(map, content)
            }
        }
        try writer.flush(to: tree.store)
        node.attributes.storedByteCount = stored
    }

    /// Runs `body` with a content's DEK and this transaction.
    mutating func withUnwrapped(
        _ content: UInt64, of id: NodeID,
        _ body: (UnsafeRawBufferPointer, inout Transaction) throws(TreeError) -> Void
    ) throws(TreeError) {
        try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(TreeError) in
            try withDEK(content, of: id) { dek, _ throws(TreeError) in key.put(dek, at: 0) }
            try body(key.readOnly, &self)
        }
    }

    mutating func set(_ map: BlockMap, _ content: UInt64) {
        let record = RecordKey(.map, content, high: map.index)
        if tree.state.copy != nil { changedMaps.append((content, map.index)) }
        if map.isEmpty { return delete(record) }
        seal(record, byteCount: BlockMap.byteCount) { map.put(into: $0) }
    }

    /// Zeroes a part of a content: whole blocks become holes, the others are written anew.
    mutating func punch(from offset: UInt64, to end: UInt64, of node: inout NodeRecord) throws(TreeError) {
        let size = UInt64(Contents.blockByteCount)
        let content = node.attributes.content
        let firstWhole = (offset + size - 1) / size
        let pastWhole = end / size
        if firstWhole > pastWhole {
            return try zero(from: offset, to: end, of: &node)
        }
        if offset < firstWhole * size { try zero(from: offset, to: min(end, firstWhole * size), of: &node) }
        if pastWhole * size < end, pastWhole * size >= offset {
            try zero(from: max(offset, pastWhole * size), to: end, of: &node)
        }
        guard firstWhole < pastWhole else { return }
        let blocksPerMap = UInt64(Contents.blocksPerMap)
        for index in try mapIndices(content, from: firstWhole / blocksPerMap, to: (pastWhole - 1) / blocksPerMap) {
            guard var map = try map(index, of: node) else { continue }
            for slot in 0..<Contents.blocksPerMap {
                let block = index * blocksPerMap + UInt64(slot)
                guard block >= firstWhole, block < pastWhole, map[slot].block != 0 else { continue }
                releasedBlocks.append(map[slot].block)
                map[slot] = BlockMap.Slot()
                node.attributes.storedByteCount -= min(size, node.attributes.storedByteCount)
            }
            set(map, content)
        }
    }

    /// Zeroes bytes within one block, if there is anything but a hole.
    private mutating func zero(from offset: UInt64, to end: UInt64, of node: inout NodeRecord) throws(TreeError) {
        guard offset < end else { return }
        let size = UInt64(Contents.blockByteCount)
        let index = offset / Contents.mapSpan
        let slot = Int(offset % Contents.mapSpan / size)
        guard let map = try map(index, of: node), map[slot].block != 0 else {
            let next = (offset / size + 1) * size
            return next < end ? try zero(from: next, to: end, of: &node) : ()
        }
        let stop = min(end, (offset / size + 1) * size)
        let zeros = ScratchBuffer(byteCount: Int(stop - offset))
        zeros.bytes.zero(from: 0, to: zeros.byteCount)
        try writeToBlocks(zeros.bytes.readOnly, at: offset, of: &node)
        if stop < end { try zero(from: stop, to: end, of: &node) }
    }

    /// The indices of the maps that stand for a range of a content.
    func mapIndices(_ content: UInt64, from first: UInt64, to last: UInt64) throws(TreeError) -> [UInt64] {
        try tree.mapIndices(content, from: first, to: last).filter { index in
            if let pending = staged[RecordKey(.map, content, high: index)] { return pending != nil }
            return true
        }
    }

    mutating func allocate(_ count: Int) throws(TreeError) -> [UInt64] {
        do {
            let blocks = try tree.store.allocateBlocks(count)
            allocatedBlocks += blocks
            return blocks
        } catch { throw TreeError(error) }
    }
}

extension SecretTree {
    func mapIndices(_ content: UInt64, from first: UInt64, to last: UInt64) throws(TreeError) -> [UInt64] {
        var indices: [UInt64] = []
        let range =
            RecordKey(.map, content, high: first)...RecordKey(.map, content, high: last, low: .max)
        do {
            try store.scan(range, prefix: 0) { record, _ in
                indices.append(record.high)
                return true
            }
        } catch { throw TreeError(error) }
        return indices
    }
}

extension RecordSource {
    /// One whole block in plaintext, zeros for a hole.
    func readBlock(
        _ map: BlockMap, _ slot: Int, of node: NodeRecord, into plaintext: UnsafeMutableRawBufferPointer,
        _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        try read(map, of: node, at: slot * Contents.blockByteCount, into: plaintext, dek)
    }
}

/// Seals blocks into a buffer and writes them to their places, neighbours together.
struct BlockWriter: ~Copyable {
    private static let capacity = 64
    private let blocks: [UInt64]
    private let buffer: UnsafeMutableRawBufferPointer
    private var written = 0
    private var sealed = 0

    init(blocks: [UInt64]) {
        self.blocks = blocks
        let capacity = min(Self.capacity, max(blocks.count, 1))
        buffer = .allocate(byteCount: capacity * Contents.blockByteCount, alignment: 8)
    }

    deinit { buffer.deallocate() }

    var isFull: Bool { sealed - written == Self.capacity }

    mutating func seal(
        _ plaintext: UnsafeRawBufferPointer, _ tree: SecretTree, _ content: UInt64, _ map: UInt64, _ slot: Int,
        _ dek: UnsafeRawBufferPointer
    ) -> BlockMap.Slot {
        var result = BlockMap.Slot()
        result.block = blocks[sealed]
        let target = buffer.part((sealed - written) * Contents.blockByteCount, Contents.blockByteCount)
        withUnsafeMutableBytes(of: &result.nonce) { nonce in
            Randomness.nonce(into: nonce)
        }
        var tag: (UInt64, UInt64) = (0, 0)
        withUnsafeMutableBytes(of: &tag) { tag in
            withUnsafeBytes(of: result.nonce) { nonce in
                withBlockBinding(store: tree.seals.store, content, map, slot) { data in
                    Seal.seal(
                        plaintext, into: target, tag: tag, nonce: nonce, associatedData: data, key: BorrowedKey(dek))
                }
            }
        }
        result.tag = tag
        sealed += 1
        return result
    }

    /// Writes what is sealed and not yet written.
    mutating func flush(to store: any RecordStore) throws(TreeError) {
        var from = written
        while from < sealed {
            var count = 1
            while from + count < sealed, blocks[from + count] == blocks[from] + UInt64(count) { count += 1 }
            let bytes = buffer.part((from - written) * Contents.blockByteCount, count * Contents.blockByteCount)
            do { try store.writeBlocks(at: blocks[from], bytes.readOnly) } catch { throw TreeError(error) }
            from += count
        }
        written = sealed
    }
}
