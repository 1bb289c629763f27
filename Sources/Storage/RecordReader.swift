/// A connection for reading, with its statements.
final class Reader {
    let connection: Connection
    private let get: Statement
    private let begin: Statement
    private let rollback: Statement
    /// How many folds had ended, at the least, when the transaction began that is open; nil if none is.
    private var generation: Int?
    /// By what they select of the value: nothing, a prefix, all.
    private lazy var walks: [Statement?] = [nil, nil, nil]

    init(_ connection: Connection) throws(StorageError) {
        self.connection = connection
        // The inner pages of a large table; the kernel has the others. There may be a reader for each worker.
        try connection.execute("PRAGMA cache_size = -512")
        get = try connection.prepare("SELECT value FROM record WHERE key = ?1")
        begin = try connection.prepare("BEGIN")
        rollback = try connection.prepare("ROLLBACK")
    }

    /// Reads from now on as of a moment when so many folds had ended, or a later one. The transaction stays open: to begin
    /// one for each record costs more than to read it.
    func begin(_ now: Int) throws(StorageError) {
        guard generation != now else { return }
        endTransaction()
        _ = try begin.step()
        begin.reset()
        generation = now
    }

    func endTransaction() {
        guard generation != nil else { return }
        generation = nil
        // It fails if an error has ended the transaction, which is as good.
        _ = try? rollback.step()
        rollback.reset()
    }

    func read<R>(_ key: RecordKey, _ body: (UnsafeRawBufferPointer?) -> R) throws(StorageError) -> R {
        get.bind(1, key)
        defer { get.reset() }
        guard try get.step() else { return body(nil) }
        guard let value = get.bytes(0) else {
            throw .corrupt("\(connection.path): a record is not a byte string")
        }
        return body(value)
    }

    func walkStatement(prefix: Int) throws(StorageError) -> Statement {
        // SQLite's substr makes NULL of an empty value.
        let kind = prefix <= 0 ? 0 : prefix == .max ? 2 : 1
        if let statement = walks[kind] { return statement }
        let column = ["x''", "ifnull(substr(value, 1, ?3), x'')", "value"][kind]
        let statement = try connection.prepare(
            "SELECT key, \(column) FROM record WHERE key BETWEEN ?1 AND ?2 ORDER BY key")
        walks[kind] = statement
        return statement
    }
}

/// A walk through a range of records in key order. It stands on its first record when it is made.
final class Walk {
    let reader: Reader
    let statement: Statement
    /// The record it stands on; nil at the end.
    private(set) var key: RecordKey?

    init(_ reader: Reader, _ range: ClosedRange<RecordKey>, _ prefix: Int) throws(StorageError) {
        self.reader = reader
        statement = try reader.walkStatement(prefix: prefix)
        statement.bind(1, range.lowerBound)
        statement.bind(2, range.upperBound)
        if prefix > 0, prefix != .max { statement.bind(3, Int64(prefix)) }
        try advance()
    }

    func advance() throws(StorageError) {
        guard try statement.step() else {
            key = nil
            return
        }
        guard let bytes = statement.bytes(0), let found = RecordKey(bytes), key.map({ $0 < found }) ?? true else {
            statement.reset()
            throw .corrupt("\(reader.connection.path): a record has no proper key, or a wrong place")
        }
        key = found
    }

    /// The value of the record it stands on, valid until it advances.
    func value() throws(StorageError) -> UnsafeRawBufferPointer {
        guard let value = statement.bytes(1) else {
            throw .corrupt("\(reader.connection.path): a record is not a byte string")
        }
        return value
    }
}
