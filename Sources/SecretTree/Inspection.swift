internal import Keyring
internal import Storage

/// What one pass over a store finds when it is opened: is it what its root says, and if not, which records are not?
struct Inspection {
    let state: TreeState
    /// Blocks that maps name.
    private(set) var blocks: [UInt64] = []
    private(set) var problems: [Problem] = []

    init(of store: any RecordStore, _ seals: TreeSeals, _ root: Root) throws(TreeOpeningError) {
        state = TreeState(root: root, localizer: Localizer())
        var sum = HashSum()
        var count: UInt64 = 0
        var found = Localizer()
        var blocks: [UInt64] = []
        let state = state
        do {
            try store.scan(RecordKey.everything, prefix: RecordKind.longestHeadByteCount) { record, value in
                guard RecordKind(rawValue: record.kind)?.isCounted != false else { return true }
                let element = seals.freshness.element(record, value: value)
                sum += element
                count += 1
                found.add(record, element)
                Self.note(record, value, seals, in: state, &blocks)
                return true
            }
        } catch { throw .storage(error) }
        self.blocks = blocks
        state.localizer = found
        if sum == root.sum, count == root.recordCount { return }
        try localize(in: store, seals, sum)
    }

    /// What is known of the tree as a whole is gathered on the way.
    private static func note(
        _ record: RecordKey, _ value: UnsafeRawBufferPointer, _ seals: TreeSeals, in state: TreeState,
        _ blocks: inout [UInt64]
    ) {
        switch RecordKind(rawValue: record.kind) {
        case .envelope where value.count >= Envelope.bareByteCount:
            state.versionCounts[Envelope.version(value), default: 0] += 1
        case .map:
            if let map = seals.records.open(record, value, { BlockMap($0, index: record.high) }) {
                blocks += map.blocks
            }
        case .orphan:
            state.orphans.insert(NodeID(rawValue: record.owner))
            if value.count == RecordSeal.overheadByteCount + Orphan.copyByteCount {
                state.copies.insert(NodeID(rawValue: record.owner))
            }
        case .garbage: state.garbage.insert(record.owner)
        case .job:
            if let job = seals.records.open(record, value, { JobRecord($0) }) { state.jobs[job.progress.kind] = job }
        default: break
        }
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
                state.localizer.drop(difference.record, difference.element)
                if state.suspects[difference.record] == nil { state.suspects[difference.record] = .some(nil) }
            } else {
                sum += difference.element
                state.localizer.add(difference.record, difference.element)
                state.suspects[difference.record] = .some(difference.element)
            }
        }
        guard isComplete, sum == state.root.sum else { throw .tampered(problems.isEmpty ? [problem] : problems) }
        // With another life of the keys, or another configuration, nothing can be trusted to be readable or not.
        let own: Set<UInt8> = [
            RecordKind.configuration.rawValue, RecordKind.lifecycle.rawValue, RecordKind.treeKey.rawValue,
        ]
        guard !state.suspects.keys.contains(where: { own.contains($0.kind) }) else { throw .tampered(problems) }
    }

    private static func problem(of difference: Localizer.Difference, among all: [Localizer.Difference]) -> Problem {
        let record = difference.record
        let hasTwin = all.contains { $0.record == record && $0.isPresent != difference.isPresent }
        let what =
            hasTwin ? "is not the one last written" : difference.isPresent ? "was brought back or added" : "is missing"
        switch RecordKind(rawValue: record.kind) {
        case .envelope, .map, .garbage, .body:
            return Problem(node: nil, description: "\(record.name) of content \(record.owner) \(what)")
        case .node, .entry, .attribute, .orphan, .target:
            return Problem(
                node: NodeID(rawValue: record.owner), description: "\(record.name) of inode \(record.owner) \(what)")
        default: return Problem(node: nil, description: "\(record.name) \(what)")
        }
    }
}
