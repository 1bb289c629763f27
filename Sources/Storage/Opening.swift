internal import Glibc
internal import Synchronization
internal import Threads

/// Making, opening and closing a store.
extension JournaledStore {
    /// Makes a store in a directory, which must be empty or absent, and opens it.
    ///
    /// - Parameter purpose: what the lock file says after the process id.
    public static func create(at path: String, purpose: String = "") throws(StorageError) -> JournaledStore {
        let isNew = mkdir(path, 0o700) == 0
        guard isNew || errno == EEXIST else { throw StorageError(errno, "cannot make \(path)") }
        let directory = try File(directory: path)
        guard isNew || isEmpty(directory) else { throw .notAStore("\(path) is not empty") }
        do throws(StorageError) {
            guard fchmod(directory.descriptor, 0o700) == 0 else {
                throw StorageError(errno, "cannot make \(path) private")
            }
            let full = try fullPath(path)
            let lock = try File(StoreLock.fileName, in: directory, O_RDWR | O_CREAT | O_EXCL)
            for name in Journal.names + [BlockFile.fileName, newTableName] {
                _ = try File(name, in: directory, O_RDWR | O_CREAT | O_EXCL)
            }
            try RecordTable.create(at: full + "/" + newTableName)
            let reserve = Reserve(in: directory)
            reserve.restore()
            try lock.sync()
            try directory.syncAll()
            // What has a record table is a store: it gets its name last.
            guard renameat(directory.descriptor, newTableName, directory.descriptor, RecordTable.fileName) == 0 else {
                throw StorageError(errno, "cannot name the record table")
            }
            try directory.syncAll()
            let store = try JournaledStore(full, directory, readOnly: false, isNew: true, reserve: reserve)
            try store.lockFile.describe(purpose)
            return store
        } catch {
            for name in allNames { directory.remove(name) }
            if isNew { rmdir(path) }
            throw error
        }
    }

    private static let newTableName = RecordTable.fileName + ".new"

    private static var allNames: [String] {
        let tables = [RecordTable.fileName, newTableName].flatMap { [$0, $0 + "-wal", $0 + "-shm"] }
        return Journal.names + tables + [StoreLock.fileName, BlockFile.fileName, Reserve.fileName]
    }

    /// Opens a store.
    ///
    /// - Parameters:
    ///   - readOnly: nothing in the directory is written, so that it works on a read-only medium. Several may read at
    ///     once, but not beside one that writes.
    ///   - purpose: what the lock file says after the process id.
    ///   - inheritedLock: the lock file's descriptor in a process that has the store locked for both.
    public static func open(
        at path: String, readOnly: Bool = false, purpose: String = "", inheritedLock: Int32? = nil
    ) throws(StorageError) -> JournaledStore {
        let directory: File
        do {
            directory = try File(directory: path)
        } catch .io(let number, _) where number == ENOENT || number == ENOTDIR {
            throw .notAStore("\(path) is not a directory")
        }
        var status = stat()
        guard fstatat(directory.descriptor, RecordTable.fileName, &status, AT_SYMLINK_NOFOLLOW) == 0,
            status.st_mode & S_IFMT == S_IFREG
        else { throw .notAStore("\(path) has no record table") }
        func open() throws(StorageError) -> JournaledStore {
            let store = try JournaledStore(
                try fullPath(path), directory, readOnly: readOnly, isNew: false, reserve: nil,
                inheritedLock: inheritedLock)
            try store.lockFile.describe(purpose)
            return store
        }
        do {
            return try open()
        } catch .full where !readOnly && Reserve(in: directory).giveUp() {
            // SQLite wants room for the index of its log. Whoever cannot open cannot remove anything either.
            return try open()
        } catch .io(ENOENT, let what) {
            throw .corrupt(what)
        }
    }

    /// What the process says of itself that has the store open; nil if none has.
    public static func holder(of path: String) -> String? { StoreLock.holder(of: path) }

    /// Says in the lock file, after the process id, what the store is open for: `mounted at /mnt/prod`.
    public func describeHolder(_ purpose: String) throws(StorageError) { try lockFile.describe(purpose) }

    private static func isEmpty(_ directory: File) -> Bool {
        let copy = openat(directory.descriptor, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        guard copy >= 0, let stream = fdopendir(copy) else { return false }
        defer { closedir(stream) }
        while let entry = readdir(stream) {
            let isDots = withUnsafeBytes(of: entry.pointee.d_name) { name in
                name[0] == 0x2E && (name[1] == 0 || name[1] == 0x2E && name[2] == 0)
            }
            if !isDots { return false }
        }
        return true
    }

    private static func fullPath(_ path: String) throws(StorageError) -> String {
        guard let full = realpath(path, nil) else { throw StorageError(errno, "cannot resolve \(path)") }
        defer { free(full) }
        return String(cString: full)
    }

    // MARK: Replaying the journals

    /// Takes up the batches that were committed and not folded.
    func replay() throws(StorageError) {
        for name in Journal.names {
            journals.append(Journal(try File(name, in: directory, isReadOnly ? O_RDONLY : O_RDWR)))
        }
        var contents: [Journal.Contents] = []
        for journal in journals { contents.append(try journal.contents()) }
        let folded = try table.foldedSequence()
        blocksDurable = contents.map(\.blocksDurable).max() ?? 0
        var last = folded
        var isWhole = true
        // Neither alone is sure to begin where the table ends: the one with the earlier batches goes first.
        let order = [0, 1].sorted {
            (contents[$0].frames.first?.sequence ?? .max) < (contents[$1].frames.first?.sequence ?? .max)
        }
        for index in order {
            var end = 0
            for frame in contents[index].frames where isWhole {
                guard frame.sequence > last else { continue }
                guard frame.sequence == last + 1, holds(frame, of: contents[index]) else {
                    isWhole = false
                    break
                }
                for (key, value) in frame.changes { overlay.set(key, value) }
                if frame.freesSpace { mayUseReserve.store(true, ordering: .relaxed) }
                if !frame.blockSums.isEmpty { sumsSequence = frame.sequence }
                last = frame.sequence
                end = frame.end
                current = index
            }
            journals[index].byteCount = end
        }
        // What was lost with the power is no longer durable: its numbers are given again.
        blocksDurable = min(blocksDurable, last)
        committed.store(last, ordering: .releasing)
        durable.store(folded, ordering: .releasing)
        guard !isReadOnly else { return }
        bothHoldBatches = journals.allSatisfy { $0.byteCount > 0 }
        journalLength.store(journals[current].byteCount, ordering: .relaxed)
        try mend(contents)
    }

    /// Cuts off what was not taken up, durably, before anything can be written after it.
    private func mend(_ contents: [Journal.Contents]) throws(StorageError) {
        for (journal, found) in zip(journals, contents) {
            if try journal.file.byteCount() > journal.byteCount {
                try journal.file.truncate(to: journal.byteCount)
                try journal.file.sync()
            }
            guard journal.byteCount > 0 else { continue }
            journal.needsSync = true
            if found.blocksDurable > blocksDurable { try journal.note(blocksDurable: blocksDurable) }
            if !found.isOfThisBoot { try journal.noteBoot() }
        }
    }

    /// True if the blocks that a batch tells of are there. After a loss of power, or of the disk alone, a batch may be on
    /// the disk whose blocks are not. To a successor in the boot that wrote them the kernel still has them.
    private func holds(_ frame: Journal.Frame, of contents: Journal.Contents) -> Bool {
        guard !contents.isOfThisBoot || !isHandedOver, frame.sequence > blocksDurable else { return true }
        return frame.blockSums.allSatisfy { blocks.matches($0.block, sum: $0.sum) }
    }

    // MARK: Keeping

    public func integrityCheck() throws(StorageError) -> [String] { try table.integrityCheck() }

    public func statistics() throws(StorageError) -> StoreStatistics {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        var disk = statvfs()
        guard fstatvfs(directory.descriptor, &disk) == 0 else { throw StorageError(errno, "cannot examine the disk") }
        var statistics = StoreStatistics()
        let unit = UInt64(disk.f_frsize)
        statistics.diskByteCount = UInt64(disk.f_blocks) * unit
        let released = blocks.reclaimableCount * UInt64(storeBlockByteCount)
        statistics.freeByteCount = min(UInt64(disk.f_bavail) * unit + released, statistics.diskByteCount)
        statistics.usedBlockCount = blocks.usedCount
        statistics.journalByteCount = commitLock.locked { journals.reduce(0) { $0 + UInt64($1.byteCount) } }
        var status = stat()
        if fstatat(directory.descriptor, RecordTable.fileName, &status, AT_SYMLINK_NOFOLLOW) == 0 {
            statistics.tableByteCount = UInt64(status.st_size)
        }
        return statistics
    }

    /// The open lock file, for a process that shall have the store locked too.
    public var lockDescriptor: Int32 { lockFile.descriptor }

    /// Another process shares the lock and goes on having it when this store is closed.
    public func leaveLock() { leavesLock.store(true, ordering: .relaxed) }

    public func close() throws(StorageError) {
        folder.stop()
        guard !isClosed.load(ordering: .acquiring) else { return }
        var problem: StorageError?
        do {
            try fold()
        } catch .closed {
            return
        } catch {
            // The journal keeps what a full disk has no room to fold.
            do { try sync() } catch { problem = error }
        }
        let isFirst = commitLock.locked { !isClosed.exchange(true, ordering: .acquiringAndReleasing) }
        guard isFirst else { return }
        foldLock.locked { table.close() }
        if !leavesLock.load(ordering: .relaxed) { lockFile.release() }
        if let problem { throw problem }
    }
}
