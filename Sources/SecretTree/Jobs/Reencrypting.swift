internal import Keyring
internal import Sodium
internal import Storage
internal import Synchronization
internal import Threads

/// Re-encrypting: nodes in the order of their numbers. Small contents go many to a transaction; a large one is copied
/// aside, a few maps a transaction, and takes the old one's place in one.
extension SecretTree {
    /// So many nodes are looked at in one batch, or so many bytes; and so many if others who change something wait for it.
    private static let nodeLimit = 128
    private static let byteLimit = 512 * 1024
    private static let lockedLimit = 32
    private static let lockedByteLimit = 128 * 1024

    func reencryptBatch(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        guard let job = lock.reading({ state.jobs[kind] }), job.progress.state == .running else { return }
        let (nodes, last) = try nodesToReencrypt(job)
        let large = try carryOn(kind, now: now, contents: nodes.count) {
            (transaction: inout Transaction, job, batch: inout JobBatch) throws(TreeError) in
            let isHoldingUp = transaction.rehearsal == nil
            let byteLimit = isHoldingUp ? Self.lockedByteLimit : Self.byteLimit
            var bytes = 0
            for id in isHoldingUp ? nodes.prefix(Self.lockedLimit) : nodes[...] where bytes < byteLimit {
                let outcome = try transaction.step { (transaction: inout Transaction) throws(TreeError) in
                    try transaction.reencryptSmall(id, job, &bytes)
                }
                switch outcome {
                case .done: batch.done += 1
                case .failed(let failure): batch.fail(failure)
                case .nothing, .held: break
                case .isLarge:
                    batch.large = id
                    return
                }
                batch.cursor = id.rawValue
            }
            // Everything up to the last node that was looked at is done, unless the batch stopped before.
            guard batch.cursor == nodes.last?.rawValue ?? batch.cursor else { return }
            batch.cursor = max(batch.cursor, last ?? batch.cursor)
            batch.isEnd = last == nil
        }
        if let large { try reencryptLarge(large, kind) }
    }

    /// The next nodes to look at closer, and the number up to which they are all; nil if that is the end.
    private func nodesToReencrypt(_ job: JobRecord) throws(TreeError) -> ([NodeID], UInt64?) {
        guard job.cursor < job.end else { return ([], nil) }
        if job.scope != 0 {
            let inside = try filesInScope(of: job)
            // In the order of their numbers: found by halving.
            var (low, high) = (0, inside.count)
            while low < high {
                let middle = (low + high) / 2
                if inside[middle].rawValue > job.cursor { high = middle } else { low = middle + 1 }
            }
            let page = Array(inside[low...].prefix(Self.nodeLimit))
            return (page, low + page.count < inside.count ? page.last?.rawValue : nil)
        }
        var found: [NodeID] = []
        var last: UInt64?
        let range = RecordKey(.node, job.cursor + 1)...RecordKey(.node, job.end, high: .max, low: .max)
        do {
            try store.scan(range, prefix: 0) { record, _ in
                found.append(NodeID(rawValue: record.owner))
                guard found.count < Self.nodeLimit else {
                    last = record.owner
                    return false
                }
                return true
            }
        } catch { throw TreeError(error) }
        return (found, last)
    }

    /// What a job over a part of the tree goes through. Walked once a pass, and once more after a restart: what comes
    /// later is new and needs no work.
    private func filesInScope(of job: JobRecord) throws(TreeError) -> [NodeID] {
        if job.cursor > 0, let known = jobScope.withLock({ $0 }), known.scope == job.scope,
            known.started == job.progress.started
        {
            return known.files
        }
        let files = try nodes(below: NodeID(rawValue: job.scope))
        jobScope.withLock { $0 = JobScope(scope: job.scope, started: job.progress.started, files: files) }
        return files
    }

    /// The regular files below a directory, or the file itself, in the order of their numbers.
    func nodes(below scope: NodeID) throws(TreeError) -> [NodeID] {
        let attributes: NodeAttributes
        do throws(TreeError) { attributes = try self.attributes(of: scope) } catch { return [] }
        guard attributes.type == .directory else { return [scope] }
        var found: Set<NodeID> = []
        try walk(from: scope) { _, attributes in
            found.insert(attributes.id)
            return true
        }
        return found.sorted()
    }

    /// Takes a content that lies in blocks to a new DEK.
    private func reencryptLarge(_ id: NodeID, _ kind: JobKind) throws(TreeError) {
        let outcome: ReencryptionOutcome
        do throws(TreeError) {
            outcome = try copyToNewContent(id, kind)
        } catch {
            switch error {
            case .notFound, .key(.revoked), .key(.expired), .key(.destroyed): outcome = .nothing
            default:
                guard let reason = JobFailure.Reason(error) else { throw error }
                let content = (try? attributes(of: id).content) ?? 0
                outcome = .failed(JobFailure(node: id, content: content, reason: reason))
            }
        }
        // Replaced, or the primary has changed meanwhile: it is looked at again.
        guard outcome != .held, outcome != .nothing else { return }
        let now = Timestamp.now()
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            // Held or cancelled meanwhile: the file is looked at again when the job goes on.
            guard var job = transaction.running(kind) else { return }
            if outcome == .done { job.progress.done += 1 }
            if case .failed(let failure) = outcome {
                job.progress.failed += 1
                transaction.note([failure], of: kind)
            }
            job.cursor = max(job.cursor, id.rawValue)
            job.progress.total = max(job.progress.total, job.progress.done + job.progress.failed)
            transaction.set(job)
        }
    }
}

/// The files that a job over a part of the tree goes through, in the order of their numbers.
struct JobScope: Sendable {
    var scope: UInt64
    var started: Timestamp?
    var files: [NodeID]
}

/// What became of one file.
enum ReencryptionOutcome: Equatable {
    case done
    case failed(JobFailure)
    /// It is new, or gone, or not the job's.
    case nothing
    /// It lies in blocks and takes more than one transaction.
    case isLarge
    /// The job is held, the tree closed.
    case held
}

extension Transaction {
    /// Whether a node's content is the job's to do.
    func needsReencryption(_ node: NodeRecord, _ job: JobRecord) throws(TreeError) -> Bool {
        let content = node.attributes.content
        guard node.attributes.type == .file, content != 0 else { return false }
        let kind = job.progress.kind
        guard content < job.newContents || kind == .revoke else { return false }
        // A missing envelope is looked at closer, and fails there.
        guard let version = try version(ofContent: content) else { return true }
        return tree.isSource(version, of: kind, from: job.progress.version)
    }

    /// Gives an inline content a new DEK; leaves a large one to the caller.
    mutating func reencryptSmall(_ id: NodeID, _ job: JobRecord, _ bytes: inout Int) throws(TreeError)
        -> ReencryptionOutcome
    {
        var content: UInt64 = 0
        do throws(TreeError) {
            var node = try node(id)
            content = node.attributes.content
            guard try needsReencryption(node, job) else { return .nothing }
            if node.isInBlocks { return .isLarge }
            let body = ScratchBuffer(byteCount: Contents.inlineLimit)
            let old = node.attributes.content
            let count = try withDEK(old, of: id, forReencryption: true) { dek, envelope throws(TreeError) -> Int in
                let count = Envelope.bodyByteCount(envelope, of: node)
                try openBody(of: node, envelope, into: body.bytes.part(0, count), dek)
                return count
            }
            var before = node
            let plaintext = body.bytes.readOnly.part(0, count)
            try noteRegeneration(of: &node, job)
            // The new one first: should that fail, nothing has been dropped.
            try newContent(of: &node) { transaction, content, dek, envelope in
                transaction.sealBody(plaintext, content, dek, envelope)
            }
            node.attributes.storedByteCount = UInt64(count)
            try dropContent(of: &before)
            set(node)
            bytes += count
            return .done
        } catch {
            switch error {
            case .notFound: return .nothing
            default:
                guard let reason = JobFailure.Reason(error) else { throw error }
                return .failed(JobFailure(node: id, content: content, reason: reason))
            }
        }
    }

    /// Whoever knows the key may know the value.
    func noteRegeneration(of node: inout NodeRecord, _ job: JobRecord) throws(TreeError) {
        let version = try version(ofContent: node.attributes.content)
        let isKnown = version.map { tree.keyring.lifecycle.state(of: $0) == .compromised } ?? false
        if isKnown || job.progress.kind == .revoke { node.attributes.needsRegeneration = true }
    }
}
