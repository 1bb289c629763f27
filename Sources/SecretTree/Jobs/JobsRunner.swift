internal import Glibc
internal import Keyring
internal import Sodium
internal import Storage

/// The thread that carries jobs on, a batch at a time, one kind after the other.
final class JobsRunner: @unchecked Sendable {
    private static let stackByteCount = 512 << 10
    private let condition: UnsafeMutablePointer<pthread_cond_t>
    private let mutex: UnsafeMutablePointer<pthread_mutex_t>
    // Guarded by `mutex`.
    private var isAwake = false
    private var stops = false
    private var isRunning = false
    private var step: (() -> Bool)?

    init() {
        condition = .allocate(capacity: 1)
        mutex = .allocate(capacity: 1)
        pthread_cond_init(condition, nil)
        pthread_mutex_init(mutex, nil)
    }

    deinit {
        pthread_cond_destroy(condition)
        pthread_mutex_destroy(mutex)
        condition.deallocate()
        mutex.deallocate()
    }

    /// Calls `step` until it answers that there is nothing to do, and again whenever it is woken.
    func start(_ step: @escaping () -> Bool) {
        locked {
            guard !isRunning, !stops else { return }
            self.step = step
            isAwake = true
            isRunning = SecretStack.startThread(byteCount: Self.stackByteCount) { self.run() } == 0
        }
    }

    func wake() {
        locked {
            isAwake = true
            pthread_cond_broadcast(condition)
        }
    }

    /// True once `stop` was called: a long batch ends early.
    var isStopping: Bool { locked { stops } }

    /// Ends the thread after the batch that it is at.
    func stop() {
        locked {
            stops = true
            pthread_cond_broadcast(condition)
            while isRunning { pthread_cond_wait(condition, mutex) }
            step = nil
        }
    }

    private func run() {
        while let step = next() {
            while step(), !isStopping {
                // Whoever waits for the tree's lock gets it between two batches.
                sched_yield()
            }
        }
        locked {
            isRunning = false
            pthread_cond_broadcast(condition)
        }
    }

    private func next() -> (() -> Bool)? {
        locked {
            while !isAwake, !stops { pthread_cond_wait(condition, mutex) }
            isAwake = false
            return stops ? nil : step
        }
    }

    private func locked<R>(_ body: () -> R) -> R {
        pthread_mutex_lock(mutex)
        defer { pthread_mutex_unlock(mutex) }
        return body()
    }
}

extension SecretTree {
    /// Carries unfinished jobs on in the background, those of an earlier process too, until `close`.
    public func startJobs() {
        guard !isReadOnly else { return }
        jobsRunner.start { [weak self] in self?.workOnJobs() ?? false }
    }

    /// Does one batch of the first job that is running; false if there is none. For tests, and for the thread.
    @discardableResult
    public func workOnJobs() -> Bool {
        guard let kind = lock.reading({ JobKind.allCases.first { state.jobs[$0]?.progress.state == .running } }) else {
            return false
        }
        let now = Timestamp.now()
        do throws(TreeError) {
            switch kind {
            case .rewrap: try rewrapBatch(now: now)
            case .reencrypt, .revoke: try reencryptBatch(kind, now: now)
            }
            return true
        } catch {
            fail(kind, error, now: now)
            return true
        }
    }

    /// A job that cannot go on: a full disk holds it, anything else ends it. What is done stays done.
    private func fail(_ kind: JobKind, _ error: TreeError, now: Timestamp) {
        let isFull = if case .full = error { true } else { false }
        report(Problem(node: nil, description: "the \(kind) job \(isFull ? "is held by a full disk" : "has failed")"))
        do throws(TreeError) {
            try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
                guard var job = transaction.running(kind) else { return }
                transaction.freesSpace = true
                job.progress.state = isFull ? .paused : .failed
                if !isFull { job.progress.ended = now }
                transaction.set(job)
            }
        } catch {
            // Nothing can be written: the next start of the server tries again.
            lock.writing { state.jobs[kind]?.progress.state = isFull ? .paused : .failed }
        }
    }

    /// What a job leaves behind goes from the disk as well: the journal is folded, freed pages are cleared.
    func forgetOldCiphertext() {
        collectGarbage(now: .now())
        try? store.sync()
        try? store.fold()
        try? store.sync()
    }
}
