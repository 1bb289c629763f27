internal import Keyring
internal import Storage
internal import Threads

/// A change that is put together while everyone else goes on reading and writing, and takes the tree's lock only to be
/// committed: for jobs, whose batches would hold the others up. Two threads may put it together, a transaction each.
///
/// What it was made of is remembered. If any of that was changed meanwhile, or a key was, it is thrown away.
struct RehearsalStart {
    fileprivate let transaction: Transaction
    fileprivate let contents: ReservedContents
}

/// Numbers kept for new contents, so that nothing can lie under them.
private final class ReservedContents: @unchecked Sendable {
    let all: Range<UInt64>
    private let monitor = Monitor()
    // Touched within `monitor.locked` alone.
    private var left: Range<UInt64>

    init(_ all: Range<UInt64>) {
        self.all = all
        left = all
    }

    func next() -> UInt64 {
        monitor.locked {
            precondition(!left.isEmpty, "internal error: more contents than were reserved")
            return left.removeFirst()
        }
    }
}

/// What one thread's part of a rehearsal reads, and so goes by.
final class Rehearsal {
    private let tree: SecretTree
    private let session: any ReadingSession
    private let contents: ReservedContents
    private var values: [RecordKey: [UInt8]?] = [:]

    fileprivate init(_ tree: SecretTree, _ contents: ReservedContents) throws(TreeError) {
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

    func newContent() -> UInt64 { contents.next() }

    fileprivate var records: Dictionary<RecordKey, [UInt8]?>.Keys { values.keys }

    fileprivate func isNew(_ record: RecordKey) -> Bool {
        contents.all.contains(record.owner)
            && (record.kind == RecordKind.envelope.rawValue || record.kind == RecordKind.body.rawValue)
    }
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

/// One thread's part.
private final class RehearsalPart: Companion.Task {
    private let start: RehearsalStart
    /// Gone once it has run: whoever gave it lends it no longer than that.
    private var body: ((inout Transaction) throws(TreeError) -> Void)?
    private(set) var result: Result<Rehearsed, TreeError> = .success(Rehearsed())

    init(_ start: RehearsalStart, _ body: @escaping (inout Transaction) throws(TreeError) -> Void) {
        self.start = start
        self.body = body
    }

    func run() {
        result = Result { () throws(TreeError) -> Rehearsed in
            guard let body = body.take() else { return Rehearsed() }
            var transaction = start.transaction
            let rehearsal = try Rehearsal(transaction.tree, start.contents)
            transaction.rehearsal = rehearsal
            try body(&transaction)
            return try transaction.end(rehearsal)
        }
    }
}

extension SecretTree {
    /// From now on it is noted what others change, until `endRehearsal`.
    ///
    /// - Parameter contents: How many contents are made at most.
    /// - Returns: nil if nothing can be rehearsed just now.
    func beginRehearsal(now: Timestamp, contents: Int) -> RehearsalStart? {
        lock.writing {
            // What was tampered with has another element in the root's sum than it seems.
            guard state.suspects.isEmpty, !isReadOnly else { return nil }
            let first = state.root.nextContent
            state.root.nextContent += UInt64(contents)
            state.touched = []
            return RehearsalStart(
                transaction: Transaction(tree: self, now: now),
                contents: ReservedContents(first..<state.root.nextContent))
        }
    }

    /// Puts a change together. `body` runs on this thread and the companion's, if there is one, each with a transaction of
    /// its own that touches nothing of the other's, and does each of its steps by `Transaction.step`.
    func rehearse(
        _ start: RehearsalStart, with companion: Companion?, _ body: (inout Transaction) throws(TreeError) -> Void
    ) throws(TreeError) -> [Rehearsed] {
        let parts = withoutActuallyEscaping(body) { body in
            let parts = (0..<(companion == nil ? 1 : 2)).map { _ in RehearsalPart(start, body) }
            if let companion { companion.run(parts) } else { parts[0].run() }
            return parts.map(\.result)
        }
        return try parts.map { part throws(TreeError) in try part.get() }
    }

    func endRehearsal() { lock.writing { state.touched = nil } }
}

extension Transaction {
    /// One step of a change that may be a rehearsal: nothing changes in the middle of it.
    mutating func step<R>(_ body: (inout Transaction) throws(TreeError) -> R) throws(TreeError) -> R {
        guard rehearsal != nil else { return try body(&self) }
        return try tree.lock.reading { () throws(TreeError) -> R in try body(&self) }
    }

    fileprivate mutating func end(_ rehearsal: Rehearsal) throws(TreeError) -> Rehearsed {
        precondition(allocatedBlocks.isEmpty && jobs.isEmpty && prepared == nil, "internal error: not to be rehearsed")
        sealNodes()
        var rehearsed = Rehearsed()
        rehearsed.changes.reserveCapacity(staged.count)
        let freshness = tree.seals.freshness
        for (record, value) in staged {
            let old = rehearsal.isNew(record) ? nil : try rehearsal.value(of: record)
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
    mutating func take(_ all: [Rehearsed]) -> Bool {
        guard let touched = tree.state.touched, tree.state.suspects.isEmpty,
            touched.isEmpty || !all.contains(where: { $0.records.contains(where: touched.contains) })
        else { return false }
        rehearsed = all
        for part in all {
            for (version, change) in part.versionChanges { versionChanges[version, default: 0] += change }
        }
        return true
    }
}
