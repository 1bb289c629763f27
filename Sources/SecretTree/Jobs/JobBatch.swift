internal import Keyring
internal import Storage
internal import Threads

/// What a job looks at next.
struct JobPage {
    struct Item {
        /// Of a node, or of a content.
        var number: UInt64
        /// Its record, if that was found with it.
        var value: [UInt8] = []
    }

    /// In the order of their numbers.
    var items: [Item] = []
    /// The number up to which that is all there is; nil for the end.
    var cursor: UInt64?
}

/// What became of one file.
enum JobOutcome: Equatable {
    case done
    case failed(JobFailure)
    /// It is new, or gone, or not the job's.
    case nothing
    /// It lies in blocks and takes more than one transaction.
    case isLarge
    /// The job is held, the tree closed.
    case held
}

/// So many files and bytes are done in one transaction: by one that nobody waits for, and by one that holds up others who
/// change something.
struct JobLimits {
    var files: Int
    var bytes = Int.max
    var lockedFiles: Int
    var lockedBytes = Int.max
}

/// What a batch of a job has come to.
struct JobBatch {
    /// Files done, and which could not be.
    var done: UInt64 = 0
    var failures: [JobFailure] = []
    /// Everything up to here is gone through.
    var cursor: UInt64
    /// And that is all there is.
    var isEnd = false
    /// It stopped at a file that takes more than one transaction.
    var large: NodeID?
}

/// Goes through a page: whoever works on it takes the next number that nobody has taken.
final class JobPageWork: @unchecked Sendable {
    private let page: JobPage
    private let start: UInt64
    private let (fileLimit, byteLimit): (Int, Int)
    private let monitor = Monitor()
    // Touched within `monitor.locked` alone.
    private var next = 0
    private var byteCount = 0
    private var done: UInt64 = 0
    private var failures: [(place: Int, failure: JobFailure)] = []
    private var large: Int?
    private var hasStopped = false

    init(_ page: JobPage, after start: UInt64, files: Int, bytes: Int) {
        self.page = page
        self.start = start
        (fileLimit, byteLimit) = (min(files, page.items.count), bytes)
    }

    /// - Parameter work: Does one of the page's, and adds the bytes that it had.
    func run(_ work: (JobPage.Item, inout Int) throws(TreeError) -> JobOutcome) throws(TreeError) {
        while let place = take() {
            var bytes = 0
            do throws(TreeError) {
                note(try work(page.items[place], &bytes), at: place, bytes)
            } catch {
                monitor.locked { hasStopped = true }
                throw error
            }
        }
    }

    private func take() -> Int? {
        monitor.locked {
            guard !hasStopped, next < fileLimit, byteCount < byteLimit else { return nil }
            next += 1
            return next - 1
        }
    }

    private func note(_ outcome: JobOutcome, at place: Int, _ bytes: Int) {
        monitor.locked {
            byteCount += bytes
            switch outcome {
            case .done: done += 1
            case .failed(let failure): failures.append((place, failure))
            case .nothing: break
            case .isLarge, .held:
                hasStopped = true
                if outcome == .isLarge, place < large ?? .max { large = place }
            }
        }
    }

    /// What it has come to, once nobody works on it.
    var batch: JobBatch {
        monitor.locked {
            var batch = JobBatch(cursor: start)
            batch.done = done
            // What lies behind a large one is looked at again: who has failed there fails then, and who is done is done.
            let end = large ?? next
            batch.failures = failures.filter { $0.place < end }.sorted { $0.place < $1.place }.map(\.failure)
            if end > 0 { batch.cursor = page.items[end - 1].number }
            batch.large = large.map { NodeID(rawValue: page.items[$0].number) }
            // Everything up to the last one that was found is done, unless this stopped before.
            if end == page.items.count {
                batch.cursor = max(batch.cursor, page.cursor ?? batch.cursor)
                batch.isEnd = page.cursor == nil
            }
            return batch
        }
    }
}

extension SecretTree {
    /// Does a batch of a job: beside everyone else, and if something came between, with all waiting for it who change
    /// something. Readers wait only while it takes effect.
    ///
    /// - Parameters:
    ///   - makesContents: Each file may get a new one.
    ///   - page: What is next. If that is rehearsed, it is asked when it is already noted what others change.
    ///   - work: Does one of the page's, and adds the bytes that it had. Called by one thread or two, and for the same perhaps more
    ///     than once.
    /// - Returns: the large file that comes next, if one does.
    func carryOn(
        _ kind: JobKind, now: Timestamp, makesContents: Bool, _ limits: JobLimits,
        page: (JobRecord) throws(TreeError) -> JobPage,
        _ work: (inout Transaction, JobRecord, JobPage.Item, inout Int) throws(TreeError) -> JobOutcome
    ) throws(TreeError) -> NodeID? {
        do { try store.relieve() } catch { throw TreeError(error) }
        guard let begun = lock.reading({ state.jobs[kind] }), begun.progress.state == .running else { return nil }
        let start = beginRehearsal(now: now, contents: makesContents ? limits.files : 0)
        defer { endRehearsal() }
        let page = try page(begun)
        var beside: (batch: JobBatch, changes: [Rehearsed])?
        if let start {
            let all = JobPageWork(page, after: begun.cursor, files: limits.files, bytes: limits.bytes)
            // A second busy thread would have applications wait for a processor.
            let changes = try rehearse(start, with: demand.isHigh ? nil : jobsRunner.companion) {
                (transaction: inout Transaction) throws(TreeError) in
                try all.run { item, bytes throws(TreeError) in
                    try transaction.step { (transaction: inout Transaction) throws(TreeError) in
                        try work(&transaction, begun, item, &bytes)
                    }
                }
            }
            beside = (all.batch, changes)
        }
        var large: NodeID?
        try changeBesideReaders(now: now) { (transaction: inout Transaction) throws(TreeError) in
            large = nil
            // Not one that was begun anew meanwhile.
            guard var job = transaction.running(kind), job.cursor == begun.cursor,
                job.progress.started == begun.progress.started
            else { return }
            let done: JobBatch
            if let beside, transaction.take(beside.changes) {
                done = beside.batch
            } else {
                let all = JobPageWork(page, after: job.cursor, files: limits.lockedFiles, bytes: limits.lockedBytes)
                try all.run { item, bytes throws(TreeError) in try work(&transaction, job, item, &bytes) }
                done = all.batch
            }
            job.cursor = done.cursor
            job.progress.done += done.done
            job.progress.failed += UInt64(done.failures.count)
            transaction.note(done.failures, of: kind)
            job.progress.total = max(job.progress.total, job.progress.done + job.progress.failed)
            if done.isEnd { transaction.endPass(&job) }
            transaction.set(job)
            large = done.large
        }
        return large
    }
}
