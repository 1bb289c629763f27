internal import Keyring
internal import Storage
internal import Synchronization
internal import Threads

/// Collecting what a dropped content leaves: its maps and blocks, in transactions small enough that nobody waits.
extension SecretTree {
    /// 16 MiB of blocks a transaction.
    private static let mapsPerBatch = 256

    /// Collects all there is. Another thread that is at it is left to it.
    func collectGarbage(now: Timestamp) {
        while !jobsRunner.isStopping, let content = lock.reading({ state.garbage.first }) {
            guard collecting.withLockIfAvailable({ _ in collect(content, now: now) }) == true else { return }
        }
    }

    /// One batch of one content; false if it failed, to be tried again later.
    private func collect(_ content: UInt64, now: Timestamp) -> Bool {
        do {
            try perform(now: now) { (transaction: inout Transaction) throws(TreeError) in
                transaction.freesSpace = true
                transaction.isAside = true
                let records = try firstKeys(Self.mapsPerBatch, in: .all(.map, of: content))
                for record in records {
                    // A damaged map's blocks are found free at the next opening.
                    let blocks = try? read(record) { value in
                        value.flatMap { seals.records.open(record, $0) { BlockMap($0, index: record.high)?.blocks } }
                    }
                    transaction.releasedBlocks += (blocks ?? nil) ?? []
                    transaction.delete(record)
                }
                if records.count < Self.mapsPerBatch {
                    transaction.delete(RecordKey(.garbage, content))
                    transaction.endedGarbage.append(content)
                }
            }
            return true
        } catch { return false }
    }

    func firstKeys(_ count: Int, in range: ClosedRange<RecordKey>) throws(TreeError) -> [RecordKey] {
        var keys: [RecordKey] = []
        do {
            try store.scan(range, prefix: 0) { record, _ in
                keys.append(record)
                return keys.count < count
            }
        } catch { throw TreeError(error) }
        return keys
    }
}
