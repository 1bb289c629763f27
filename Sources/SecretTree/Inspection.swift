internal import Keyring
internal import Storage

/// What one pass over all records finds when a store is opened: is it what its root says, and if not, which records are
/// not?
struct Inspection {
    private let root: Root
    /// Of the records as they should be.
    private(set) var localizer = Localizer()
    private(set) var suspects: [RecordKey: HashSum?] = [:]
    private(set) var versionCounts: [KEKVersion: Int] = [:]
    /// Blocks that maps name.
    private(set) var blocks: [UInt64] = []
    private(set) var problems: [Problem] = []

    /// Nothing may be changed meanwhile.
    init(of store: any RecordStore, _ seals: TreeSeals, _ root: Root) throws(TreeOpeningError) {
        self.root = root
        var sum = HashSum()
        var count: UInt64 = 0
        var found = Localizer()
        var blocks: [UInt64] = []
        var versionCounts: [KEKVersion: Int] = [:]
        do {
            try store.scan(RecordKey.everything, prefix: RecordKind.longestHeadByteCount) { record, value in
                let kind = RecordKind(rawValue: record.kind)
                guard kind?.isCounted != false else { return true }
                let element = seals.freshness.element(record, value: value)
                sum += element
                count += 1
                found.add(record, element)
                // What is known of the contents as a whole is gathered on the way.
                if kind == .envelope, value.count >= Envelope.bareByteCount {
                    versionCounts[Envelope.version(value), default: 0] += 1
                } else if kind == .map {
                    blocks += seals.records.open(record, value, { BlockMap($0, index: record.high) })?.blocks ?? []
                }
                return true
            }
        } catch { throw .storage(error) }
        self.blocks = blocks
        self.versionCounts = versionCounts
        localizer = found
        if sum == root.sum, count == root.recordCount { return }
        try localize(in: store, seals, sum)
    }

    /// Fills in what must be known before anything is served, and is little: nodes without a name, dropped contents,
    /// jobs.
    static func survey(_ store: any RecordStore, _ seals: TreeSeals, into state: TreeState) throws(TreeOpeningError) {
        do {
            try store.scan(.all(.orphan), prefix: .max) { record, value in
                state.orphans.insert(NodeID(rawValue: record.owner))
                if value.count == RecordSeal.overheadByteCount + Orphan.copyByteCount {
                    state.copies.insert(NodeID(rawValue: record.owner))
                }
                return true
            }
            try store.scan(.all(.garbage), prefix: 0) { record, _ in
                state.garbage.insert(record.owner)
                return true
            }
            try store.scan(.all(.job), prefix: .max) { record, value in
                if record.low != 0 {
                    if let kind = JobKind(rawValue: UInt8(truncatingIfNeeded: record.owner)) {
                        state.jobFailures[kind] = seals.records.open(record, value) { JobFailures($0) }
                    }
                } else if let job = seals.records.open(record, value, { JobRecord($0) }) {
                    if record.high == 0 {
                        state.jobs[job.progress.kind] = job
                    } else {
                        state.earlierRevocations[record.high] = job
                    }
                }
                return true
            }
        } catch { throw .storage(error) }
    }

    /// Finds the records that make the sum wrong, with the localizer that the last fold left beside them.
    private mutating func localize(in store: any RecordStore, _ seals: TreeSeals, _ foundSum: HashSum)
        throws(TreeOpeningError)
    {
        var problem = Problem(node: nil, description: "the records are not those that the root stands for")
        let key = RecordKey(.localizer)
        var folded = Localizer()
        let expected: Localizer?
        do {
            expected = try store.read(key) { value in
                value.flatMap { seals.root.open(key, $0) { Localizer($0) } }
            }
            try store.scanFolded(RecordKey.everything, prefix: RecordKind.longestHeadByteCount) { record, value in
                guard RecordKind(rawValue: record.kind)?.isCounted != false else { return true }
                folded.add(record, seals.freshness.element(record, value: value))
                return true
            }
        } catch { throw .storage(error) }
        guard let expected else {
            problem.description += ", and the localizer that would name them does not authenticate"
            throw .tampered([problem])
        }
        let (differences, isComplete) = folded.differences(from: expected)
        let overlaid = Set(store.overlayKeys)
        var sum = foundSum
        for difference in differences {
            problems.append(Self.problem(of: difference, among: differences))
            // What was written since the fold is in the journal and replaces what was tampered with.
            guard !overlaid.contains(difference.record) else { continue }
            if difference.isPresent {
                sum -= difference.element
                localizer.drop(difference.record, difference.element)
                if suspects[difference.record] == nil { suspects[difference.record] = .some(nil) }
            } else {
                sum += difference.element
                localizer.add(difference.record, difference.element)
                suspects[difference.record] = .some(difference.element)
            }
        }
        guard isComplete, sum == root.sum else { throw .tampered(problems.isEmpty ? [problem] : problems) }
        // With another life of the keys, or another configuration, nothing can be trusted to be readable or not.
        let own: Set<UInt8> = [
            RecordKind.configuration.rawValue, RecordKind.lifecycle.rawValue, RecordKind.treeKey.rawValue,
        ]
        guard !suspects.keys.contains(where: { own.contains($0.kind) }) else { throw .tampered(problems) }
    }

    private static func problem(of difference: Localizer.Difference, among all: [Localizer.Difference]) -> Problem {
        let record = difference.record
        let hasTwin = all.contains { $0.record == record && $0.isPresent != difference.isPresent }
        let what =
            hasTwin ? "is not the one last written" : difference.isPresent ? "was brought back or added" : "is missing"
        switch RecordKind(rawValue: record.kind) {
        case .envelope, .map, .garbage, .body:
            return Problem(
                content: record.owner, description: "\(record.name) of content \(record.owner) \(what)")
        case .node, .entry, .attribute, .orphan, .target:
            return Problem(
                node: NodeID(rawValue: record.owner), description: "\(record.name) of inode \(record.owner) \(what)")
        default: return Problem(node: nil, description: "\(record.name) \(what)")
        }
    }
}
