internal import Synchronization
internal import Threads

/// Reading many records one after the other: what each alone costs is paid once. Used by one thread, for a short while:
/// until it is gone nothing that it may see can be erased.
public protocol ReadingSession: AnyObject {
    /// As `RecordStore.read`: the record as it is now, not as it was at the beginning.
    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R
}

extension JournaledStore {
    public func session() throws(StorageError) -> any ReadingSession {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        return TableSession(of: self, try table.takeReader())
    }

    public func relieve() throws(StorageError) {
        // The fold that is under way first, then what was written meanwhile.
        if journalLength.load(ordering: .relaxed) > Self.journalLimit / 2 { try fold() }
    }
}

/// A transaction of reads on the table, begun anew when a fold has taken changes from memory to it.
private final class TableSession: ReadingSession {
    private let store: JournaledStore
    private let reader: Reader

    init(of store: JournaledStore, _ reader: Reader) {
        self.store = store
        self.reader = reader
    }

    deinit { store.table.giveBack(reader) }

    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        let (change, now) = store.overlayLock.locked {
            (store.overlay.value(of: key) ?? store.frozen?.value(of: key), store.generation)
        }
        switch change {
        case .some(.some(let value)): return value.withUnsafeBytes { body($0) }
        case .some(nil): return body(nil)
        case nil:
            try reader.begin(now)
            return try reader.read(key, body)
        }
    }
}
