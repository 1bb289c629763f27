internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// Rewrapping: envelopes in the order of their contents' numbers, a batch a transaction.
extension SecretTree {
    /// So many envelopes are looked at in one batch.
    private static let scanLimit = 4096
    private static let limits = JobLimits(files: 512, lockedFiles: 96)

    func rewrapBatch(now: Timestamp) throws(TreeError) {
        _ = try carryOn(.rewrap, now: now, makesContents: false, Self.limits) { job throws(TreeError) in
            try contentsToRewrap(job)
        } _: { (transaction: inout Transaction, job, item, _) throws(TreeError) in
            transaction.rehearsal?.note(RecordKey(.envelope, item.number), item.value)
            return try transaction.rewrap(item.number, from: job.progress.version)
        }
    }

    /// The next contents whose wrap is not the primary's, with their envelopes.
    private func contentsToRewrap(_ job: JobRecord) throws(TreeError) -> JobPage {
        var page = JobPage()
        guard job.cursor < job.end else { return page }
        var looked = 0
        let sources = Set(
            keyring.lifecycle.versions.map(\.version).filter { isSource($0, of: .rewrap, from: job.progress.version) })
        let range =
            RecordKey(.envelope, job.cursor + 1)...RecordKey(.envelope, job.end, high: .max, low: .max)
        do {
            try store.scan(range, prefix: .max) { record, value in
                looked += 1
                if value.count >= 4, sources.contains(Envelope.version(value)) {
                    page.items.append(JobPage.Item(number: record.owner, value: [UInt8](value)))
                }
                guard looked < Self.scanLimit, page.items.count < Self.limits.files else {
                    page.cursor = record.owner
                    return false
                }
                return true
            }
        } catch { throw TreeError(error) }
        return page
    }
}

extension Transaction {
    /// Wraps a content's DEK under the primary version, if there is still anything to do.
    fileprivate mutating func rewrap(_ content: UInt64, from wanted: KEKVersion?) throws(TreeError) -> JobOutcome {
        let record = RecordKey(.envelope, content)
        do throws(TreeError) {
            guard let old = try version(ofContent: content), tree.isSource(old, of: .rewrap, from: wanted) else {
                return .nothing
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
            return .done
        } catch {
            guard let reason = JobFailure.Reason(error), reason != .storage else { throw error }
            return .failed(JobFailure(node: nil, content: content, reason: reason))
        }
    }
}
