public import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// A content's envelope: its wrapped DEK, when that was made, and a small content itself.
///
///     KEK version 4 | wrapped DEK 104 | DEK created 12 | body tag 16 | body nonce 24 | body ciphertext
///
/// The last three only if the content is kept inline. The KEK version is bound in the wrap and not in the body,
/// so that rewrapping leaves contents alone.
enum Envelope {
    static let wrappedPlace = 4
    static let createdPlace = wrappedPlace + UnlockedKeyring.wrappedByteCount
    static let bodyTagPlace = createdPlace + 12
    static let bodyNoncePlace = bodyTagPlace + Seal.tagByteCount
    static let bodyPlace = bodyNoncePlace + Seal.nonceByteCount
    /// All but the body's ciphertext, whose tag stands for it.
    static let headByteCount = bodyPlace
    static let bareByteCount = bodyTagPlace

    static func isWellFormed(_ value: UnsafeRawBufferPointer) -> Bool {
        value.count == bareByteCount || value.count > bodyPlace && value.count <= bodyPlace + Contents.inlineLimit
    }

    static func version(_ value: UnsafeRawBufferPointer) -> KEKVersion {
        KEKVersion(rawValue: value.number(UInt32.self, at: 0))
    }

    static func created(_ value: UnsafeRawBufferPointer) -> Timestamp { value.timestamp(at: createdPlace) }

    static func hasBody(_ value: UnsafeRawBufferPointer) -> Bool { value.count > bodyPlace }

    /// How long the body is, in the envelope or in a record of its own.
    static func bodyByteCount(_ value: UnsafeRawBufferPointer, of node: NodeRecord) -> Int {
        if hasBody(value) { return value.count - bodyPlace }
        return Int(min(node.attributes.storedByteCount, UInt64(Contents.inlineLimit)))
    }

    /// What the wrap is bound to besides store and version: `content 8 | created 12`.
    static func withContext<R, E: Error>(
        _ content: UInt64, _ created: Timestamp, _ body: (UnsafeRawBufferPointer) throws(E) -> R
    ) throws(E) -> R {
        var bytes: (UInt64, UInt64, UInt64) = (0, 0, 0)
        let result = withUnsafeMutableBytes(of: &bytes) { bytes in
            bytes.put(content, at: 0)
            bytes.put(created, at: 8)
            return Result { () throws(E) -> R in try body(bytes.part(0, 20).readOnly) }
        }
        return try result.get()
    }
}

/// How contents are laid out.
enum Contents {
    /// Contents up to this lie in their envelope's record: what most secrets need is one record.
    static let envelopeLimit = 1024
    /// Contents up to this lie in a record of their own, so that rewrapping leaves them alone; larger ones in blocks.
    static let inlineLimit = 16 * 1024
    /// An inline content is padded to a whole number of these, so that its record does not tell its size.
    static let inlineStep = 256
    static let blockByteCount = 4096
    static let blocksPerMap = 16
    static let mapSpan = UInt64(blockByteCount * blocksPerMap)
    /// The largest file: what a signed 64-bit offset can reach.
    static let sizeLimit = UInt64(Int64.max)
}

extension RecordSource {
    /// Unwraps a content's DEK into scratch memory for `body`, with the envelope's bytes.
    ///
    /// - Throws: `.key` if the version's state forbids it, `.tampered` if the envelope is not what it was.
    func withDEK<R>(
        _ content: UInt64, of node: NodeID, forReencryption: Bool = false,
        _ body: (UnsafeRawBufferPointer, UnsafeRawBufferPointer) throws(TreeError) -> R
    ) throws(TreeError) -> R {
        let record = RecordKey(.envelope, content)
        try tree.checkFreshness(of: record, node)
        let result = try read(record) { value in
            Result { () throws(TreeError) -> R in
                guard let value else { throw tree.tampered(record, node, "is missing") }
                guard Envelope.isWellFormed(value) else { throw tree.tampered(record, node, "is malformed") }
                return try withScratchKey { (dek: UnsafeMutableRawBufferPointer) throws(TreeError) -> R in
                    try tree.unwrap(content, value, of: node, forReencryption: forReencryption, into: dek)
                    return try body(dek.readOnly, value)
                }
            }
        }
        return try result.get()
    }
}

extension SecretTree {
    func unwrap(
        _ content: UInt64, _ value: UnsafeRawBufferPointer, of node: NodeID, forReencryption: Bool,
        into dek: UnsafeMutableRawBufferPointer
    ) throws(TreeError) {
        do throws(KeyringError) {
            try Envelope.withContext(content, Envelope.created(value)) { context throws(KeyringError) in
                try keyring.unwrap(
                    value.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount),
                    version: Envelope.version(value), context: context, into: dek, forReencryption: forReencryption)
            }
        } catch {
            switch error {
            case .doesNotAuthenticate, .noSuchVersion:
                throw tampered(RecordKey(.envelope, content), node, "does not authenticate")
            default: throw .key(error)
            }
        }
    }

    /// Refuses a file whose KEK version may not unwrap: at open(2), before the first read.
    public func checkReadable(_ id: NodeID) throws(TreeError) {
        if keyring.isEverythingReadable { return }
        try lock.reading { () throws(TreeError) in
            let node = try node(id)
            guard node.attributes.content != 0 else { return }
            guard let version = try version(ofContent: node.attributes.content) else { return }
            do throws(KeyringError) { try keyring.check(version) } catch { throw .key(error) }
        }
    }

    func version(ofContent content: UInt64) throws(TreeError) -> KEKVersion? {
        try read(RecordKey(.envelope, content)) { value in
            value.flatMap { $0.count >= Envelope.bareByteCount ? Envelope.version($0) : nil }
        }
    }

    /// The KEK version that guards a file's content; nil for what has none.
    public func kekVersion(of id: NodeID) throws(TreeError) -> KEKVersion? {
        try lock.reading { () throws(TreeError) -> KEKVersion? in
            let content = try node(id).attributes.content
            guard content != 0 else { return nil }
            // Asked at each opening: where one version guards everything nothing has to be read.
            if let only = state.onlyVersion { return only }
            return try version(ofContent: content)
        }
    }

    /// When a file's DEK was made; nil for what has none.
    public func dekCreated(of id: NodeID) throws(TreeError) -> Timestamp? {
        try lock.reading { () throws(TreeError) -> Timestamp? in
            let content = try node(id).attributes.content
            guard content != 0 else { return nil }
            return try read(RecordKey(.envelope, content)) { value in
                value.flatMap { $0.count >= Envelope.bareByteCount ? Envelope.created($0) : nil }
            }
        }
    }
}
