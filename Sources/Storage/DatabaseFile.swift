internal import CSQLite
internal import Glibc

/// A database's file as its connection has it open, for reading and writing beside SQLite.
struct DatabaseFile {
    let path: String
    private let file: UnsafeMutablePointer<sqlite3_file>
    private let methods: sqlite3_io_methods

    fileprivate init?(of connection: OpaquePointer, _ path: String) {
        guard let file = ll_sqlite_file(connection), let methods = file.pointee.pMethods else { return nil }
        self.path = path
        self.file = file
        self.methods = methods.pointee
    }

    func byteCount() throws(StorageError) -> Int {
        var count: sqlite3_int64 = 0
        try expect(methods.xFileSize?(file, &count), "examine")
        return Int(count)
    }

    /// Fills the buffer.
    func read(into bytes: UnsafeMutableRawBufferPointer, at offset: Int) throws(StorageError) {
        try expect(methods.xRead?(file, bytes.baseAddress, Int32(bytes.count), sqlite3_int64(offset)), "read")
    }

    func write(_ bytes: UnsafeRawBufferPointer, at offset: Int) throws(StorageError) {
        try expect(methods.xWrite?(file, bytes.baseAddress, Int32(bytes.count), sqlite3_int64(offset)), "write")
    }

    func sync() throws(StorageError) { try expect(methods.xSync?(file, SQLITE_SYNC_NORMAL), "sync") }

    private func expect(_ code: Int32?, _ what: String) throws(StorageError) {
        guard code != SQLITE_OK else { return }
        guard code.map({ $0 & 0xFF }) != SQLITE_FULL else { throw .full }
        throw .io(EIO, "cannot \(what) \(path)")
    }
}

extension Connection {
    /// Runs `body` with the database's file. The connection must be in no transaction.
    func withFile(_ body: (DatabaseFile) throws(StorageError) -> Void) throws(StorageError) {
        guard let file = DatabaseFile(of: handle, path) else { throw .io(EIO, "\(path) has no file") }
        try body(file)
    }

    /// Drops every page from memory; what is read next comes from the file.
    func forgetPages() { sqlite3_db_release_memory(handle) }

    /// As `checkpoint`; false if readers did not let all of it be moved.
    func checkpointWhole() throws(StorageError) -> Bool {
        let code = sqlite3_wal_checkpoint_v2(handle, nil, SQLITE_CHECKPOINT_TRUNCATE, nil, nil)
        switch code & 0xFF {
        case SQLITE_OK: return true
        case SQLITE_BUSY, SQLITE_LOCKED: return false
        default: throw error(code)
        }
    }
}
