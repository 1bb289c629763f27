internal import Keyring
internal import Storage
internal import Threads

/// A change that is put together while everyone else goes on reading and writing, and takes the tree's lock only to be
/// committed: for jobs, whose batches would hold the others up.
///
/// What it was made of is remembered. If any of that was changed meanwhile, or a key was, it is thrown away.
final class Rehearsal {
    private let tree: SecretTree
    private let session: any ReadingSession
    private var values: [RecordKey: [UInt8]?] = [:]
    /// Numbers kept for new contents, so that nothing can lie under them.
    fileprivate(set) var contents: Range<UInt64>

    fileprivate init(_ tree: SecretTree, contents: Range<UInt64>) throws(TreeError) {
        self.tree = tree
        self.contents = contents
        do { session = try tree.store.session() } catch { throw TreeError(error) }
    }

    /// What a record was when it was read first.
    func value(of record: RecordKey) throws(TreeError) -> [UInt8]? {
        if let known = values[record] { return known }
        do {
            let value = try session.read(record) { $0.map { [UInt8]($0) } }
            values.updateValue(value, forKey: record)
            return value
        } catch { throw TreeError(error) }
    }

    /// What a scan has found, so that it is not read again.
    func note(_ record: RecordKey, _ value: [UInt8]) { values.updateValue(value, forKey: record) }

    func newContent() -> UInt64 {
        precondition(!contents.isEmpty, "internal error: more contents than were reserved")
        return contents.removeFirst()
    }

    fileprivate var records: Dictionary<RecordKey, [UInt8]?>.Keys { values.keys }
}

/// What is left of a transaction that was rehearsed: all there is to commit.
struct Rehearsed {
    struct Change {
        var record: RecordKey
        var value: [UInt8]?
        var old: HashSum?
        var new: HashSum?
    }

    fileprivate(set) var changes: [Change] = []
    fileprivate(set) var nodes: [NodeID: NodeRecord?] = [:]
    fileprivate var versionChanges: [KEKVersion: Int] = [:]
    /// All that it goes by.
    fileprivate var records: [RecordKey] = []
}

extension SecretTree {
    /// Puts a change together. `body` is to do each of its steps by `Transaction.step`.
    ///
    /// - Parameter contents: How many contents it makes at most.
    /// - Returns: nil if it cannot be done like that just now.
    func rehearse(
        now: Timestamp, contents: Int = 0, _ body: (inout Transaction) throws(TreeError) -> Void
    ) throws(TreeError) -> Rehearsed? {
        let begun = lock.writing { () -> (Transaction, Range<UInt64>)? in
            // What was tampered with has another element in the root's sum than it seems.
            guard state.suspects.isEmpty, !isReadOnly else { return nil }
            let first = state.root.nextContent
            state.root.nextContent += UInt64(contents)
            state.touched = []
            return (Transaction(tree: self, now: now), first..<state.root.nextContent)
        }
        guard case (var transaction, let numbers)? = begun else { return nil }
        do throws(TreeError) {
            let rehearsal = try Rehearsal(self, contents: numbers)
            transaction.rehearsal = rehearsal
            try body(&transaction)
            return try transaction.end(rehearsal, reserved: numbers)
        } catch {
            endRehearsal()
            throw error
        }
    }

    func endRehearsal() { lock.writing { state.touched = nil } }
}

extension Transaction {
    /// One step of a change that may be a rehearsal: nothing changes in the middle of it.
    mutating func step<R>(_ body: (inout Transaction) throws(TreeError) -> R) throws(TreeError) -> R {
        guard rehearsal != nil else { return try body(&self) }
        return try tree.lock.reading { () throws(TreeError) -> R in try body(&self) }
    }

    fileprivate mutating func end(_ rehearsal: Rehearsal, reserved: Range<UInt64>) throws(TreeError) -> Rehearsed {
        precondition(allocatedBlocks.isEmpty && jobs.isEmpty && prepared == nil, "internal error: not to be rehearsed")
        sealNodes()
        var rehearsed = Rehearsed()
        rehearsed.changes.reserveCapacity(staged.count)
        let freshness = tree.seals.freshness
        for (record, value) in staged {
            let isNew =
                reserved.contains(record.owner)
                && (record.kind == RecordKind.envelope.rawValue || record.kind == RecordKind.body.rawValue)
            let old = isNew ? nil : try rehearsal.value(of: record)
            rehearsed.changes.append(
                Rehearsed.Change(
                    record: record, value: value,
                    old: old.map { old in old.withUnsafeBytes { freshness.element(record, value: $0) } },
                    new: value.map { new in new.withUnsafeBytes { freshness.element(record, value: $0) } }))
        }
        rehearsed.nodes = nodes
        rehearsed.versionChanges = versionChanges
        rehearsed.records = Array(rehearsal.records)
        return rehearsed
    }

    /// Takes over what was rehearsed, to be committed with this transaction.
    ///
    /// - Returns: false, and nothing is taken, if it is not true any more.
    mutating func take(_ rehearsed: Rehearsed) -> Bool {
        guard let touched = tree.state.touched, tree.state.suspects.isEmpty,
            touched.isEmpty || !rehearsed.records.contains(where: touched.contains)
        else { return false }
        self.rehearsed = rehearsed
        for (version, change) in rehearsed.versionChanges { versionChanges[version, default: 0] += change }
        return true
    }
}
