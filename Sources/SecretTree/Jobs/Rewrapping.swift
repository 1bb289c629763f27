internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Rewrapping: envelopes in the order of their contents' numbers, a batch a transaction.
extension SecretTree {
    /// So many envelopes are looked at, and so many wrapped, in one batch; and so many if others who change something wait.
    private static let scanLimit = 4096
    private static let batchLimit = 512
    private static let lockedLimit = 96

    private struct Page {
        /// Contents with their envelopes.
        var found: [(content: UInt64, envelope: [UInt8])] = []
        /// The number up to which everything is looked at; nil if that is the end.
        var cursor: UInt64?
    }

    func rewrapBatch(now: Timestamp) throws(TreeError) {
        guard lock.reading({ state.jobs[.rewrap]?.progress.state }) == .running else { return }
        var known: Page?
        _ = try carryOn(.rewrap, now: now) {
            (transaction: inout Transaction, job, batch: inout JobBatch) throws(TreeError) in
            // Not before the rehearsal begins: it learns of no change that was made earlier, and would take envelopes for
            // true that are gone.
            if known == nil { known = try contentsToRewrap(job) }
            let page = known ?? Page()
            let isHoldingUp = transaction.rehearsal == nil
            for (content, envelope) in isHoldingUp ? page.found.prefix(Self.lockedLimit) : page.found[...] {
                transaction.rehearsal?.note(RecordKey(.envelope, content), envelope)
                try transaction.step { (transaction: inout Transaction) throws(TreeError) in
                    do throws(TreeError) {
                        if try transaction.rewrap(content, from: job.progress.version) { batch.done += 1 }
                    } catch {
                        switch error {
                        case .tampered: batch.fail(JobFailure(node: nil, content: content, reason: .tampered))
                        case .key: batch.fail(JobFailure(node: nil, content: content, reason: .key))
                        default: throw error
                        }
                    }
                }
                batch.cursor = content
            }
            guard batch.cursor == page.found.last?.content ?? batch.cursor else { return }
            batch.cursor = page.cursor ?? batch.cursor
            batch.isEnd = page.cursor == nil
        }
    }

    /// The next contents whose wrap is not the primary's.
    private func contentsToRewrap(_ job: JobRecord) throws(TreeError) -> Page {
        guard job.cursor < job.end else { return Page() }
        var found: [(content: UInt64, envelope: [UInt8])] = []
        var looked = 0
        var cursor: UInt64?
        let sources = Set(
            keyring.lifecycle.versions.map(\.version).filter { isSource($0, of: .rewrap, from: job.progress.version) })
        let range =
            RecordKey(.envelope, job.cursor + 1)...RecordKey(.envelope, job.end, high: .max, low: .max)
        do {
            try store.scan(range, prefix: .max) { record, value in
                looked += 1
                if value.count >= 4, sources.contains(Envelope.version(value)) {
                    found.append((record.owner, [UInt8](value)))
                }
                guard looked < Self.scanLimit, found.count < Self.batchLimit else {
                    cursor = record.owner
                    return false
                }
                return true
            }
        } catch { throw TreeError(error) }
        return Page(found: found, cursor: cursor)
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
