public import Keyring
internal import Storage
internal import Synchronization
internal import Threads

/// Beginning, holding and ending jobs.
extension SecretTree {
    public func job(_ kind: JobKind) -> JobProgress {
        var progress = lock.reading { state.jobs[kind]?.progress } ?? JobProgress(kind: kind)
        if progress.state == .running { progress.obstacle = jobsRunner.obstacle(of: kind) }
        return progress
    }

    /// Begins a job. It goes on in the background, also over the end of this process, until it is done.
    ///
    /// - Parameters:
    ///   - version: Only what this KEK version guards; nil for all.
    ///   - scope: Only what lies below this node, or it alone; nil for everything. For `reencrypt`.
    /// - Throws: `.busy` if one of its kind is unfinished; `.key` with what the version's state says, if the job cannot
    ///   take what it guards.
    public func startJob(
        _ kind: JobKind, from version: KEKVersion? = nil, below scope: NodeID? = nil, now: Timestamp
    ) throws(TreeError) {
        let files = try scope.map { scope throws(TreeError) in try self.files(below: scope) }
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard state.jobs[kind]?.progress.state.isUnfinished != true else { throw .busy }
            if let version, let refusal = refusal(of: version, as: kind) { throw .key(refusal) }
            if let scope { _ = try transaction.node(scope) }
            var job = newJob(kind, version, scope, now)
            if let files { job.progress.total = UInt64(files.count) }
            transaction.forgetFailures(of: kind)
            transaction.set(job)
        }
        if let scope, let files {
            jobScope.withLock { $0 = JobScope(scope: scope.rawValue, started: now, files: files) }
        }
        jobsRunner.wake()
    }

    func newJob(_ kind: JobKind, _ version: KEKVersion?, _ scope: NodeID?, _ now: Timestamp) -> JobRecord {
        var job = JobRecord(JobProgress(kind: kind))
        job.progress.state = .running
        job.progress.version = version
        job.progress.started = now
        job.progress.total = UInt64(
            state.versionCounts.reduce(0) { sum, count in
                isSource(count.key, of: kind, from: version) ? sum + max(0, count.value) : sum
            })
        job.end = kind == .rewrap ? state.root.nextContent : state.root.nextNode
        job.scope = scope?.rawValue ?? 0
        job.newContents = state.root.nextContent
        return job
    }

    /// Whether a job takes what this version guards.
    func isSource(_ version: KEKVersion, of kind: JobKind, from wanted: KEKVersion?) -> Bool {
        guard wanted == nil || wanted == version, refusal(of: version, as: kind) == nil else { return false }
        return kind != .rewrap || version != keyring.lifecycle.primary
    }

    /// Why a job may not unwrap with a version: what is compromised is re-encrypted, and never wrapped anew.
    private func refusal(of version: KEKVersion, as kind: JobKind) -> KeyringError? {
        keyring.lifecycle.refusal(of: version, forReencryption: kind != .rewrap)
    }

    /// - Throws: `.notPermitted` unless it is running.
    public func pauseJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .paused, from: [.running], now)
    }

    /// - Throws: `.notPermitted` unless it is paused.
    public func resumeJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .running, from: [.paused], now)
        jobsRunner.wake()
    }

    /// What is done stays done.
    ///
    /// - Throws: `.notPermitted` unless it is running or paused.
    public func cancelJob(_ kind: JobKind, now: Timestamp) throws(TreeError) {
        try setState(of: kind, .cancelled, from: [.running, .paused], now)
        jobsRunner.wake()
    }

    private func setState(of kind: JobKind, _ new: JobState, from old: [JobState], _ now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard var job = state.jobs[kind], old.contains(job.progress.state) else { throw .notPermitted }
            job.progress.state = new
            if new == .cancelled {
                job.progress.ended = now
                // The old wraps and ciphertext of what is done.
                if job.progress.done > 0 { transaction.startErasing() }
            }
            transaction.set(job)
        }
    }

    /// Marks a KEK version compromised, which refuses its files at once, and begins to re-encrypt what it guarded; those
    /// files read again as they are done, flagged `needsRegeneration`. If it is the primary, a new one is made first.
    ///
    /// - Throws: `.busy` if a revocation is unfinished; `.key` with what the state machine refuses.
    public func revoke(_ version: KEKVersion, reason: String, now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            guard state.jobs[.revoke]?.progress.state.isUnfinished != true else { throw .busy }
            let lifecycle = try transaction.changeKeys { lifecycle throws(LifecycleError) in
                if lifecycle.primary == version { _ = try lifecycle.rotate(now: now) }
                try lifecycle.compromise(version, reason: reason, now: now)
            }
            transaction.keepRevocation()
            transaction.forgetFailures(of: .revoke)
            var job = newJob(.revoke, version, nil, now)
            // Counted by hand: the version is not compromised before this transaction is.
            job.progress.total = UInt64(max(0, state.versionCounts[version] ?? 0))
            job.progress.successor = lifecycle.primary
            transaction.set(job)
        }
        jobsRunner.wake()
        try sync()
    }
}

/// Jobs as a transaction finds and leaves them.
extension Transaction {
    mutating func set(_ job: JobRecord) {
        seal(RecordKey(.job, UInt64(job.progress.kind.rawValue)), byteCount: JobRecord.byteCount) { job.put(into: $0) }
        jobs[job.progress.kind] = job
    }

    func job(_ kind: JobKind) -> JobRecord? { jobs[kind] ?? tree.state.jobs[kind] }

    /// The job as this transaction will leave it, if it is running.
    func running(_ kind: JobKind) -> JobRecord? {
        guard let job = job(kind), job.progress.state == .running else { return nil }
        return job
    }

    /// Has what is left in the store's files of what this transaction changes or drops, and of everything before, erased
    /// in the background.
    mutating func startErasing() {
        var job = JobRecord(JobProgress(kind: .erase))
        job.progress.state = .running
        job.progress.started = now
        job.isErasing = true
        set(job)
    }

    /// After a change of the keys another version may be the primary, or a source.
    mutating func haveJobsLookAgain() {
        for kind in JobKind.byUrgency where kind != .erase { haveLookAgain(kind) { _ in true } }
    }

    /// After a content has come to another node than the one it was made for.
    mutating func haveJobsLookAgain(at node: NodeRecord) {
        let content = node.attributes.content
        guard content != 0 else { return }
        for kind in [JobKind.revoke, .reencrypt] {
            haveLookAgain(kind) { job in
                node.attributes.id.rawValue <= job.cursor && (kind == .revoke || content < job.newContents)
            }
        }
    }

    private mutating func haveLookAgain(_ kind: JobKind, if isConcerned: (JobRecord) -> Bool) {
        guard var job = job(kind), job.progress.state.isUnfinished, !job.looksAgain, isConcerned(job) else { return }
        job.looksAgain = true
        set(job)
    }

    /// A job has gone through everything: it begins anew if it has to, and else has what is left of the old erased.
    mutating func endPass(_ job: inout JobRecord) {
        let state = tree.state
        var isWhole = !job.looksAgain
        if isWhole, job.progress.kind == .revoke, let version = job.progress.version {
            // A value that was being gathered under it when it was revoked may have become a file's. As long as a
            // pass finds such, there is another.
            let left = (state.versionCounts[version] ?? 0) + (versionChanges[version] ?? 0)
            isWhole = left <= 0 || job.progress.done == job.doneBefore
        }
        guard !isWhole else {
            job.isErasing = true
            return
        }
        // Something may have come to lie in its scope meanwhile.
        tree.jobScope.withLock { $0 = nil }
        job.looksAgain = false
        job.isErasing = false
        job.cursor = 0
        job.end = job.progress.kind == .rewrap ? root.nextContent : root.nextNode
        job.doneBefore = job.progress.done
        job.progress.failed = 0
        forgetFailures(of: job.progress.kind)
    }
}
