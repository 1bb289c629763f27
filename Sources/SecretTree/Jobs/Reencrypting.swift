internal import Keyring
internal import Sodium
internal import Storage
internal import Synchronization
internal import Threads

/// Re-encrypting: nodes in the order of their numbers. Small contents go many to a transaction; a large one is copied
/// aside, a few maps a transaction, and takes the old one's place in one.
extension SecretTree {
    private static let limits = JobLimits(
        files: 128, bytes: 512 * 1024, lockedFiles: 32, lockedBytes: 128 * 1024)

    func reencryptBatch(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        let large = try carryOn(kind, now: now, makesContents: true, Self.limits) { job throws(TreeError) in
            try nodesToReencrypt(job)
        } _: { (transaction: inout Transaction, job, item, bytes) throws(TreeError) in
            try transaction.reencryptSmall(NodeID(rawValue: item.number), job, &bytes)
        }
        if let large { try reencryptLarge(large, kind) }
    }

    /// The next nodes to look at closer.
    private func nodesToReencrypt(_ job: JobRecord) throws(TreeError) -> JobPage {
        var page = JobPage()
        guard job.cursor < job.end else { return page }
        if job.scope != 0 {
            let inside = try filesInScope(of: job)
            // In the order of their numbers: found by halving.
            var (low, high) = (0, inside.count)
            while low < high {
                let middle = (low + high) / 2
                if inside[middle].rawValue > job.cursor { high = middle } else { low = middle + 1 }
            }
            page.items = inside[low...].prefix(Self.limits.files).map { JobPage.Item(number: $0.rawValue) }
            if low + page.items.count < inside.count { page.cursor = page.items.last?.number }
            return page
        }
        let range = RecordKey(.node, job.cursor + 1)...RecordKey(.node, job.end, high: .max, low: .max)
        do {
            try store.scan(range, prefix: 0) { record, _ in
                page.items.append(JobPage.Item(number: record.owner))
                guard page.items.count < Self.limits.files else {
                    page.cursor = record.owner
                    return false
                }
                return true
            }
        } catch { throw TreeError(error) }
        return page
    }

    /// What a job over a part of the tree goes through. Walked once a pass, and once more after a restart: what comes
    /// later is new and needs no work.
    private func filesInScope(of job: JobRecord) throws(TreeError) -> [NodeID] {
        if let known = jobScope.withLock({ $0 }), known.scope == job.scope, known.started == job.progress.started {
            return known.files
        }
        let files = try files(below: NodeID(rawValue: job.scope))
        jobScope.withLock { $0 = JobScope(scope: job.scope, started: job.progress.started, files: files) }
        return files
    }

    /// The regular files below a directory, or the file itself, in the order of their numbers, each once.
    func files(below scope: NodeID) throws(TreeError) -> [NodeID] {
        let attributes: NodeAttributes
        do throws(TreeError) { attributes = try self.attributes(of: scope) } catch { return [] }
        guard attributes.type == .directory else { return [scope] }
        var files: [NodeID] = []
        var directories = [scope]
        while let directory = directories.popLast() {
            do throws(TreeError) {
                try readDirectory(directory, after: 0, withAttributes: false) { _, entry in
                    if entry.type == .directory { directories.append(entry.node) }
                    if entry.type == .file { files.append(entry.node) }
                    return true
                }
            } catch {
                // A damaged or vanished directory is reported where it is found; its neighbours go on.
                switch error {
                case .tampered, .notFound, .notADirectory: continue
                default: throw error
                }
            }
        }
        files.sort()
        var last: NodeID?
        files.removeAll { file in
            defer { last = file }
            return file == last
        }
        return files
    }

    /// Takes a content that lies in blocks to a new DEK.
    private func reencryptLarge(_ id: NodeID, _ kind: JobKind) throws(TreeError) {
        let outcome: JobOutcome
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
        -> JobOutcome
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
