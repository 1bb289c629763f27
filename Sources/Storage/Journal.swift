internal import Glibc

/// One of the store's two journal files: committed batches in sequence, each a frame with a checksum.
///
/// File: `LLJOURN1`, the boot it was written in (16 bytes), the sequence through which blocks are durable (8), then
/// frames. Frame: payload length (4), flags (4), sequence (8), checksum of these and the payload (8), payload. Payload:
/// changes, each a kind byte and what belongs to it. Numbers are little-endian, but for record keys.
/// Guarded by the store's commit lock.
final class Journal: @unchecked Sendable {
    static let names = ["journal.0", "journal.1"]
    static let headerByteCount = 32
    static let frameHeaderByteCount = 24
    /// Far more than commits let it grow to.
    fileprivate static let byteLimit = 1 << 30
    private static let magic: UInt64 = 0x314E_5255_4F4A_4C4C

    let file: File
    /// Where the next frame goes; 0 while there is none.
    var byteCount = 0
    /// Something was written that no sync has seen.
    var needsSync = false

    init(_ file: File) { self.file = file }

    // MARK: Writing

    /// Appends a frame whose buffer begins with room for the file's header. On failure the file is as before.
    func append(_ frame: UnsafeMutableRawBufferPointer, blocksDurable: UInt64) throws(StorageError) {
        var bytes = UnsafeRawBufferPointer(frame)
        if byteCount == 0 {
            Self.writeHeader(into: frame, blocksDurable: blocksDurable)
        } else {
            bytes = UnsafeRawBufferPointer(rebasing: bytes[Self.headerByteCount...])
        }
        do {
            try file.write(bytes, at: byteCount)
        } catch {
            try file.truncate(to: byteCount)
            throw error
        }
        byteCount += bytes.count
        needsSync = true
    }

    /// Notes that the blocks of changes up to a sequence need no looking at after a loss of power.
    func note(blocksDurable: UInt64) throws(StorageError) {
        guard byteCount > 0 else { return }
        let result = withUnsafeBytes(of: blocksDurable.littleEndian) { bytes in
            Result { () throws(StorageError) in try file.write(bytes, at: 24) }
        }
        try result.get()
        needsSync = true
    }

    /// Takes over a journal of an earlier boot.
    func noteBoot() throws(StorageError) {
        let result = withUnsafeBytes(of: Self.boot) { bytes in
            Result { () throws(StorageError) in try file.write(bytes, at: 8) }
        }
        try result.get()
        needsSync = true
    }

    func clear() {
        // Should this fail, the old frames are skipped by their sequence.
        try? file.truncate(to: 0)
        byteCount = 0
        needsSync = false
    }

    private static func writeHeader(into bytes: UnsafeMutableRawBufferPointer, blocksDurable: UInt64) {
        bytes.storeBytes(of: magic.littleEndian, as: UInt64.self)
        bytes.storeBytes(of: boot.0, toByteOffset: 8, as: UInt64.self)
        bytes.storeBytes(of: boot.1, toByteOffset: 16, as: UInt64.self)
        bytes.storeBytes(of: blocksDurable.littleEndian, toByteOffset: 24, as: UInt64.self)
    }

    /// Which boot of which machine this is; zeros if that cannot be told.
    static let boot: (UInt64, UInt64) = {
        let descriptor = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return (0, 0) }
        defer { close(descriptor) }
        return withUnsafeTemporaryAllocation(byteCount: 36, alignment: 8) { text in
            guard Glibc.read(descriptor, text.baseAddress, 36) == 36 else { return (0, 0) }
            let first = WordSum.of(UnsafeRawBufferPointer(rebasing: text[..<18]))
            return (first, WordSum.of(UnsafeRawBufferPointer(text)))
        }
    }()

    // MARK: Reading

    /// What a journal file holds.
    struct Contents {
        var isOfThisBoot = true
        var blocksDurable: UInt64 = 0
        var frames: [Frame] = []
    }

    /// One batch of changes.
    struct Frame {
        let sequence: UInt64
        /// Where it ends in its file.
        let end: Int
        var freesSpace = false
        var changes: [(key: RecordKey, value: [UInt8]?)] = []
        var blockSums: [(block: UInt64, sum: UInt64)] = []
    }

    /// Reads the whole frames of the file up to the first that is torn.
    func contents() throws(StorageError) -> Contents {
        let count = try file.byteCount()
        guard count <= Self.byteLimit else { throw .corrupt("\(file.name) is longer than any journal") }
        let bytes = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 16)
        defer { bytes.deallocate() }
        let got = try file.read(into: bytes, at: 0)
        return Self.parse(UnsafeRawBufferPointer(rebasing: bytes[..<got]))
    }

    static func parse(_ bytes: UnsafeRawBufferPointer) -> Contents {
        var contents = Contents()
        guard bytes.count >= headerByteCount, bytes.number(at: 0, UInt64.self) == magic else {
            return contents
        }
        let writer = (
            bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
            bytes.loadUnaligned(fromByteOffset: 16, as: UInt64.self)
        )
        contents.isOfThisBoot = writer == boot && writer != (0, 0)
        contents.blocksDurable = bytes.number(at: 24, UInt64.self)
        var place = headerByteCount
        while bytes.count - place >= frameHeaderByteCount {
            let length = Int(bytes.number(at: place, UInt32.self))
            let start = place + frameHeaderByteCount
            guard bytes.count - start >= length else { break }
            let payload = UnsafeRawBufferPointer(rebasing: bytes[start..<start + length])
            let sequence = bytes.number(at: place + 8, UInt64.self)
            let sum = frameSum(UnsafeRawBufferPointer(rebasing: bytes[place..<place + 16]), payload)
            guard sum == bytes.number(at: place + 16, UInt64.self) else { break }
            var frame = Frame(sequence: sequence, end: start + length)
            frame.freesSpace = bytes.number(at: place + 4, UInt32.self) & 1 != 0
            guard frame.read(payload), contents.frames.last.map({ sequence == $0.sequence &+ 1 }) ?? true
            else { break }
            contents.frames.append(frame)
            place = frame.end
        }
        return contents
    }

    static func frameSum(_ header: UnsafeRawBufferPointer, _ payload: UnsafeRawBufferPointer) -> UInt64 {
        WordSum.of(payload, seed: WordSum.of(header))
    }
}

extension Journal.Frame {
    /// Takes the changes from a frame's payload; false if it is none.
    fileprivate mutating func read(_ payload: UnsafeRawBufferPointer) -> Bool {
        var rest = payload
        func take(_ count: Int) -> UnsafeRawBufferPointer? {
            guard count <= rest.count else { return nil }
            defer { rest = UnsafeRawBufferPointer(rebasing: rest[count...]) }
            return UnsafeRawBufferPointer(rebasing: rest[..<count])
        }
        while let kind = take(1)?[0] {
            switch kind {
            case FrameWriter.delete:
                guard let key = take(RecordKey.byteCount).flatMap(RecordKey.init) else { return false }
                changes.append((key, nil))
            case FrameWriter.put:
                guard let key = take(RecordKey.byteCount).flatMap(RecordKey.init),
                    let count = take(4)?.number(at: 0, UInt32.self), let value = take(Int(count))
                else { return false }
                changes.append((key, Array(value)))
            case FrameWriter.blockSum:
                guard let bytes = take(16) else { return false }
                blockSums.append((bytes.number(at: 0, UInt64.self), bytes.number(at: 8, UInt64.self)))
            default: return false
            }
        }
        return true
    }
}

/// A reusable buffer in which a frame is put together, with room for a file header before it.
struct FrameWriter: ~Copyable {
    fileprivate static let put: UInt8 = 1
    fileprivate static let delete: UInt8 = 2
    fileprivate static let blockSum: UInt8 = 3

    private var buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 16, alignment: 16)

    deinit { buffer.deallocate() }

    /// The bytes for `Journal.append`, valid until the next frame.
    mutating func frame(
        _ batch: RecordBatch, sequence: UInt64, blockSums: [UInt64: UInt64]
    ) -> UnsafeMutableRawBufferPointer {
        let start = Journal.headerByteCount + Journal.frameHeaderByteCount
        var count = start + blockSums.count * 17
        for (_, value) in batch.changes {
            count += 1 + RecordKey.byteCount + (value.map { 4 + $0.count } ?? 0)
        }
        precondition(count <= Journal.byteLimit / 2, "a batch is far smaller than this")
        if count > buffer.count {
            buffer.deallocate()
            buffer = .allocate(byteCount: count, alignment: 16)
        }
        var place = start
        for (key, value) in batch.changes {
            buffer[place] = value == nil ? Self.delete : Self.put
            key.encode(into: buffer.part(place + 1, RecordKey.byteCount))
            place += 1 + RecordKey.byteCount
            guard let value else { continue }
            buffer.storeBytes(of: UInt32(value.count).littleEndian, toByteOffset: place, as: UInt32.self)
            value.withUnsafeBytes { buffer.part(place + 4, value.count).copyMemory(from: $0) }
            place += 4 + value.count
        }
        for (block, sum) in blockSums {
            buffer[place] = Self.blockSum
            buffer.storeBytes(of: block.littleEndian, toByteOffset: place + 1, as: UInt64.self)
            buffer.storeBytes(of: sum.littleEndian, toByteOffset: place + 9, as: UInt64.self)
            place += 17
        }
        let header = buffer.part(Journal.headerByteCount, Journal.frameHeaderByteCount)
        header.storeBytes(of: UInt32(count - start).littleEndian, as: UInt32.self)
        header.storeBytes(
            of: (batch.freesSpace ? 1 : 0 as UInt32).littleEndian, toByteOffset: 4, as: UInt32.self)
        header.storeBytes(of: sequence.littleEndian, toByteOffset: 8, as: UInt64.self)
        let payload = UnsafeRawBufferPointer(buffer.part(start, count - start))
        let sum = Journal.frameSum(UnsafeRawBufferPointer(rebasing: header[..<16]), payload)
        header.storeBytes(of: sum.littleEndian, toByteOffset: 16, as: UInt64.self)
        return buffer.part(0, count)
    }
}

extension UnsafeRawBufferPointer {
    fileprivate func number<T: FixedWidthInteger>(at place: Int, _: T.Type) -> T {
        T(littleEndian: loadUnaligned(fromByteOffset: place, as: T.self))
    }
}

extension UnsafeMutableRawBufferPointer {
    fileprivate func part(_ start: Int, _ count: Int) -> UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: self[start..<start + count])
    }

    fileprivate subscript(range: PartialRangeUpTo<Int>) -> UnsafeRawBufferPointer.SubSequence {
        UnsafeRawBufferPointer(self)[range]
    }
}
