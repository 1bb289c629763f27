internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// What `verify` has found.
public struct VerificationReport: Sendable {
    public var recordCount = 0
    public var fileCount = 0
    /// Bytes of content that were opened.
    public var byteCount: UInt64 = 0
    /// Files whose contents could not be opened because of their KEK version's state: not damage.
    public var unreadableCount = 0
    public var problems: [Problem] = []
}

extension SecretTree {
    /// Opens every record and every block, and holds the tree's parts against each other.
    ///
    /// - Parameter progress: Told now and then how many records are done, of how many.
    public func verify(progress: (Int, Int) -> Void = { _, _ in }) throws(TreeError) -> VerificationReport {
        try? soundness.wait()
        var check = try lock.reading { () throws(TreeError) in
            var check = Verification(tree: self)
            try check.records(progress)
            try check.connections()
            return check
        }
        do {
            for what in try store.integrityCheck() { check.problem(nil, "the store's file: \(what)") }
        } catch { check.problem(nil, "\(TreeError(error))") }
        for problem in problemsByNode where !check.report.problems.contains(problem) {
            check.report.problems.append(problem)
        }
        check.report.fileCount = fileCount
        return check.report
    }
}

/// One run of `verify`, under the tree's lock.
private struct Verification {
    let tree: SecretTree
    var report = VerificationReport()
    private var nodes: [NodeID: NodeRecord] = [:]
    private var names: [NodeID: (count: UInt32, directories: UInt32)] = [:]
    private var entries: [NodeID: UInt64] = [:]
    private var contents: Set<UInt64> = []
    private var bodies: Set<UInt64> = []
    private var hasLocalizer = false
    /// Nothing was committed since the localizer was written; nothing is, while the tree's lock is held.
    private let isFolded: Bool
    private static let problemLimit = 10_000

    init(tree: SecretTree) {
        self.tree = tree
        isFolded = tree.store.overlayKeys.isEmpty
    }

    mutating func problem(_ node: NodeID?, content: UInt64? = nil, _ description: String) {
        var problem = Problem(node: node, description: description)
        problem.content = content
        if report.problems.count < Self.problemLimit, !report.problems.contains(problem) {
            report.problems.append(problem)
        }
    }

    // MARK: Each record by itself

    mutating func records(_ progress: (Int, Int) -> Void) throws(TreeError) {
        let total = Int(clamping: tree.state.root.recordCount)
        var next: RecordKey? = RecordKey.everything.lowerBound
        while let first = next {
            var page: [(RecordKey, [UInt8])] = []
            next = nil
            do {
                try tree.store.scan(first...RecordKey.everything.upperBound, prefix: .max) { record, value in
                    if page.count == 256 {
                        next = record
                        return false
                    }
                    page.append((record, [UInt8](value)))
                    return true
                }
            } catch { throw TreeError(error) }
            for (record, value) in page {
                report.recordCount += 1
                value.withUnsafeBytes { check(record, $0) }
            }
            progress(report.recordCount, total)
        }
        if isFolded, !hasLocalizer { problem(nil, "the localizer is missing") }
    }

    /// Nothing depends on it but the names of what was tampered with, so it is told of here alone.
    private mutating func check(localizer: Localizer?) {
        hasLocalizer = true
        guard isFolded else { return }
        guard let localizer else { return problem(nil, "the localizer does not authenticate") }
        let differences = tree.state.localizer.differences(from: localizer)
        if !differences.found.isEmpty || !differences.isComplete {
            problem(nil, "the localizer is not of the other records' time")
        }
    }

    private mutating func check(_ record: RecordKey, _ value: UnsafeRawBufferPointer) {
        let owner = NodeID(rawValue: record.owner)
        let seals = tree.seals
        if tree.state.suspects[record] != nil { return }  // named when the tree was opened
        let isSound: Bool
        switch RecordKind(rawValue: record.kind) {
        case .configuration, .lifecycle, .treeKey:
            isSound = true  // opened already
        case .root:
            guard record != RecordKey(.root) else { return }  // opened already
            // It is not counted, so its being there says nothing of the others.
            return problem(nil, "a second root record was added")
        case .localizer:
            return check(localizer: (tree.state.localizerSeal ?? seals.root).open(record, value) { Localizer($0) })
        case .node:
            let node = seals.records.open(record, value) { NodeRecord($0) }
            isSound = node?.attributes.id == owner
            if isSound { nodes[owner] = node }
        case .entry:
            let entry = seals.records.open(record, value) { bytes -> Entry? in
                guard let name = Entry.name(bytes), tree.entryKey(name, in: owner) == record else { return nil }
                return Entry(bytes)
            }
            isSound = entry != nil
            if let entry {
                entries[owner, default: 0] += 1
                names[entry.node, default: (0, 0)].count += 1
                if entry.type == .directory { names[owner, default: (0, 0)].directories += 1 }
            }
        case .envelope:
            isSound = Envelope.isWellFormed(value)
            contents.insert(record.owner)
        case .body:
            isSound = value.count > RecordSeal.overheadByteCount
            bodies.insert(record.owner)
        case .map: isSound = seals.records.open(record, value) { BlockMap($0, index: record.high) } != nil
        case .document: isSound = seals.records.open(record, value) { Document($0) } != nil
        case .attribute, .orphan, .target, .garbage, .job:
            isSound = seals.records.open(record, value) { _ in true } != nil
        case nil:
            isSound = false
        }
        guard !isSound else { return }
        switch RecordKind(rawValue: record.kind) {
        case .envelope, .map, .garbage, .body:
            problem(nil, content: record.owner, "\(record.name) of content \(record.owner) does not authenticate")
        case .document: problem(nil, "\(record.name) does not authenticate")
        default: problem(owner, "\(record.name) of inode \(record.owner) does not authenticate")
        }
    }

    // MARK: How they hang together

    mutating func connections() throws(TreeError) {
        var owners: [UInt64: NodeID] = [:]
        for (id, node) in nodes.sorted(by: { $0.key < $1.key }) {
            checkLinks(id, node)
            if node.attributes.content != 0 {
                owners[node.attributes.content] = id
                contents.remove(node.attributes.content)
                if !node.isInBlocks { bodies.remove(node.attributes.content) }
                try checkContent(of: node)
            }
        }
        for (id, _) in names where nodes[id] == nil && id != .root {
            let isNamed = report.problems.contains { $0.node == id }
            if !isNamed { problem(id, "inode \(id.rawValue) has a name and no attribute record") }
        }
        for content in bodies.subtracting(contents).sorted() {
            problem(nil, "content record \(content) belongs to no file")
        }
        for content in contents.sorted() { problem(nil, "content \(content) belongs to no file") }
        for index in report.problems.indices {
            guard let content = report.problems[index].content else { continue }
            report.problems[index].content = nil
            report.problems[index].node = owners[content]
        }
    }

    private mutating func checkLinks(_ id: NodeID, _ node: NodeRecord) {
        let found = names[id] ?? (0, 0)
        let links = node.attributes.linkCount
        if node.attributes.type == .directory {
            let isNamed = id == .root || found.count == 1 || tree.state.orphans.contains(id)
            if !isNamed { problem(id, "directory \(id.rawValue) has \(found.count) names") }
            if links > 0, links != found.directories + 2 {
                problem(id, "directory \(id.rawValue) counts \(links) links and has \(found.directories + 2)")
            }
            if node.entryCount != entries[id] ?? 0 {
                problem(id, "directory \(id.rawValue) counts \(node.entryCount) entries and has \(entries[id] ?? 0)")
            }
        } else if links != found.count {
            problem(id, "inode \(id.rawValue) counts \(links) links and has \(found.count)")
        } else if links == 0, !tree.state.orphans.contains(id) {
            problem(id, "inode \(id.rawValue) has no name")
        }
    }

    /// Opens a content whole; what its key's state forbids is counted, not blamed.
    private mutating func checkContent(of node: NodeRecord) throws(TreeError) {
        let id = node.attributes.id
        do {
            if node.isInBlocks {
                try checkBlocks(of: node)
            } else {
                let body = ScratchBuffer(byteCount: max(1, Int(clamping: node.attributes.size)))
                try tree.readContent(of: node, at: 0, into: body.bytes.part(0, Int(clamping: node.attributes.size)))
                report.byteCount += node.attributes.size
            }
        } catch {
            switch error {
            case .key: report.unreadableCount += 1
            case .tampered:
                if !tree.problems.contains(where: { $0.node == id }) {
                    problem(id, "the content of inode \(id.rawValue) does not authenticate")
                }
            default: throw error
            }
        }
    }

    private mutating func checkBlocks(of node: NodeRecord) throws(TreeError) {
        let content = node.attributes.content
        let buffer = ScratchBuffer(byteCount: Int(Contents.mapSpan))
        var damaged: TreeError?
        var byteCount: UInt64 = 0
        try tree.withDEK(content, of: node.attributes.id) { dek, _ throws(TreeError) in
            for record in try tree.keys(in: .all(.map, of: content)) {
                do throws(TreeError) {
                    guard let map = try tree.map(record.high, of: node) else { continue }
                    try tree.read(map, of: node, at: 0, into: buffer.bytes, dek)
                    byteCount += UInt64(map.blocks.count * Contents.blockByteCount)
                } catch {
                    guard case .tampered = error else { throw error }
                    damaged = error
                }
            }
        }
        report.byteCount += byteCount
        if let damaged { throw damaged }
    }
}
