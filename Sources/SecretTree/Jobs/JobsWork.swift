internal import Glibc
internal import Keyring
internal import Storage
internal import Synchronization
internal import Threads

/// Carrying jobs on: the most urgent one, a batch at a time.
extension SecretTree {
    /// How long a job waits for what it cannot go on without (milliseconds).
    private static let fullDiskDelay = 1000
    private static let readersDelay = 200

    /// Carries unfinished jobs on in the background, those of an earlier process too, until `close`.
    public func startJobs() {
        guard !isReadOnly else { return }
        jobsRunner.start { [weak self] in self?.stepInBackground() ?? .wait(nil) }
    }

    private func stepInBackground() -> JobsRunner.Step {
        // Of a store that cannot be trusted nothing is changed, and nothing erased.
        guard (try? soundness.wait()) != nil else { return .wait(nil) }
        if inheritsHolds, isInOrder.compareExchange(expected: false, desired: true, ordering: .relaxed).exchanged {
            // What fails now is tried again at the next opening.
            try? putInOrder(now: .now())
        }
        return stepOfJobs()
    }

    /// Does one batch of the most urgent job; false if there is nothing to do at the moment. For tests.
    @discardableResult
    public func workOnJobs() -> Bool { stepInBackground() == .again }

    /// The most urgent job that runs and need not wait. With the lock held.
    var nextJob: JobKind? {
        JobKind.byUrgency.first { state.jobs[$0]?.progress.state == .running && jobsRunner.delay(of: $0) == 0 }
    }

    private func stepOfJobs() -> JobsRunner.Step {
        let (next, delays) = lock.reading {
            let waiting = JobKind.allCases.filter { state.jobs[$0]?.progress.state == .running }
            return (nextJob, waiting.map { jobsRunner.delay(of: $0) })
        }
        guard let kind = next else { return .wait(delays.min()) }
        let now = Timestamp.now()
        do throws(TreeError) {
            if lock.reading({ state.jobs[kind]?.isErasing == true }) {
                try endJob(kind, now: now)
            } else {
                switch kind {
                case .rewrap: try rewrapBatch(now: now)
                case .reencrypt, .revoke: try reencryptBatch(kind, now: now)
                case .erase: break
                }
                jobsRunner.goOn(kind)
            }
        } catch { fail(kind, error, now: now) }
        return .again
    }

    /// Erases what a job has left in the store's files. Only then it is done.
    private func endJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        let dropped = lock.reading { state.garbage }
        collectGarbage(now: now)
        guard lock.reading({ state.garbage.isDisjoint(with: dropped) }) else {
            return jobsRunner.hold(kind, "old contents are still being dropped", milliseconds: Self.readersDelay)
        }
        Failpoint.reach()
        do { try store.eraseRemains() } catch {
            if case .io(EBUSY, let what) = error {
                return jobsRunner.hold(kind, what, milliseconds: Self.readersDelay)
            }
            throw TreeError(error)
        }
        jobsRunner.goOn(kind)
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard var job = transaction.running(kind), job.isErasing else { return }
            if job.looksAgain {
                transaction.endPass(&job)
            } else {
                job.progress.state = .done
                job.progress.ended = now
            }
            transaction.set(job)
        }
        if kind == .reencrypt { jobScope.withLock { $0 = nil } }
        if job(kind).state == .done { observer.withLock { $0 }?.ended(kind) }
    }

    /// A job that cannot go on: on a full disk it waits for space, anything else ends it. What is done stays done.
    private func fail(_ kind: JobKind, _ error: TreeError, now: Timestamp) {
        if case .full = error {
            return jobsRunner.hold(kind, "the disk is full", milliseconds: Self.fullDiskDelay)
        }
        report(Problem(node: nil, description: "the \(kind) job has failed: \(error.reason)", isDamage: false))
        do throws(TreeError) {
            try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
                guard var job = transaction.running(kind) else { return }
                transaction.freesSpace = true
                job.progress.state = .failed
                job.progress.ended = now
                transaction.set(job)
            }
        } catch {
            // Nothing can be written: the next start of the server tries again.
            lock.writing { state.jobs[kind]?.progress.state = .failed }
        }
        observer.withLock { $0 }?.ended(kind)
    }
}
