internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Reading contents. A byte that nothing stands for is a zero: the end of an inline body, an absent map or an
/// absent block in a map, each of them covered by the seal or by the root.
extension SecretTree {
    /// Reads from `offset` on; returns how many bytes there were, fewer than asked only at the end.
    public func read(_ id: NodeID, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
        throws(TreeError) -> Int
    {
        try lock.reading { () throws(TreeError) -> Int in
            let node = try file(id)
            let size = node.attributes.size
            guard offset < size else {
                try checkStillReadable(node)
                return 0
            }
            let count = Int(min(UInt64(buffer.count), size - offset))
            try readContent(of: node, at: offset, into: buffer.part(0, count))
            return count
        }
    }

    /// An empty answer is an answer too: a revoked file does not give one.
    private func checkStillReadable(_ node: NodeRecord) throws(TreeError) {
        guard !keyring.isEverythingReadable, node.attributes.content != 0 else { return }
        guard let version = try version(ofContent: node.attributes.content) else { return }
        do { try keyring.check(version) } catch { throw .key(error) }
    }
}

extension RecordSource {
    /// Fills `buffer` with the content from `offset` on, within the file's size.
    func readContent(of node: NodeRecord, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer)
        throws(TreeError)
    {
        let content = node.attributes.content
        guard content != 0 else { return buffer.zero(from: 0, to: buffer.count) }
        if node.isInBlocks {
            try withDEK(content, of: node.attributes.id) { dek, _ throws(TreeError) in
                try readBlocks(of: node, at: offset, into: buffer, dek)
            }
        } else {
            try withDEK(content, of: node.attributes.id) { dek, envelope throws(TreeError) in
                try readInline(of: node, envelope, at: Int(offset), into: buffer, dek)
            }
        }
    }

    private func readInline(
        of node: NodeRecord, _ envelope: UnsafeRawBufferPointer, at offset: Int,
        into buffer: UnsafeMutableRawBufferPointer, _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        let byteCount = Envelope.bodyByteCount(envelope, of: node)
        if offset == 0, buffer.count >= byteCount {
            try openBody(of: node, envelope, into: buffer.part(0, byteCount), dek)
            return buffer.zero(from: byteCount, to: buffer.count)
        }
        let body = ScratchBuffer(byteCount: byteCount)
        try openBody(of: node, envelope, into: body.bytes, dek)
        let count = max(0, min(buffer.count, byteCount - offset))
        if count > 0 { buffer.put(body.bytes.readOnly.part(offset, count), at: 0) }
        buffer.zero(from: count, to: buffer.count)
    }

    /// Opens an inline body whole.
    func openBody(
        of node: NodeRecord, _ envelope: UnsafeRawBufferPointer, into body: UnsafeMutableRawBufferPointer,
        _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        guard Envelope.hasBody(envelope) else { return try openBodyRecord(of: node, into: body, dek) }
        let record = RecordKey(.envelope, node.attributes.content)
        let opened = withBinding(Labels.body, store: tree.seals.store, record) { data in
            Seal.open(
                envelope.part(Envelope.bodyPlace, body.count),
                tag: envelope.part(Envelope.bodyTagPlace, Seal.tagByteCount),
                nonce: envelope.part(Envelope.bodyNoncePlace, Seal.nonceByteCount), associatedData: data,
                into: body, key: BorrowedKey(dek))
        }
        guard opened else { throw tree.tampered(record, node.attributes.id, "does not authenticate") }
    }

    /// Opens a body that has a record of its own: `tag 16 | nonce 24 | ciphertext`.
    private func openBodyRecord(
        of node: NodeRecord, into body: UnsafeMutableRawBufferPointer, _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        guard body.count > 0 else { return }
        let record = RecordKey(.body, node.attributes.content)
        try tree.checkFreshness(of: record, node.attributes.id)
        let isOpen = try read(record) { value -> Bool? in
            guard let value else { return nil }
            guard value.count == RecordSeal.overheadByteCount + body.count else { return false }
            return withBinding(Labels.body, store: tree.seals.store, record) { data in
                Seal.open(
                    value.part(RecordSeal.overheadByteCount, body.count), tag: value.part(0, 16),
                    nonce: value.part(16, 24), associatedData: data, into: body, key: BorrowedKey(dek))
            }
        }
        guard let isOpen else { throw tree.tampered(record, node.attributes.id, "is missing") }
        guard isOpen else { throw tree.tampered(record, node.attributes.id, "does not authenticate") }
    }

    private func readBlocks(
        of node: NodeRecord, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer,
        _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        var done = 0
        while done < buffer.count {
            let place = offset + UInt64(done)
            let index = place / Contents.mapSpan
            let count = min(buffer.count - done, Int((index + 1) * Contents.mapSpan - place))
            let target = buffer.part(done, count)
            if let map = try map(index, of: node) {
                try read(map, of: node, at: Int(place % Contents.mapSpan), into: target, dek)
            } else {
                target.zero(from: 0, to: count)
            }
            done += count
        }
    }

    func map(_ index: UInt64, of node: NodeRecord) throws(TreeError) -> BlockMap? {
        try open(RecordKey(.map, node.attributes.content, high: index), of: node.attributes.id) {
            BlockMap($0, index: index)
        }
    }

    /// Reads the part of one map's span that begins at `offset` in it.
    func read(
        _ map: BlockMap, of node: NodeRecord, at offset: Int, into buffer: UnsafeMutableRawBufferPointer,
        _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        let size = Contents.blockByteCount
        let first = offset / size
        let last = (offset + buffer.count - 1) / size
        // One read of the device for each run of neighbours: a file written in one go is one run.
        let ciphertext = UnsafeMutableRawBufferPointer.allocate(byteCount: (last - first + 1) * size, alignment: 8)
        defer { ciphertext.deallocate() }
        var slot = first
        while slot <= last {
            guard map[slot].block != 0 else {
                slot += 1
                continue
            }
            var count = 1
            while slot + count <= last, map[slot + count].block == map[slot].block + UInt64(count) { count += 1 }
            let run = ciphertext.part((slot - first) * size, count * size)
            do { try tree.store.readBlocks(at: map[slot].block, into: run) } catch {
                if case .corrupt = error { throw tree.damagedBlock(map.index, slot, node) }
                throw TreeError(error)
            }
            slot += count
        }
        for slot in first...last {
            let begin = max(offset, slot * size)
            let end = min(offset + buffer.count, (slot + 1) * size)
            let target = buffer.part(begin - offset, end - begin)
            guard map[slot].block != 0 else {
                target.zero(from: 0, to: target.count)
                continue
            }
            let sealed = ciphertext.part((slot - first) * size, size).readOnly
            if target.count == size {
                try openBlock(sealed, map, slot, of: node, into: target, dek)
            } else {
                let block = ScratchBuffer(byteCount: size)
                try openBlock(sealed, map, slot, of: node, into: block.bytes, dek)
                target.put(block.bytes.readOnly.part(begin - slot * size, target.count), at: 0)
            }
        }
    }

    private func openBlock(
        _ sealed: UnsafeRawBufferPointer, _ map: BlockMap, _ slot: Int, of node: NodeRecord,
        into plaintext: UnsafeMutableRawBufferPointer, _ dek: UnsafeRawBufferPointer
    ) throws(TreeError) {
        let opened = map[slot].withSealParts { tag, nonce in
            withBlockBinding(store: tree.seals.store, node.attributes.content, map.index, slot) { data in
                Seal.open(sealed, tag: tag, nonce: nonce, associatedData: data, into: plaintext, key: BorrowedKey(dek))
            }
        }
        guard opened else { throw tree.damagedBlock(map.index, slot, node) }
    }
}

extension SecretTree {
    func damagedBlock(_ index: UInt64, _ slot: Int, _ node: NodeRecord) -> TreeError {
        let block = index * UInt64(Contents.blocksPerMap) + UInt64(slot)
        let id = node.attributes.id
        report(Problem(node: id, description: "block \(block) of inode \(id.rawValue) does not authenticate"))
        return .tampered(id)
    }
}
