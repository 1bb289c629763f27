public import Keyring
internal import Storage
internal import Threads

/// What is known of revocations after they have ended.
extension SecretTree {
    /// So many are remembered, the last one besides.
    static let earlierRevocationLimit = 255

    /// All that are remembered, the oldest first. The last one is `job(.revoke)`.
    public var revocations: [JobProgress] {
        let earlier = lock.reading { state.earlierRevocations.sorted { $0.key < $1.key }.map(\.value.progress) }
        let last = job(.revoke)
        return earlier + (last.state == .idle ? [] : [last])
    }

    /// The report on a revocation that has ended is written.
    public func noteReport(of revocation: JobProgress, now: Timestamp) throws(TreeError) {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            func isMeant(_ job: JobRecord) -> Bool {
                job.progress.version == revocation.version && job.progress.started == revocation.started
                    && !job.progress.state.isUnfinished
            }
            if var job = transaction.job(.revoke), isMeant(job) {
                job.progress.isReported = true
                return transaction.set(job)
            }
            guard let place = state.earlierRevocations.first(where: { isMeant($0.value) })?.key,
                var job = state.earlierRevocations[place]
            else { return }
            job.progress.isReported = true
            transaction.set(job, at: place)
        }
    }
}

extension Transaction {
    /// Puts the last revocation, which has ended, with the earlier ones, as another begins.
    mutating func keepRevocation() {
        guard let job = job(.revoke), job.progress.state != .idle else { return }
        let places = tree.state.earlierRevocations.keys.sorted()
        set(job, at: (places.last ?? 0) + 1)
        for place in places.dropLast(SecretTree.earlierRevocationLimit - 1) {
            delete(Self.revocation(place))
            earlierRevocations.updateValue(nil, forKey: place)
        }
    }

    fileprivate mutating func set(_ job: JobRecord, at place: UInt64) {
        seal(Self.revocation(place), byteCount: JobRecord.byteCount) { job.put(into: $0) }
        earlierRevocations.updateValue(job, forKey: place)
    }

    private static func revocation(_ place: UInt64) -> RecordKey {
        RecordKey(.job, UInt64(JobKind.revoke.rawValue), high: place)
    }
}
