internal import Keyring
internal import Storage
internal import Threads

/// What a batch of a job has come to.
struct JobBatch {
    /// Files done, and files that could not be.
    var done: UInt64 = 0
    var failed: UInt64 = 0
    /// Which those are.
    var failures: [JobFailure] = []
    /// Everything up to here is gone through.
    var cursor: UInt64
    /// And that is all there is.
    var isEnd = false
    /// It stopped at a file that takes more than one transaction.
    var large: NodeID?

    init(after cursor: UInt64) { self.cursor = cursor }

    mutating func fail(_ failure: JobFailure) {
        failed += 1
        failures.append(failure)
    }
}

extension SecretTree {
    /// Does a batch of a job: beside everyone else, and if something came between, with all waiting for it who change
    /// something. Readers wait only while it takes effect.
    ///
    /// - Parameters:
    ///   - contents: How many contents it makes at most.
    ///   - work: Does the batch, or as much of it as others may wait for. May be called more than once.
    /// - Returns: the large file that comes next, if one does.
    func carryOn(
        _ kind: JobKind, now: Timestamp, contents: Int = 0,
        _ work: (inout Transaction, JobRecord, inout JobBatch) throws(TreeError) -> Void
    ) throws(TreeError) -> NodeID? {
        do { try store.relieve() } catch { throw TreeError(error) }
        guard let begun = lock.reading({ state.jobs[kind] }) else { return nil }
        var batch = JobBatch(after: begun.cursor)
        let rehearsed = try rehearse(now: now, contents: contents) {
            (transaction: inout Transaction) throws(TreeError) in
            try work(&transaction, begun, &batch)
        }
        defer { endRehearsal() }
        var large: NodeID?
        try changeBesideReaders(now: now) { (transaction: inout Transaction) throws(TreeError) in
            large = nil
            // Not one that was begun anew meanwhile.
            guard var job = transaction.running(kind), job.cursor == begun.cursor,
                job.progress.started == begun.progress.started
            else { return }
            var done = batch
            if rehearsed.map({ !transaction.take($0) }) ?? true {
                done = JobBatch(after: job.cursor)
                try work(&transaction, job, &done)
            }
            job.cursor = done.cursor
            job.progress.done += done.done
            job.progress.failed += done.failed
            transaction.note(done.failures, of: kind)
            job.progress.total = max(job.progress.total, job.progress.done + job.progress.failed)
            if done.isEnd { transaction.endPass(&job) }
            transaction.set(job)
            large = done.large
        }
        return large
    }
}
