internal import CSQLite
internal import Glibc

/// A connection to a database: used by one thread at a time.
final class Connection {
    enum Mode {
        case readWrite
        /// Reads beside a writer of this process.
        case read
        /// The file does not change while it is open and has nothing in its write-ahead log.
        case immutable
        /// Nobody writes while it is open, and it takes no lock and makes no file: each connection reads the
        /// write-ahead log for itself.
        case alone
    }

    let handle: OpaquePointer
    let path: String

    /// Done once, before SQLite is used; where somebody has used it already it changes nothing.
    private static let isConfigured = ll_sqlite_without_statistics() == SQLITE_OK

    /// - Parameter path: absolute and without symbolic links; the file must exist.
    init(_ path: String, _ mode: Mode) throws(StorageError) {
        _ = Self.isConfigured
        self.path = path
        var flags = SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI | SQLITE_OPEN_NOFOLLOW | SQLITE_OPEN_PRIVATECACHE
        var address = "file:"
        for byte in path.utf8 {
            switch byte {
            case 0x2F, 0x30...0x39, 0x41...0x5A, 0x61...0x7A:
                address.unicodeScalars.append(Unicode.Scalar(byte))
            default: address += "%" + Self.hexadecimal(byte >> 4) + Self.hexadecimal(byte & 15)
            }
        }
        var system: String?
        switch mode {
        case .readWrite, .read: flags |= SQLITE_OPEN_READWRITE
        case .immutable:
            flags |= SQLITE_OPEN_READONLY
            address += "?immutable=1"
        case .alone:
            flags |= SQLITE_OPEN_READONLY
            system = "unix-none"
        }
        var opened: OpaquePointer?
        let code = sqlite3_open_v2(address, &opened, flags, system)
        guard code == SQLITE_OK, let opened else {
            let error = StorageError(sqlite: code, opened, path)
            sqlite3_close_v2(opened)
            throw error
        }
        handle = opened
        sqlite3_extended_result_codes(handle, 1)
        _ = ll_sqlite_config(handle, SQLITE_DBCONFIG_DEFENSIVE, 1)
        _ = ll_sqlite_config(handle, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0)
        _ = ll_sqlite_config(handle, SQLITE_DBCONFIG_ENABLE_VIEW, 0)
        _ = ll_sqlite_config(handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        if mode != .readWrite { _ = ll_sqlite_config(handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1) }
        if mode == .read { sqlite3_busy_timeout(handle, 5000) }
        if mode == .alone { try execute("PRAGMA locking_mode = EXCLUSIVE") }
        try execute("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA temp_store = MEMORY")
        // There is one for each thread that reads, and the kernel has the pages anyway (KiB).
        if mode != .readWrite { try execute("PRAGMA query_only = ON; PRAGMA cache_size = -256") }
    }

    deinit { sqlite3_close_v2(handle) }

    private static func hexadecimal(_ digit: UInt8) -> String { String(digit, radix: 16) }

    func execute(_ sql: String) throws(StorageError) {
        let code = sqlite3_exec(handle, sql, nil, nil, nil)
        guard code == SQLITE_OK else { throw error(code) }
    }

    func prepare(_ sql: String) throws(StorageError) -> Statement {
        var statement: OpaquePointer?
        let code = sqlite3_prepare_v3(handle, sql, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, nil)
        guard code == SQLITE_OK, let statement else { throw error(code) }
        return Statement(statement, self)
    }

    /// The first column of the first row, as a number.
    func number(_ sql: String) throws(StorageError) -> Int64 {
        let statement = try prepare(sql)
        guard try statement.step() else { throw .corrupt("\(path): no answer to \(sql)") }
        return statement.number(0)
    }

    /// The columns of all rows, as text.
    func texts(_ sql: String) throws(StorageError) -> [[String]] {
        let statement = try prepare(sql)
        var rows: [[String]] = []
        while try statement.step() { rows.append((0..<statement.columnCount).map(statement.text)) }
        return rows
    }

    /// Moves the write-ahead log into the database and empties it, as far as readers let it.
    func checkpoint() throws(StorageError) { _ = try checkpointWhole() }

    func error(_ code: Int32) -> StorageError { StorageError(sqlite: code, handle, path) }
}

/// A prepared statement. It keeps its connection open.
final class Statement {
    private let handle: OpaquePointer
    private let connection: Connection

    init(_ handle: OpaquePointer, _ connection: Connection) {
        self.handle = handle
        self.connection = connection
    }

    deinit { sqlite3_finalize(handle) }

    var columnCount: Int { Int(sqlite3_column_count(handle)) }

    /// True if there is a row.
    @inline(__always)
    func step() throws(StorageError) -> Bool {
        let code = sqlite3_step(handle)
        if code == SQLITE_ROW { return true }
        guard code == SQLITE_DONE else {
            let error = connection.error(code)
            sqlite3_reset(handle)
            throw error
        }
        return false
    }

    func reset() { sqlite3_reset(handle) }

    /// The bytes must stay in place until the statement has run.
    func bind(_ index: Int32, _ bytes: UnsafeRawBufferPointer) {
        let code =
            bytes.isEmpty
            ? sqlite3_bind_zeroblob(handle, index, 0)
            : sqlite3_bind_blob64(handle, index, bytes.baseAddress, UInt64(bytes.count), nil)
        precondition(code == SQLITE_OK, "internal error: a statement does not take its parameters")
    }

    /// A copy of the key is kept.
    func bind(_ index: Int32, _ key: RecordKey) {
        withUnsafeTemporaryAllocation(byteCount: RecordKey.byteCount, alignment: 8) { bytes in
            key.encode(into: bytes)
            let copied = unsafeBitCast(-1, to: sqlite3_destructor_type.self)
            let code = sqlite3_bind_blob(handle, index, bytes.baseAddress, Int32(RecordKey.byteCount), copied)
            precondition(code == SQLITE_OK, "internal error: a statement does not take its parameters")
        }
    }

    func bind(_ index: Int32, _ number: Int64) {
        let code = sqlite3_bind_int64(handle, index, number)
        precondition(code == SQLITE_OK, "internal error: a statement does not take its parameters")
    }

    func number(_ column: Int) -> Int64 { sqlite3_column_int64(handle, Int32(column)) }

    func text(_ column: Int) -> String {
        sqlite3_column_text(handle, Int32(column)).map { String(cString: $0) } ?? ""
    }

    /// The column's bytes, valid until the next step or reset; nil if it is not a byte string.
    func bytes(_ column: Int) -> UnsafeRawBufferPointer? {
        guard sqlite3_column_type(handle, Int32(column)) == SQLITE_BLOB else { return nil }
        let start = sqlite3_column_blob(handle, Int32(column))
        return UnsafeRawBufferPointer(start: start, count: Int(sqlite3_column_bytes(handle, Int32(column))))
    }
}

extension StorageError {
    fileprivate init(sqlite code: Int32, _ handle: OpaquePointer?, _ path: String) {
        let number = handle.map { sqlite3_system_errno($0) } ?? 0
        let message =
            handle.map { String(cString: sqlite3_errmsg($0)) } ?? String(cString: sqlite3_errstr(code))
        switch code & 0xFF {
        case SQLITE_FULL: self = .full
        case SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_ERROR, SQLITE_SCHEMA, SQLITE_MISMATCH, SQLITE_CONSTRAINT:
            self = .corrupt("\(path): \(message)")
        case SQLITE_READONLY: self = .readOnly
        case SQLITE_BUSY, SQLITE_LOCKED: self = .io(EBUSY, "\(path): \(message)")
        case SQLITE_NOMEM: self = .io(ENOMEM, "\(path): \(message)")
        case SQLITE_CANTOPEN: self = .io(number == 0 ? ENOENT : number, "\(path): \(message)")
        default:
            self =
                number == ENOSPC || number == EDQUOT
                ? .full : .io(number == 0 ? EIO : number, "\(path): \(message)")
        }
    }
}
