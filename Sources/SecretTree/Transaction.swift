internal import Keyring
internal import Sodium
internal import Storage
internal import Synchronization
internal import Threads

/// What one change is going to write. Nothing of it is seen by anyone before it is committed.
struct Transaction: RecordSource {
    let tree: SecretTree
    let now: Timestamp
    var root: Root
    private(set) var nodes: [NodeID: NodeRecord?] = [:]
    private(set) var staged: [RecordKey: [UInt8]?] = [:]
    var allocatedBlocks: [UInt64] = []
    var releasedBlocks: [UInt64] = []
    var versionChanges: [KEKVersion: Int] = [:]
    var newOrphans: [NodeID] = []
    var endedOrphans: [NodeID] = []
    var newGarbage: [UInt64] = []
    var endedGarbage: [UInt64] = []
    var jobs: [JobKind: JobRecord] = [:]
    var jobFailures: [JobKind: JobFailures] = [:]
    /// Revocations before the last one that are kept from now on, or changed; nil for one that is forgotten.
    var earlierRevocations: [UInt64: JobRecord?] = [:]
    /// A large content begins to be copied; these of its maps are copied now; it is done.
    var newCopy: ContentCopy?
    var copiedMaps: [UInt64] = []
    var endsCopy = false
    /// Maps that were changed, for the one who copies their content.
    var changedMaps: [(content: UInt64, index: UInt64)] = []
    /// A change of the keys, which takes effect when its record is committed.
    var prepared: PreparedLifecycle?
    /// A change that gives space back may use the store's reserve.
    var freesSpace = false
    /// It is put together without the tree's lock, to be committed by another one.
    var rehearsal: Rehearsal?
    /// What this one commits besides.
    var rehearsed: [Rehearsed] = []
    /// Not what somebody asked for, but what comes before or after it: the witness is not told.
    var isAside = false

    init(tree: SecretTree, now: Timestamp) {
        self.tree = tree
        self.now = now
        root = tree.state.root
    }

    // MARK: Nodes

    func node(_ id: NodeID) throws(TreeError) -> NodeRecord {
        if let pending = nodes[id] {
            guard let pending else { throw .notFound }
            return pending
        }
        guard let rehearsal else { return try tree.node(id) }
        let record = RecordKey(.node, id.rawValue)
        guard let value = try rehearsal.value(of: record) else { throw .notFound }
        guard
            let node = value.withUnsafeBytes({ tree.seals.records.open(record, $0) { NodeRecord($0) } }),
            node.attributes.id == id
        else { throw tree.tampered(record, id, "does not authenticate") }
        return node
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

    mutating func set(_ node: NodeRecord) { nodes[node.attributes.id] = .some(node) }

    mutating func remove(_ id: NodeID) {
        nodes.updateValue(nil, forKey: id)
        delete(RecordKey(.node, id.rawValue))
    }

    /// A number for a new node.
    mutating func newNodeID() -> NodeID {
        defer { root.nextNode += 1 }
        return NodeID(rawValue: root.nextNode)
    }

    mutating func newContentID() -> UInt64 {
        if let rehearsal { return rehearsal.newContent() }
        defer { root.nextContent += 1 }
        return root.nextContent
    }

    // MARK: Records

    mutating func put(_ record: RecordKey, _ value: [UInt8]) { staged.updateValue(value, forKey: record) }
    mutating func delete(_ record: RecordKey) { staged.updateValue(nil, forKey: record) }

    /// A sealed record as this transaction will leave it.
    func open<R>(
        _ record: RecordKey, of owner: NodeID, _ body: (UnsafeRawBufferPointer) -> R?
    ) throws(TreeError) -> R? {
        if staged[record] == nil, rehearsal == nil { return try tree.open(record, of: owner, body) }
        return try read(record) { value in value.flatMap { tree.seals.records.open(record, $0, body) } }
    }

    /// A record's bytes as this transaction will leave them.
    func read<R>(_ record: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(TreeError) -> R {
        let known: [UInt8]??
        if let pending = staged[record] {
            known = pending
        } else {
            known = try rehearsal.map { rehearsal throws(TreeError) in try rehearsal.value(of: record) }
        }
        guard let pending = known else { return try tree.read(record, body) }
        guard let value = pending else { return body(nil) }
        return value.withUnsafeBytes { body($0) }
    }

    mutating func seal(
        _ record: RecordKey, byteCount: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Void
    ) {
        put(record, tree.seals.records.sealed(record, byteCount: byteCount, fill))
    }

    mutating func sealNodes() {
        for case (let id, .some(let node)) in nodes {
            seal(RecordKey(.node, id.rawValue), byteCount: NodeRecord.byteCount) { node.put(into: $0) }
        }
    }
}

extension SecretTree {
    /// Runs one change as a transaction, and gives back the space of what it dropped. On a full disk the space of
    /// what was dropped before is made durable, and so free, first.
    func change<R>(now: Timestamp, _ body: (inout Transaction) throws(TreeError) -> R) throws(TreeError) -> R {
        try givingSpaceBack(now) { () throws(TreeError) in try perform(now: now, body) }
    }

    /// Likewise, by `performBesideReaders`.
    func changeBesideReaders<R>(now: Timestamp, _ body: (inout Transaction) throws(TreeError) -> R) throws(TreeError)
        -> R
    {
        try givingSpaceBack(now) { () throws(TreeError) in try performBesideReaders(now: now, body) }
    }

    private func givingSpaceBack<R>(_ now: Timestamp, _ body: () throws(TreeError) -> R) throws(TreeError) -> R {
        let result: R
        do { result = try body() } catch .full {
            collectGarbage(now: now)
            try sync()
            result = try body()
        }
        collectGarbage(now: now)
        return result
    }

    /// Runs one change as a transaction: all of it happens, or nothing does.
    func perform<R>(now: Timestamp, _ body: (inout Transaction) throws(TreeError) -> R) throws(TreeError) -> R {
        guard !isReadOnly else { throw .readOnly }
        try soundness.wait()
        return try changing.locked { () throws(TreeError) -> R in
            try lock.writing { () throws(TreeError) -> R in
                var transaction = Transaction(tree: self, now: now)
                do throws(TreeError) {
                    let result = try body(&transaction)
                    if let commit = try prepare(&transaction) {
                        try write(commit, of: transaction, besideReaders: false)
                    }
                    return result
                } catch {
                    giveBack(transaction)
                    throw error
                }
            }
        }
    }

    /// Likewise, beside those who read: they wait only while it takes effect. Others who change something wait as ever.
    ///
    /// - Parameter body: Changes nothing but the transaction.
    func performBesideReaders<R>(
        now: Timestamp, _ body: (inout Transaction) throws(TreeError) -> R
    ) throws(TreeError) -> R {
        guard !isReadOnly else { throw .readOnly }
        try soundness.wait()
        return try changing.locked { () throws(TreeError) -> R in
            var transaction: Transaction?
            do throws(TreeError) {
                let (result, commit) = try lock.reading { () throws(TreeError) -> (R, PreparedCommit?) in
                    var new = Transaction(tree: self, now: now)
                    defer { transaction = new }
                    let result = try body(&new)
                    return (result, try prepare(&new))
                }
                if let commit, let transaction { try write(commit, of: transaction, besideReaders: true) }
                return result
            } catch {
                if let transaction { giveBack(transaction) }
                throw error
            }
        }
    }

    /// What a transaction that has failed had kept for itself.
    private func giveBack(_ transaction: Transaction) {
        if !transaction.allocatedBlocks.isEmpty { store.releaseBlocks(transaction.allocatedBlocks) }
    }

    /// Puts together what is to be written; nil if that is nothing.
    private func prepare(_ transaction: inout Transaction) throws(TreeError) -> PreparedCommit? {
        transaction.sealNodes()
        guard !transaction.staged.isEmpty || !transaction.rehearsed.isEmpty else { return nil }
        var commit = PreparedCommit(root: transaction.root)
        commit.root.epoch += 1
        commit.batch.freesSpace = transaction.freesSpace
        commit.elements.reserveCapacity(
            transaction.rehearsed.reduce(transaction.staged.count) { $0 + $1.changes.count })
        for part in transaction.rehearsed {
            for change in part.changes { commit.count(change.record, change.value, change.old, change.new) }
        }
        // It takes effect faster: readers wait for that.
        if !transaction.rehearsed.isEmpty { commit.batch.sort() }
        for (record, value) in transaction.staged {
            let old = try countedElement(of: record)
            let new = value.map { value in value.withUnsafeBytes { seals.freshness.element(record, value: $0) } }
            commit.count(record, value, old, new)
        }
        let root = commit.root
        let rootKey = RecordKey(.root)
        commit.batch.put(rootKey, seals.root.sealed(rootKey, byteCount: Root.byteCount) { root.put(into: $0) })
        return commit
    }

    /// - Parameter besideReaders: The tree's lock is not held, and taken for as long as it takes effect.
    private func write(
        _ commit: PreparedCommit, of transaction: Transaction, besideReaders: Bool
    ) throws(TreeError) {
        let witness = transaction.isAside ? nil : witness.withLock { $0 }
        witness?.willCommit(epoch: commit.root.epoch)
        Failpoint.reach()
        do {
            try store.commit(commit.batch) { takeEffect in
                // Nobody but a fold reads it, which cannot begin meanwhile.
                for (record, old, new) in commit.elements {
                    if let old { state.localizer.drop(record, old) }
                    if let new { state.localizer.add(record, new) }
                }
                guard besideReaders else {
                    takeEffect()
                    return finish(transaction, commit)
                }
                lock.writing {
                    takeEffect()
                    finish(transaction, commit)
                }
            }
        } catch {
            witness?.didNotCommit(epoch: commit.root.epoch)
            throw TreeError(error)
        }
        Failpoint.reach()
    }

    /// Takes over in memory what is committed.
    private func finish(_ transaction: Transaction, _ commit: PreparedCommit) {
        state.root = commit.root
        if let prepared = transaction.prepared { keyring.commit(prepared) }
        for (kind, job) in transaction.jobs { state.jobs[kind] = job }
        for (kind, failures) in transaction.jobFailures { state.jobFailures[kind] = failures }
        for (place, job) in transaction.earlierRevocations { state.earlierRevocations[place] = job }
        follow(transaction)
        if !state.suspects.isEmpty {
            for record in transaction.staged.keys { state.suspects[record] = nil }
        }
        for (id, node) in transaction.nodes { cache[id] = node }
        for part in transaction.rehearsed {
            for (id, node) in part.nodes { cache[id] = node }
        }
        // A change of the keys ends all rehearsals.
        if transaction.prepared != nil { state.touched = nil }
        state.touched?.formUnion(transaction.staged.keys)
        for (version, change) in transaction.versionChanges { state.versionCounts[version, default: 0] += change }
        state.orphans.formUnion(transaction.newOrphans)
        state.orphans.subtract(transaction.endedOrphans)
        state.garbage.formUnion(transaction.newGarbage)
        state.garbage.subtract(transaction.endedGarbage)
        if !transaction.releasedBlocks.isEmpty { store.releaseBlocks(transaction.releasedBlocks) }
    }

    /// Keeps the copy of a large content in step with those who write to it.
    private func follow(_ transaction: Transaction) {
        if let copy = transaction.newCopy { state.copy = copy }
        if transaction.endsCopy { state.copy = nil }
        guard let content = state.copy?.content else { return }
        for index in transaction.copiedMaps { state.copy?.touched.remove(index) }
        for map in transaction.changedMaps where map.content == content { state.copy?.touched.insert(map.index) }
    }

    /// The element that the root's sum holds for a record now: for a suspect that of the record as it should be.
    private func countedElement(of record: RecordKey) throws(TreeError) -> HashSum? {
        if !state.suspects.isEmpty, let expected = state.suspects[record] { return expected }
        return try read(record) { value in value.map { seals.freshness.element(record, value: $0) } }
    }
}

/// All that one transaction writes.
private struct PreparedCommit {
    var root: Root
    var batch = RecordBatch()
    var elements: [(record: RecordKey, old: HashSum?, new: HashSum?)] = []

    init(root: Root) { self.root = root }

    mutating func count(_ record: RecordKey, _ value: [UInt8]?, _ old: HashSum?, _ new: HashSum?) {
        if let value { batch.put(record, value) } else { batch.delete(record) }
        if let old {
            root.sum -= old
            root.recordCount -= 1
        }
        if let new {
            root.sum += new
            root.recordCount += 1
        }
        elements.append((record, old, new))
    }
}
