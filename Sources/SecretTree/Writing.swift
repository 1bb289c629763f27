public import Keyring
internal import Sodium
internal import Storage

extension SecretTree {
    /// Writes at `offset`, or at the end if `appends`; all of it, or nothing with an error.
    ///
    /// - Returns: the attributes afterwards.
    public func write(
        _ id: NodeID, at offset: UInt64, from bytes: UnsafeRawBufferPointer, appends: Bool, clearsSetID: Bool,
        now: Timestamp
    ) throws(TreeError) -> NodeAttributes {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            var node = try transaction.file(id)
            let place = appends ? node.attributes.size : offset
            guard place <= Contents.sizeLimit, UInt64(bytes.count) <= Contents.sizeLimit - place else {
                throw .fileTooLarge
            }
            guard bytes.count > 0 else { return node.attributes }
            try transaction.write(bytes, at: place, to: &node)
            node.valueChanged(at: now)
            if clearsSetID { node.clearSetID() }
            if node.attributeCount > 0 { try transaction.dropCapability(of: &node) }
            transaction.set(node)
            return node.attributes
        }
    }
}

extension NodeRecord {
    /// What a write by one without privilege does to set-id bits (write(2), chown(2)).
    mutating func clearSetID() {
        attributes.permissions &= ~0o4000
        if attributes.permissions & 0o010 != 0 { attributes.permissions &= ~0o2000 }
    }
}

extension Transaction {
    /// Changed programs keep no capabilities (write(2)); the kernel leaves it to us (FUSE_HANDLE_KILLPRIV_V2).
    fileprivate mutating func dropCapability(of node: inout NodeRecord) throws(TreeError) {
        let name: StaticString = "security.capability"
        let bytes = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        let record = tree.nameKey(.attribute, bytes, of: node.attributes.id)
        guard try read(record, { $0 != nil }) else { return }
        delete(record)
        node.attributeCount -= 1
    }

    /// Puts bytes into a file's content; the caller sets times and the node.
    mutating func write(_ bytes: UnsafeRawBufferPointer, at offset: UInt64, to node: inout NodeRecord)
        throws(TreeError)
    {
        let end = offset + UInt64(bytes.count)
        if node.isInBlocks {
            try writeToBlocks(bytes, at: offset, of: &node)
        } else if max(end, node.attributes.size) <= UInt64(Contents.inlineLimit) {
            try writeInline(of: &node, size: max(Int(end), Int(node.attributes.size))) { body in
                body.put(bytes, at: Int(offset))
            }
        } else {
            try moveToBlocks(&node)
            try writeToBlocks(bytes, at: offset, of: &node)
        }
        node.attributes.size = max(node.attributes.size, end)
    }

    /// Changes an inline content in scratch memory and seals it anew with `size` bytes.
    mutating func writeInline(
        of node: inout NodeRecord, size: Int, _ edit: (UnsafeMutableRawBufferPointer) -> Void
    ) throws(TreeError) {
        let byteCount = rounded(size, upTo: Contents.inlineStep)
        let body = ScratchBuffer(byteCount: max(byteCount, 1))
        let plaintext = body.bytes.part(0, byteCount)
        if node.attributes.content == 0 {
            plaintext.zero(from: 0, to: byteCount)
            edit(plaintext)
            try newContent(of: &node) { transaction, content, dek, envelope in
                transaction.sealBody(plaintext.readOnly, content, dek, envelope)
            }
            node.attributes.storedByteCount = UInt64(byteCount)
            return
        }
        let old = Int(min(node.attributes.size, UInt64(byteCount)))
        try readContent(of: node, at: 0, into: plaintext.part(0, old))
        plaintext.zero(from: old, to: byteCount)
        edit(plaintext)
        let content = node.attributes.content
        let hadRecord = node.attributes.storedByteCount > UInt64(Contents.envelopeLimit)
        try withUnwrapped(content, of: node.attributes.id) { (dek, transaction: inout Transaction) throws(TreeError) in
            let record = RecordKey(.envelope, content)
            let old = try transaction.read(record) {
                $0.map { ([UInt8]($0.part(0, Envelope.bareByteCount)), $0.count) }
            }
            guard let (head, count) = old else {
                throw transaction.tree.tampered(record, node.attributes.id, "is missing")
            }
            let value = head.withUnsafeBytes { transaction.sealBody(plaintext.readOnly, content, dek, $0) }
            // An envelope that holds no body says the same as before.
            if count > Envelope.bareByteCount || value.count > Envelope.bareByteCount { transaction.put(record, value) }
            if hadRecord, byteCount <= Contents.envelopeLimit { transaction.delete(RecordKey(.body, content)) }
        }
        node.attributes.storedByteCount = UInt64(byteCount)
    }

    /// The envelope's first part followed by a body, sealed with a new nonce. A longer body goes to a record of its own.
    mutating func sealBody(
        _ plaintext: UnsafeRawBufferPointer, _ content: UInt64, _ dek: UnsafeRawBufferPointer,
        _ envelope: UnsafeRawBufferPointer
    ) -> [UInt8] {
        guard plaintext.count > 0 else { return [UInt8](envelope) }
        guard plaintext.count <= Contents.envelopeLimit else {
            let record = RecordKey(.body, content)
            put(record, sealed(plaintext, behind: UnsafeRawBufferPointer(start: nil, count: 0), record, dek))
            return [UInt8](envelope)
        }
        return sealed(plaintext, behind: envelope, RecordKey(.envelope, content), dek)
    }

    /// `head | tag 16 | nonce 24 | ciphertext`.
    private func sealed(
        _ plaintext: UnsafeRawBufferPointer, behind head: UnsafeRawBufferPointer, _ record: RecordKey,
        _ dek: UnsafeRawBufferPointer
    ) -> [UInt8] {
        let bodyPlace = head.count + RecordSeal.overheadByteCount
        return [UInt8](unsafeUninitializedCapacity: bodyPlace + plaintext.count) { buffer, count in
            let value = UnsafeMutableRawBufferPointer(buffer).part(0, bodyPlace + plaintext.count)
            value.put(head, at: 0)
            let nonce = value.part(head.count + Seal.tagByteCount, Seal.nonceByteCount)
            Randomness.nonce(into: nonce)
            withBinding(Labels.body, store: tree.seals.store, record) { data in
                Seal.seal(
                    plaintext, into: value.part(bodyPlace, plaintext.count),
                    tag: value.part(head.count, Seal.tagByteCount), nonce: nonce.readOnly, associatedData: data,
                    key: BorrowedKey(dek))
            }
            count = value.count
        }
    }

    /// Gives a file a content of its own, with a new DEK under the primary KEK version. `finish` makes the
    /// envelope's value of its first part.
    mutating func newContent(
        of node: inout NodeRecord,
        _ finish: (inout Transaction, UInt64, UnsafeRawBufferPointer, UnsafeRawBufferPointer) -> [UInt8]
    ) throws(TreeError) {
        let content = newContentID()
        let created = now
        let (value, version) = try withScratchKey {
            (dek: UnsafeMutableRawBufferPointer) throws(TreeError) -> ([UInt8], KEKVersion) in
            Randomness.fill(dek)
            return try withUnsafeTemporaryAllocation(byteCount: Envelope.bareByteCount, alignment: 8) {
                head throws(TreeError) in
                do throws(KeyringError) {
                    let version = try Envelope.withContext(content, created) { context throws(KeyringError) in
                        try tree.keyring.wrap(
                            BorrowedKey(dek.readOnly), context: context,
                            into: head.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount))
                    }
                    head.put(version.rawValue, at: 0)
                    head.put(created, at: Envelope.createdPlace)
                    return (finish(&self, content, dek.readOnly, head.readOnly), version)
                } catch { throw .key(error) }
            }
        }
        put(RecordKey(.envelope, content), value)
        versionChanges[version, default: 0] += 1
        node.attributes.content = content
        node.attributes.storedByteCount = 0
        node.isInBlocks = false
    }

    /// Moves an inline content into blocks, with the same DEK.
    mutating func moveToBlocks(_ node: inout NodeRecord) throws(TreeError) {
        // What was never written is a hole, however long.
        let size = node.attributes.content == 0 ? 0 : Int(node.attributes.size)
        let old = ScratchBuffer(byteCount: max(size, 1))
        try readContent(of: node, at: 0, into: old.bytes.part(0, size))
        if node.attributes.content == 0 {
            try newContent(of: &node) { _, _, _, head in [UInt8](head) }
        } else {
            let record = RecordKey(.envelope, node.attributes.content)
            let value = try read(record) { value in value.map { [UInt8]($0.part(0, Envelope.bareByteCount)) } }
            guard let value else { throw tree.tampered(record, node.attributes.id, "is missing") }
            put(record, value)
            deleteBody(of: node)
        }
        node.isInBlocks = true
        node.attributes.storedByteCount = 0
        if size > 0 { try writeToBlocks(old.bytes.readOnly.part(0, size), at: 0, of: &node) }
    }

    /// The record of a body that is too long for its envelope goes.
    mutating func deleteBody(of node: NodeRecord) {
        guard !node.isInBlocks, node.attributes.storedByteCount > UInt64(Contents.envelopeLimit) else { return }
        delete(RecordKey(.body, node.attributes.content))
    }

    /// Drops a file's content: its envelope, which ends it, and its blocks, at once or later if they are many.
    mutating func dropContent(of node: inout NodeRecord) throws(TreeError) {
        let content = node.attributes.content
        guard content != 0 else { return }
        if let version = try version(ofContent: content) { versionChanges[version, default: 0] -= 1 }
        delete(RecordKey(.envelope, content))
        if node.isInBlocks {
            let garbage = RecordKey(.garbage, content)
            seal(garbage, byteCount: 8) { $0.put(content, at: 0) }
            newGarbage.append(content)
        } else {
            deleteBody(of: node)
        }
        node.attributes.content = 0
        node.attributes.storedByteCount = 0
        node.isInBlocks = false
    }

    func version(ofContent content: UInt64) throws(TreeError) -> KEKVersion? {
        try read(RecordKey(.envelope, content)) { value in
            value.flatMap { $0.count >= Envelope.bareByteCount ? Envelope.version($0) : nil }
        }
    }
}
