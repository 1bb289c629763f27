public import Glibc

// What a file system need not have. The kernel takes ENOSYS for "never ask again": open, flush and fsync then
// succeed without a request, seek and fallocate fall back to what the kernel can do alone.
extension FileSystem {
    public func started() {}
    public var truncatesAtOpening: Bool { true }
    public var hasAccessControlLists: Bool { false }
    public func forget(_ node: UInt64, count: UInt64) {}
    public func release(_ node: UInt64, handle: UInt64, flags: Int32) {}
    public func releaseDirectory(_ node: UInt64, handle: UInt64) {}

    public func birthTime(of node: UInt64) -> timespec? { nil }

    public func setAttributes(
        of node: UInt64, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller
    ) throws(Errno) -> (stat, validity: Double) { throw .unimplemented }

    public func readLink(
        _ node: UInt64, into target: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int { throw .unimplemented }

    public func makeNode(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, device: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply { throw .unimplemented }

    public func makeDirectory(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, _ caller: Caller
    ) throws(Errno) -> EntryReply { throw .unimplemented }

    public func makeSymbolicLink(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> EntryReply { throw .unimplemented }

    public func link(
        _ node: UInt64, as name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply { throw .unimplemented }

    public func unlink(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        throw .unimplemented
    }

    public func removeDirectory(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func rename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer,
        in newParent: UInt64, flags: UInt32, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) { throw .unimplemented }

    public func createTemporary(in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller)
        throws(Errno) -> (EntryReply, OpenReply)
    { throw .unimplemented }

    public func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        throw .unimplemented
    }

    public func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64,
        into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int { throw .unimplemented }

    public func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?, _ caller: Caller) throws(Errno) -> UInt32 {
        throw .unimplemented
    }

    public func write(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, from buffer: UnsafeRawBufferPointer,
        killsSetID: Bool, _ caller: Caller
    ) throws(Errno) -> Int { throw .unimplemented }

    public func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) { throw .unimplemented }

    public func synchronize(
        _ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func openDirectory(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        throw .unimplemented
    }

    public func readDirectory<Sink: DirectorySink & ~Copyable>(
        _ node: UInt64, handle: UInt64, from offset: Int64, into sink: inout Sink, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func synchronizeDirectory(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        throw .unimplemented
    }

    public func statistics(of node: UInt64, _ caller: Caller) throws(Errno) -> statvfs {
        throw .unimplemented
    }

    public func setExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, flags: Int32,
        _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func extendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller,
        reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) { throw .unimplemented }

    public func listExtendedAttributes(
        _ node: UInt64, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) { throw .unimplemented }

    public func removeExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func allocate(
        _ node: UInt64, handle: UInt64, mode: Int32, at offset: Int64, count: Int64, _ caller: Caller
    ) throws(Errno) { throw .unimplemented }

    public func seek(
        _ node: UInt64, handle: UInt64, from offset: Int64, whence: Int32, _ caller: Caller
    ) throws(Errno) -> Int64 { throw .unimplemented }
}

extension Errno {
    static let unimplemented = Errno(ENOSYS)
}
