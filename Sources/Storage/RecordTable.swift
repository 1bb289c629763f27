internal import Glibc
internal import Threads

/// The records as of the last fold, in an SQLite database.
///
/// Any number of threads may read, each by a connection of its own from a pool, while one folds.
final class RecordTable: @unchecked Sendable {
    static let fileName = "records.sqlite"
    private static let applicationID: Int64 = 0x4C4C_434B
    private static let format: Int64 = 1
    private static let schema = [
        ["table", "progress", "CREATE TABLE progress(id INTEGER PRIMARY KEY, sequence INTEGER NOT NULL)"],
        [
            "table", "record",
            "CREATE TABLE record(key BLOB NOT NULL PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        ],
    ]
    private static let idleReaderLimit = 16

    private let path: String
    private let mode: Connection.Mode
    /// Used by the one who folds, under the store's fold lock; nil if the store is read-only or closed.
    private var writer: Writer?
    /// Guards the three below.
    private let lock = Monitor()
    private var idleReaders: [Reader] = []
    private var isClosed = false
    /// How many want that no transaction is kept.
    private var keepers = 0

    private struct Writer {
        let connection: Connection
        let put: Statement
        let delete: Statement
        let progress: Statement

        func write(_ key: RecordKey, _ value: [UInt8]?) throws(StorageError) {
            guard let value else {
                delete.bind(1, key)
                _ = try delete.step()
                return delete.reset()
            }
            let result = value.withUnsafeBytes { bytes -> Result<Bool, StorageError> in
                put.bind(1, key)
                put.bind(2, bytes)
                return Result { () throws(StorageError) in try put.step() }
            }
            put.reset()
            _ = try result.get()
        }
    }

    /// Records of one kind: those that go and those that are put take turns, so that a page that one gives back is taken by
    /// the next one while it is in memory, and written once.
    private struct Turns {
        private var kind: UInt8 = 0
        private var deleted: [RecordKey] = []
        private var put: [(key: RecordKey, value: [UInt8])] = []

        mutating func take(_ key: RecordKey, _ value: [UInt8]?, _ writer: Writer) throws(StorageError) {
            if key.kind != kind {
                try end(writer)
                kind = key.kind
            }
            if let value { put.append((key, value)) } else { deleted.append(key) }
        }

        mutating func end(_ writer: Writer) throws(StorageError) {
            for index in 0..<max(deleted.count, put.count) {
                if index < deleted.count { try writer.write(deleted[index], nil) }
                if index < put.count { try writer.write(put[index].key, put[index].value) }
            }
            deleted.removeAll(keepingCapacity: true)
            put.removeAll(keepingCapacity: true)
        }
    }

    /// Opens a store's table and checks that it is one.
    init(in directory: String, readOnly: Bool) throws(StorageError) {
        path = directory + "/" + Self.fileName
        mode = readOnly ? (Self.logIsEmpty(path) ? .immutable : .alone) : .read
        let connection = try Connection(path, readOnly ? mode : .readWrite)
        try Self.check(connection)
        guard !readOnly else { return }
        try Self.configure(connection)
        writer = Writer(
            connection: connection,
            put: try connection.prepare("INSERT OR REPLACE INTO record(key, value) VALUES(?1, ?2)"),
            delete: try connection.prepare("DELETE FROM record WHERE key = ?1"),
            progress: try connection.prepare("UPDATE progress SET sequence = ?1"))
    }

    /// Makes an empty table in a file of that path, which must be there and empty.
    static func create(at path: String) throws(StorageError) {
        let connection = try Connection(path, .readWrite)
        try connection.execute("PRAGMA page_size = 4096")
        try configure(connection)
        try connection.execute("BEGIN IMMEDIATE")
        for table in schema { try connection.execute(table[2]) }
        try connection.execute(
            """
            INSERT INTO progress(id, sequence) VALUES(1, 0);
            PRAGMA application_id = \(applicationID); PRAGMA user_version = \(format); COMMIT
            """)
        try connection.checkpoint()
    }

    private static func configure(_ connection: Connection) throws(StorageError) {
        guard try connection.texts("PRAGMA journal_mode = WAL") == [["wal"]] else {
            throw .io(ENOTSUP, "\(connection.path): no write-ahead log is possible here")
        }
        try connection.execute(
            """
            PRAGMA synchronous = FULL; PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 0;
            PRAGMA cache_size = -4096
            """)
    }

    /// Nothing but what a store of this format holds is let in: no view, trigger or index of somebody else's.
    private static func check(_ connection: Connection) throws(StorageError) {
        guard try connection.number("PRAGMA application_id") == applicationID else {
            throw .notAStore("\(connection.path) was not written by letterlock")
        }
        let format = try connection.number("PRAGMA user_version")
        guard format <= Self.format else { throw .newerFormat(Int(format)) }
        guard format == Self.format else { throw .corrupt("\(connection.path): unknown format \(format)") }
        guard try connection.texts("SELECT type, name, sql FROM sqlite_schema ORDER BY name") == schema else {
            throw .corrupt("\(connection.path): it has a schema of its own")
        }
        guard try connection.number("SELECT count(*) FROM progress WHERE id = 1 AND sequence >= 0") == 1
        else {
            throw .corrupt("\(connection.path): what is folded is not recorded")
        }
    }

    private static func logIsEmpty(_ path: String) -> Bool {
        var status = stat()
        return lstat(path + "-wal", &status) != 0 || status.st_size == 0
    }

    // MARK: Reading

    /// - Parameter generation: how many folds had ended, at the least, when it was found that the record is in the table.
    func read<R>(
        _ key: RecordKey, asOf generation: Int, _ body: (UnsafeRawBufferPointer?) -> R
    ) throws(StorageError) -> R {
        let reader = try takeReader()
        defer { giveBack(reader) }
        try reader.begin(generation)
        return try reader.read(key, body)
    }

    /// A walk through a range, all as of the moment it was made. To be ended by `end`.
    ///
    /// - Parameter generation: how many folds have ended; nil for a moment from now on.
    func walk(
        _ range: ClosedRange<RecordKey>, prefix: Int, asOf generation: Int? = nil
    ) throws(StorageError) -> Walk {
        let reader = try takeReader()
        do {
            if let generation { try reader.begin(generation) } else { reader.endTransaction() }
            return try Walk(reader, range, prefix)
        } catch {
            giveBack(reader)
            throw error
        }
    }

    func end(_ walk: Walk) {
        walk.statement.reset()
        giveBack(walk.reader)
    }

    func foldedSequence() throws(StorageError) -> UInt64 {
        let reader = try takeReader()
        defer { giveBack(reader) }
        reader.endTransaction()
        return UInt64(try reader.connection.number("SELECT sequence FROM progress"))
    }

    func integrityCheck() throws(StorageError) -> [String] {
        let reader = try takeReader()
        defer { giveBack(reader) }
        reader.endTransaction()
        let lines = try reader.connection.texts("PRAGMA integrity_check").map { $0.joined() }
        return lines == ["ok"] ? [] : lines
    }

    /// One that is, perhaps, in a transaction of an earlier time.
    func takeReader() throws(StorageError) -> Reader {
        let idle = try lock.locked { () throws(StorageError) -> Reader? in
            guard !isClosed else { throw .closed }
            return idleReaders.popLast()
        }
        if let idle { return idle }
        return try Reader(Connection(path, mode))
    }

    func giveBack(_ reader: Reader) {
        lock.locked {
            if keepers > 0 { reader.endTransaction() }
            if !isClosed, idleReaders.count < Self.idleReaderLimit { idleReaders.append(reader) }
        }
    }

    // MARK: Folding

    /// Makes the changes and notes the sequence they lead to, in one durable transaction.
    func fold(_ records: OrderedRecords, sequence: UInt64) throws(StorageError) {
        guard let writer else { throw .closed }
        try writer.connection.execute("BEGIN IMMEDIATE")
        do {
            var turns = Turns()
            try records.visit(RecordKey.first...RecordKey.last) { (key, value) throws(StorageError) -> Bool in
                try turns.take(key, value, writer)
                return true
            }
            try turns.end(writer)
            writer.progress.bind(1, Int64(sequence))
            _ = try writer.progress.step()
            writer.progress.reset()
            try writer.connection.execute("COMMIT")
        } catch {
            // A transaction that a full disk has ended already is none to roll back.
            try? writer.connection.execute("ROLLBACK")
            // What it wrote to the log must not be what fills the disk.
            try? checkpoint()
            throw error
        }
    }

    /// Moves what is folded from SQLite's log into its file, as far as readers let it.
    func checkpoint() throws(StorageError) {
        try withoutKeptTransactions { () throws(StorageError) in try writer?.connection.checkpoint() }
    }

    /// While `body` runs no reader keeps a transaction that nobody reads in: it would keep the log from being emptied.
    func withoutKeptTransactions<R>(_ body: () throws(StorageError) -> R) throws(StorageError) -> R {
        lock.locked {
            keepers += 1
            for reader in idleReaders { reader.endTransaction() }
        }
        defer { lock.locked { keepers -= 1 } }
        return try body()
    }

    /// After a fold: the pages that it changed would be kept until the next one.
    func forgetPages() { writer?.connection.forgetPages() }

    /// The connection that folds, under the store's fold lock; nil if there is none.
    var writingConnection: Connection? { writer?.connection }

    func close() {
        lock.locked {
            isClosed = true
            idleReaders = []
        }
        try? checkpoint()
        writer = nil
    }
}
