internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Rewrapping: envelopes in the order of their contents' numbers, a batch a transaction.
extension SecretTree {
    /// So many envelopes are looked at, and so many wrapped, while others wait.
    private static let scanLimit = 4096
    private static let batchLimit = 96

    func rewrapBatch(now: Timestamp) throws(TreeError) {
        guard let job = lock.reading({ state.jobs[.rewrap] }), job.progress.state == .running else { return }
        let (contents, cursor) = try contentsToRewrap(job)
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard var job = transaction.running(.rewrap) else { return }
            for content in contents {
                do throws(TreeError) {
                    if try transaction.rewrap(content, from: job.progress.version) { job.progress.done += 1 }
                } catch {
                    switch error {
                    case .tampered, .key: job.progress.failed += 1
                    default: throw error
                    }
                }
            }
            job.progress.total = max(job.progress.total, job.progress.done + job.progress.failed)
            if let cursor { job.cursor = cursor } else { transaction.endPass(&job) }
            transaction.set(job)
        }
    }

    /// The next contents whose wrap is not the primary's, and the number up to which everything is looked at; nil if
    /// that is the end.
    private func contentsToRewrap(_ job: JobRecord) throws(TreeError) -> ([UInt64], UInt64?) {
        guard job.cursor < job.end else { return ([], nil) }
        var found: [UInt64] = []
        var looked = 0
        var cursor: UInt64?
        let sources = Set(
            keyring.lifecycle.versions.map(\.version).filter { isSource($0, of: .rewrap, from: job.progress.version) })
        let range =
            RecordKey(.envelope, job.cursor + 1)...RecordKey(.envelope, job.end, high: .max, low: .max)
        do {
            try store.scan(range, prefix: Envelope.bareByteCount) { record, value in
                looked += 1
                if value.count >= 4, sources.contains(Envelope.version(value)) { found.append(record.owner) }
                guard looked < Self.scanLimit, found.count < Self.batchLimit else {
                    cursor = record.owner
                    return false
                }
                return true
            }
        } catch { throw TreeError(error) }
        return (found, cursor)
    }
}

extension Transaction {
    /// Wraps a content's DEK under the primary version; false if there is nothing to do any more.
    mutating func rewrap(_ content: UInt64, from wanted: KEKVersion?) throws(TreeError) -> Bool {
        let record = RecordKey(.envelope, content)
        guard let old = try version(ofContent: content), tree.isSource(old, of: .rewrap, from: wanted) else {
            return false
        }
        let (value, new) = try withDEK(content, of: NodeID(rawValue: 0)) {
            dek, envelope throws(TreeError) -> ([UInt8], KEKVersion) in
            var value = [UInt8](envelope)
            let created = Envelope.created(envelope)
            let result = value.withUnsafeMutableBytes { value in
                Result { () throws(KeyringError) -> KEKVersion in
                    let version = try Envelope.withContext(content, created) { context throws(KeyringError) in
                        try tree.keyring.wrap(
                            BorrowedKey(dek), context: context,
                            into: value.part(Envelope.wrappedPlace, UnlockedKeyring.wrappedByteCount))
                    }
                    value.put(version.rawValue, at: 0)
                    return version
                }
            }
            do throws(KeyringError) { return (value, try result.get()) } catch { throw .key(error) }
        }
        put(record, value)
        versionChanges[old, default: 0] -= 1
        versionChanges[new, default: 0] += 1
        return true
    }
}
