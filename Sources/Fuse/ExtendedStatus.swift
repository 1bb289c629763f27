import Glibc

/// STATX, which libfuse 3.14 does not know: what statx(2) asks for besides GETATTR, a node's birth time.
enum ExtendedStatus {
    /// struct fuse_statx_in: `flags 4 | reserved 4 | handle 8 | statx flags 4 | statx mask 4`.
    static let requestByteCount = 24
    /// struct fuse_statx_out: how long it holds, then struct fuse_statx.
    static let replyByteCount = 288
    private static let hasHandle: UInt32 = 1
    private static let basicMask: UInt32 = 0x7ff
    private static let birthMask: UInt32 = 0x800

    /// The handle that the request names, if any.
    static func handle(_ body: UnsafeRawBufferPointer) -> UInt64? {
        guard body.loadUnaligned(as: UInt32.self) & hasHandle != 0 else { return nil }
        return body.loadUnaligned(fromByteOffset: 8, as: UInt64.self)
    }

    static func put(
        _ attributes: stat, born: timespec?, validity: Double, into reply: UnsafeMutableRawBufferPointer
    ) {
        precondition(reply.count == replyByteCount)
        reply.initializeMemory(as: UInt8.self, repeating: 0)
        var place = 0
        func put(_ value: some FixedWidthInteger) {
            reply.storeBytes(of: value, toByteOffset: place, as: type(of: value))
            place += value.bitWidth / 8
        }
        func put(_ time: timespec) {
            put(Int64(time.tv_sec))
            put(UInt32(time.tv_nsec))
            put(UInt32(0))
        }
        let seconds = validity.rounded(.down)
        put(UInt64(seconds))
        put(UInt32((validity - seconds) * 1e9))
        place += 20  // flags, spare
        put(basicMask | (born == nil ? 0 : birthMask))
        put(UInt32(attributes.st_blksize))
        put(UInt64(0))
        put(UInt32(attributes.st_nlink))
        put(attributes.st_uid)
        put(attributes.st_gid)
        put(UInt16(truncatingIfNeeded: attributes.st_mode))
        put(UInt16(0))
        put(UInt64(attributes.st_ino))
        put(UInt64(attributes.st_size))
        put(UInt64(attributes.st_blocks))
        put(UInt64(0))
        put(attributes.st_atim)
        put(born ?? timespec())
        put(attributes.st_ctim)
        put(attributes.st_mtim)
        put(UInt32(truncatingIfNeeded: attributes.st_rdev >> 8 & 0xfff))
        put(UInt32(truncatingIfNeeded: attributes.st_rdev & 0xff | attributes.st_rdev >> 12 & 0xfff00))
    }
}
