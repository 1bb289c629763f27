internal import Glibc
internal import Synchronization
internal import Threads

/// Erasing what changes leave behind: old values in the journals, in SQLite's log, and in the gaps of its pages.
extension JournaledStore {
    public func eraseRemains() throws(StorageError) { try eraseRemains(patience: 2000) }

    /// - Parameter patience: How long to wait for walks that are under way (milliseconds).
    func eraseRemains(patience: Int) throws(StorageError) {
        guard !isReadOnly else { throw .readOnly }
        try sync()
        try fold()
        try foldLock.locked { () throws(StorageError) in
            try table.eraseRemains(patience: patience)
            // What a fold could not clear it has left for later, which is now.
            try commitLock.locked { () throws(StorageError) in
                for journal in journals where try journal.file.byteCount() > journal.byteCount {
                    try journal.file.truncate(to: journal.byteCount)
                    journal.needsSync = true
                }
            }
        }
        guard !blocks.isHeld else { throw .io(EBUSY, "old blocks cannot be erased while a snapshot of them is read") }
        blocks.reclaim(durable: durable.load(ordering: .acquiring), leavesShort: false)
        try blocks.syncErased()
        for journal in journals { try journal.file.sync() }
    }
}

extension RecordTable {
    /// Clears SQLite's log and the unused parts of its pages, under the store's fold lock.
    ///
    /// - Throws: `.io(EBUSY)` if a walk did not end in time.
    func eraseRemains(patience: Int) throws(StorageError) {
        guard let connection = writingConnection else { throw .closed }
        var waited = 0
        try withoutKeptTransactions { () throws(StorageError) in
            while try !connection.checkpointWhole() {
                guard waited < patience else {
                    throw .io(EBUSY, "old records cannot be erased while \(connection.path) is being read")
                }
                usleep(10_000)
                waited += 10
            }
        }
        let root = try connection.number("SELECT rootpage FROM sqlite_schema WHERE name = 'record'")
        // A page that the connection remembers would bring its old gaps back when it is written again.
        connection.forgetPages()
        try connection.withFile { (file: DatabaseFile) throws(StorageError) in
            let pages = try PageScrubber(file)
            try pages.scrub(from: UInt32(truncatingIfNeeded: root))
        }
        connection.forgetPages()
    }
}

/// Zeroes what the pages of a B-tree hold besides its records: SQLite clears a record that it deletes, but where it
/// has moved records to another page in between (balancing), copies stay in the space that was theirs.
///
/// The log must be empty and nobody else write. Readers do not mind: they never look at these bytes. Page layout:
/// <https://www.sqlite.org/fileformat.html>, section 1.6.
final class PageScrubber {
    private static let interior: UInt8 = 2
    private static let leaf: UInt8 = 10
    private static let fileHeaderByteCount = 100

    private let file: DatabaseFile
    private let pageByteCount: Int
    private let usableByteCount: Int
    private let pageCount: UInt32
    private let page: UnsafeMutableRawBufferPointer
    private var hasWritten = false

    init(_ file: DatabaseFile) throws(StorageError) {
        self.file = file
        let header = UnsafeMutableRawBufferPointer.allocate(byteCount: Self.fileHeaderByteCount, alignment: 8)
        defer { header.deallocate() }
        try file.read(into: header, at: 0)
        let size = Int(Self.number16(header, 16))
        pageByteCount = size == 1 ? 65536 : size
        usableByteCount = pageByteCount - Int(header[20])
        guard pageByteCount >= 512, pageByteCount & (pageByteCount - 1) == 0, usableByteCount >= 480 else {
            throw .corrupt("\(file.path): its pages have no size")
        }
        pageCount = UInt32(clamping: try file.byteCount() / pageByteCount)
        page = .allocate(byteCount: pageByteCount, alignment: 8)
    }

    deinit { page.deallocate() }

    /// Goes through the pages of the tree with this root.
    func scrub(from root: UInt32) throws(StorageError) {
        var left = [root]
        var seen: UInt32 = 0
        while let number = left.popLast() {
            guard number > 1, number <= pageCount, seen < pageCount else { throw damaged(number) }
            seen += 1
            try file.read(into: page, at: Int(number - 1) * pageByteCount)
            try scrub(number, &left)
        }
        if hasWritten { try file.sync() }
    }

    private func scrub(_ number: UInt32, _ left: inout [UInt32]) throws(StorageError) {
        guard page[0] == Self.interior || page[0] == Self.leaf else { throw damaged(number) }
        let isInterior = page[0] == Self.interior
        let cellCount = Int(Self.number16(page, 3))
        let pointers = isInterior ? 12 : 8
        let gapStart = pointers + 2 * cellCount
        let content = Int(Self.number16(page, 5))
        let gapEnd = content == 0 ? 65536 : content
        guard gapStart <= gapEnd, gapEnd <= usableByteCount else { throw damaged(number) }
        var isChanged = zero(gapStart, gapEnd)
        var free = Int(Self.number16(page, 1))
        while free != 0 {
            guard free >= gapEnd, free + 4 <= usableByteCount else { throw damaged(number) }
            let next = Int(Self.number16(page, free))
            let end = free + Int(Self.number16(page, free + 2))
            guard end >= free + 4, end <= usableByteCount, next == 0 || next >= end else { throw damaged(number) }
            if zero(free + 4, end) { isChanged = true }
            free = next
        }
        if isInterior {
            left.append(Self.number32(page, 8))
            for cell in 0..<cellCount {
                let place = Int(Self.number16(page, pointers + 2 * cell))
                guard place >= gapEnd, place + 4 <= usableByteCount else { throw damaged(number) }
                left.append(Self.number32(page, place))
            }
        }
        guard isChanged else { return }
        try file.write(UnsafeRawBufferPointer(page), at: Int(number - 1) * pageByteCount)
        hasWritten = true
    }

    /// True if there was something else than zeros.
    private func zero(_ start: Int, _ end: Int) -> Bool {
        guard start < end else { return false }
        let part = UnsafeMutableRawBufferPointer(rebasing: page[start..<end])
        guard part.contains(where: { $0 != 0 }) else { return false }
        part.initializeMemory(as: UInt8.self, repeating: 0)
        return true
    }

    private func damaged(_ number: UInt32) -> StorageError { .corrupt("\(file.path): page \(number) is malformed") }

    private static func number16(_ bytes: UnsafeMutableRawBufferPointer, _ place: Int) -> UInt16 {
        UInt16(bigEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt16.self))
    }

    private static func number32(_ bytes: UnsafeMutableRawBufferPointer, _ place: Int) -> UInt32 {
        UInt32(bigEndian: bytes.loadUnaligned(fromByteOffset: place, as: UInt32.self))
    }
}
