internal import Keyring
internal import Sodium
internal import Storage

/// Where records come from: the tree as it is, or a transaction that has changed some of it.
protocol RecordSource {
    var tree: SecretTree { get }
    /// A record's bytes; nil if there is none.
    func read<R>(_ record: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(TreeError) -> R
    /// What `body` makes of a sealed record's plaintext; nil if there is no such record.
    func open<R>(_ record: RecordKey, of owner: NodeID, _ body: (UnsafeRawBufferPointer) -> R?)
        throws(TreeError) -> R?
}

extension SecretTree: RecordSource {
    var tree: SecretTree { self }
}

/// What there is of a record.
private enum Opened<R> {
    case absent
    case damaged
    case opened(R)
}

/// Opening records: the one way from the store's bytes to what they mean.
extension SecretTree {
    /// What `body` makes of the record's plaintext; nil if there is no such record.
    ///
    /// - Throws: `.tampered` if it does not authenticate, `body` refuses it, or the root speaks against it.
    func open<R>(
        _ record: RecordKey, of owner: NodeID, _ body: (UnsafeRawBufferPointer) -> R?
    ) throws(TreeError) -> R? {
        try checkFreshness(of: record, owner)
        let outcome = try read(record) { value -> Opened<R> in
            guard let value else { return .absent }
            guard let opened = seals.records.open(record, value, body) else { return .damaged }
            return .opened(opened)
        }
        switch outcome {
        case .absent: return nil
        case .opened(let result): return result
        case .damaged: throw tampered(record, owner, "does not authenticate")
        }
    }

    /// The store's bytes of a record, with its errors as the tree's.
    func read<R>(_ record: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(TreeError) -> R {
        do { return try store.read(record, body) } catch { throw TreeError(error) }
    }

    func checkFreshness(of record: RecordKey, _ owner: NodeID) throws(TreeError) {
        guard !state.suspects.isEmpty, state.suspects[record] != nil else { return }
        throw tampered(record, owner, "is not the one last written")
    }

    /// Remembers the damage and gives the error for it.
    func tampered(_ record: RecordKey, _ owner: NodeID, _ what: String) -> TreeError {
        // A job that goes through contents does not know whose they are.
        var whose = owner.rawValue == 0 ? " of content \(record.owner)" : " of inode \(owner.rawValue)"
        if record.kind == RecordKind.document.rawValue { whose = "" }
        var problem = Problem(
            node: owner.rawValue == 0 ? nil : owner, description: "\(record.name)\(whose) \(what)")
        if owner.rawValue == 0, record.kind == RecordKind.envelope.rawValue { problem.content = record.owner }
        report(problem)
        return .tampered(owner)
    }

    /// A node that must be there.
    ///
    /// - Throws: `.notFound` if the kernel asks for one that has gone.
    func node(_ id: NodeID) throws(TreeError) -> NodeRecord {
        demand.note()
        if let node = cache[id] { return node }
        let record = RecordKey(.node, id.rawValue)
        guard let node = try open(record, of: id, { NodeRecord($0) }) else { throw .notFound }
        guard node.attributes.id == id else { throw tampered(record, id, "speaks of another inode") }
        cache[id] = node
        return node
    }

    /// A node that an entry names: if it is missing, somebody took it away.
    func namedNode(_ id: NodeID) throws(TreeError) -> NodeRecord {
        do { return try node(id) } catch .notFound { throw tampered(RecordKey(.node, id.rawValue), id, "is missing") }
    }

    func directory(_ id: NodeID) throws(TreeError) -> NodeRecord {
        let node = try node(id)
        guard node.attributes.type == .directory else { throw .notADirectory }
        return node
    }

    func file(_ id: NodeID) throws(TreeError) -> NodeRecord {
        let node = try node(id)
        switch node.attributes.type {
        case .file: return node
        case .directory: throw .isADirectory
        default: throw .invalid
        }
    }
}

extension RecordKey {
    /// What a report calls it: never a name or a content.
    var name: String {
        switch RecordKind(rawValue: kind) {
        case .configuration: "the configuration"
        case .root: "the root record"
        case .lifecycle: "the key lifecycle"
        case .treeKey: "the tree key"
        case .localizer: "the localizer"
        case .node: "the attribute record"
        case .entry: "a directory entry"
        case .envelope: "the envelope"
        case .attribute: "an extended attribute"
        case .map: "content record \(high)"
        case .orphan: "an orphan record"
        case .target: "the link target"
        case .garbage: "a garbage record"
        case .job: "a job record"
        case .body: "the content record"
        case .document:
            switch DocumentKind(rawValue: owner) {
            case .policy: "the policy document"
            case .hooks: "the hooks' document"
            case .audit: "the document on where the audit log is"
            case nil: "a document of unknown kind \(owner)"
            }
        case nil: "a record of unknown kind \(kind)"
        }
    }
}

extension TreeError {
    init(_ error: StorageError) {
        switch error {
        case .full: self = .full
        case .readOnly: self = .readOnly
        case .io(let number, let what): self = .storage(description: "\(what) (errno \(number))")
        case .corrupt(let what): self = .storage(description: "the store is damaged: \(what)")
        case .notAStore(let what): self = .storage(description: "not a store: \(what)")
        case .newerFormat(let version): self = .storage(description: "store format \(version) is newer")
        case .busy(let holder): self = .storage(description: "the store is held by \(holder)")
        case .conflict: self = .storage(description: "the store changed under us")
        case .closed: self = .storage(description: "the store is closed")
        }
    }
}
