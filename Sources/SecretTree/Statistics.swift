internal import Storage
internal import Threads

/// How much room there is, for statfs(2). Bytes.
public struct TreeStatistics: Sendable {
    /// Of the disk that the store lies on.
    public var diskByteCount: UInt64
    /// What may still be filled of it.
    public var freeByteCount: UInt64
    /// Records, which is what the store counts its contents in.
    public var recordCount: UInt64
    public var fileCount: UInt64
}

extension SecretTree {
    public func statistics() throws(TreeError) -> TreeStatistics {
        let found: StoreStatistics
        do { found = try store.statistics() } catch { throw TreeError(error) }
        return lock.reading {
            TreeStatistics(
                diskByteCount: found.diskByteCount, freeByteCount: found.freeByteCount,
                recordCount: state.root.recordCount, fileCount: state.root.fileCount)
        }
    }
}
