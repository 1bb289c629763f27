import Glibc

/// The reply to a READDIR or READDIRPLUS: struct fuse_dirent or fuse_direntplus, one after the other, laid out by
/// hand, since libfuse's helpers want names that end in a zero.
struct DirectoryReply: DirectorySink, ~Copyable {
    /// struct fuse_entry_out with its struct fuse_attr.
    private static let attributesByteCount = 40 + 88
    /// struct fuse_dirent without the name.
    private static let entryByteCount = 24

    let wantsAttributes: Bool
    private(set) var byteCount = 0
    private let buffer: UnsafeMutableRawBufferPointer

    init(_ buffer: UnsafeMutableRawBufferPointer, wantsAttributes: Bool) {
        self.buffer = buffer
        self.wantsAttributes = wantsAttributes
    }

    mutating func add(name: UnsafeRawBufferPointer, node: UInt64, type: UInt32, nextOffset: Int64) -> Bool {
        // A READDIRPLUS entry without attributes has node 0 in its first part: the kernel then looks nothing up.
        guard let start = reserve(name) else { return false }
        if wantsAttributes { zero(start, Self.attributesByteCount) }
        putEntry(start, name: name, node: node, type: type, nextOffset: nextOffset)
        return true
    }

    mutating func add(name: UnsafeRawBufferPointer, entry: EntryReply, nextOffset: Int64) -> Bool {
        guard let start = reserve(name) else { return false }
        if wantsAttributes { putAttributes(start, entry) }
        putEntry(
            start, name: name, node: UInt64(entry.attributes.st_ino), type: entry.attributes.st_mode,
            nextOffset: nextOffset)
        return true
    }

    /// Where the next entry begins, if it fits.
    private mutating func reserve(_ name: UnsafeRawBufferPointer) -> Int? {
        let unpadded = (wantsAttributes ? Self.attributesByteCount : 0) + Self.entryByteCount + name.count
        let padded = (unpadded + 7) & ~7
        guard byteCount + padded <= buffer.count else { return nil }
        let start = byteCount
        // The padding is sent too: it must not be what an earlier reply has left.
        zero(start + padded - 8, 8)
        byteCount += padded
        return start
    }

    private func zero(_ offset: Int, _ count: Int) {
        UnsafeMutableRawBufferPointer(rebasing: buffer[offset..<(offset + count)]).initializeMemory(
            as: UInt8.self, repeating: 0)
    }

    private func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: inout Int) {
        buffer.storeBytes(of: value, toByteOffset: offset, as: T.self)
        offset += MemoryLayout<T>.size
    }

    private func putEntry(
        _ start: Int, name: UnsafeRawBufferPointer, node: UInt64, type: UInt32, nextOffset: Int64
    ) {
        var offset = start + (wantsAttributes ? Self.attributesByteCount : 0)
        put(node, at: &offset)
        put(nextOffset, at: &offset)
        put(UInt32(name.count), at: &offset)
        // Mode bits hold DT_… twelve bits higher.
        put(type & UInt32(S_IFMT) != 0 ? (type & UInt32(S_IFMT)) >> 12 : type & 15, at: &offset)
        UnsafeMutableRawBufferPointer(rebasing: buffer[offset...]).copyMemory(from: name)
    }

    private func putAttributes(_ start: Int, _ entry: EntryReply) {
        let attributes = entry.attributes
        var offset = start
        let (entrySeconds, entryNanoseconds) = split(entry.entryValidity)
        let (seconds, nanoseconds) = split(entry.attributeValidity)
        put(entry.node, at: &offset)
        put(UInt64(0), at: &offset)  // generation: node ids are never used again
        put(entrySeconds, at: &offset)
        put(seconds, at: &offset)
        put(entryNanoseconds, at: &offset)
        put(nanoseconds, at: &offset)
        put(UInt64(attributes.st_ino), at: &offset)
        put(Int64(attributes.st_size), at: &offset)
        put(Int64(attributes.st_blocks), at: &offset)
        put(Int64(attributes.st_atim.tv_sec), at: &offset)
        put(Int64(attributes.st_mtim.tv_sec), at: &offset)
        put(Int64(attributes.st_ctim.tv_sec), at: &offset)
        put(UInt32(attributes.st_atim.tv_nsec), at: &offset)
        put(UInt32(attributes.st_mtim.tv_nsec), at: &offset)
        put(UInt32(attributes.st_ctim.tv_nsec), at: &offset)
        put(attributes.st_mode, at: &offset)
        put(UInt32(attributes.st_nlink), at: &offset)
        put(attributes.st_uid, at: &offset)
        put(attributes.st_gid, at: &offset)
        put(UInt32(truncatingIfNeeded: attributes.st_rdev), at: &offset)
        put(UInt32(attributes.st_blksize), at: &offset)
        put(UInt32(0), at: &offset)  // flags
    }

    /// Seconds and nanoseconds, within what the kernel can add to its clock.
    private func split(_ validity: Double) -> (UInt64, UInt32) {
        let bounded = max(0, min(validity, 1e9))
        let seconds = bounded.rounded(.down)
        return (UInt64(seconds), UInt32((bounded - seconds) * 999_999_999))
    }
}
