internal import Synchronization

/// All records of a store as of one moment, in key order, and the blocks of that moment, while others go on changing it.
///
/// Used by one thread at a time. Until it is ended, no block that is given up is used again.
public protocol StoreSnapshot: AnyObject {
    /// The next record; nil after the last one.
    func next() throws(StorageError) -> (key: RecordKey, value: [UInt8])?

    /// Reads one block.
    func readBlock(_ number: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError)
}

extension JournaledStore {
    public func snapshot() throws(StorageError) -> any StoreSnapshot {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        return try JournaledSnapshot(of: self)
    }
}

/// The table and the changes to it that are not folded, merged record by record.
private final class JournaledSnapshot: StoreSnapshot {
    private let store: JournaledStore
    private let walk: Walk
    private let changes: [(key: RecordKey, value: [UInt8]?)]
    private var position = 0

    init(of store: JournaledStore) throws(StorageError) {
        // First: what is dropped from this moment on stays.
        store.blocks.hold()
        do throws(StorageError) {
            (walk, changes) = try store.moment(of: RecordKey.first...RecordKey.last, prefix: .max)
        } catch {
            store.blocks.letGo()
            throw error
        }
        self.store = store
    }

    deinit {
        store.table.end(walk)
        store.blocks.letGo()
    }

    func next() throws(StorageError) -> (key: RecordKey, value: [UInt8])? {
        while position < changes.count, walk.key.map({ changes[position].key <= $0 }) ?? true {
            let change = changes[position]
            position += 1
            if walk.key == change.key { try walk.advance() }
            if let value = change.value { return (change.key, value) }
        }
        guard let key = walk.key else { return nil }
        let value = [UInt8](try walk.value())
        try walk.advance()
        return (key, value)
    }

    func readBlock(_ number: UInt64, into bytes: UnsafeMutableRawBufferPointer) throws(StorageError) {
        try store.blocks.read(at: number, into: bytes)
    }
}
