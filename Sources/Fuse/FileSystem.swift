public import Glibc

/// A Linux error number, as thrown by file system operations and answered to the kernel.
public struct Errno: Error, Hashable, Sendable {
    public let rawValue: Int32
    public init(_ rawValue: Int32) { self.rawValue = rawValue }

    /// Thrown by a read that waits for something to come, and is asked again at `Notifier.wake`. Not for the kernel, which
    /// has the number for the same purpose (EIOCBQUEUED).
    public static let later = Errno(529)
}

/// Who asks: what the kernel says of the thread that made the request.
public struct Caller: Sendable {
    public var uid: UInt32
    public var gid: UInt32
    /// Thread id in the server's pid namespace; 0 when the caller lives in another one.
    public var pid: Int32
    /// File mode creation mask; the file system applies it itself (FUSE_CAP_DONT_MASK is set).
    public var umask: UInt32
    /// The request's number; bit 63 is cleared and told by `isResend`.
    public var unique: UInt64
    /// True if the kernel sends this request a second time, because a server died with it.
    public var isResend: Bool
    /// Of an opening with O_TRUNC: set-id bits are to go (KILLPRIV_V2). Writes and SETATTR have their own word.
    public var killsSetID: Bool

    public init(
        uid: UInt32, gid: UInt32, pid: Int32, umask: UInt32, unique: UInt64, isResend: Bool,
        killsSetID: Bool = false
    ) {
        self.uid = uid
        self.gid = gid
        self.pid = pid
        self.umask = umask
        self.unique = unique
        self.isResend = isResend
        self.killsSetID = killsSetID
    }
}

/// An inode as answered to lookups and creations.
public struct EntryReply: Sendable {
    /// 0 with a `validity` makes a negative entry.
    public var node: UInt64
    public var attributes: stat
    /// Seconds for which the kernel may believe the name.
    public var entryValidity: Double
    /// Seconds for which the kernel may believe the attributes.
    public var attributeValidity: Double

    public init(node: UInt64, attributes: stat, entryValidity: Double, attributeValidity: Double) {
        self.node = node
        self.attributes = attributes
        self.entryValidity = entryValidity
        self.attributeValidity = attributeValidity
    }
}

/// What is known of an open file: the kernel hands `handle` back with every request on it.
public struct OpenReply: Sendable {
    public var handle: UInt64
    /// Past the page cache.
    public var directIO = false
    /// Cached pages of earlier openings stay valid.
    public var keepCache = false
    /// No FLUSH at close.
    public var noFlush = false
    /// Directory entries may be cached by the kernel.
    public var cacheDirectory = false

    public init(handle: UInt64) { self.handle = handle }
}

/// What a SETATTR asks for; nil leaves alone.
public struct AttributeRequest: Sendable {
    public enum Time: Sendable {
        case now
        case at(timespec)
    }
    public var mode: UInt32?
    public var uid: UInt32?
    public var gid: UInt32?
    public var size: Int64?
    public var accessTime: Time?
    public var modificationTime: Time?
    public var statusChangeTime: timespec?
    /// Set-id bits are to go (KILLPRIV_V2: a write, truncation or chown by one without privilege).
    public var killsSetID = false
    public init() {}
}

/// Where READDIR entries go; answers false when the reply is full (that entry was not taken).
public protocol DirectorySink: ~Copyable {
    /// `type` is a DT_… constant, or mode bits with S_IFMT.
    mutating func add(name: UnsafeRawBufferPointer, node: UInt64, type: UInt32, nextOffset: Int64) -> Bool
    /// For READDIRPLUS: with attributes; the kernel then holds one more lookup of the node (not for "." and "..").
    mutating func add(name: UnsafeRawBufferPointer, entry: EntryReply, nextOffset: Int64) -> Bool
    /// True for READDIRPLUS.
    var wantsAttributes: Bool { get }
}

/// A file system as the kernel sees it. Calls come on several threads at once; each answers or throws an errno.
///
/// Names are the bytes of one path component, valid during the call; a kernel may pass more than 255 of them. Every operation has a default that
/// answers ENOSYS, so that a file system implements what it has.
public protocol FileSystem: AnyObject, Sendable {
    /// Called once, while the connection is set up and before any request.
    func started()
    /// True if O_TRUNC comes with OPEN: the kernel takes the file to be empty then. False if the kernel shall ask for
    /// the truncation with a SETATTR behind OPEN, without a handle, and believe the size in the reply.
    var truncatesAtOpening: Bool { get }
    /// True if it keeps the extended attributes `system.posix_acl_…`: the kernel asks for them and judges by them. The
    /// file system keeps them in step with modes, and hands them on to what is made.
    var hasAccessControlLists: Bool { get }
    func lookup(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno)
        -> EntryReply
    func forget(_ node: UInt64, count: UInt64)
    func attributes(of node: UInt64, handle: UInt64?, _ caller: Caller) throws(Errno) -> (
        stat, validity: Double
    )
    /// When a node was made; nil if that is not known.
    func birthTime(of node: UInt64) -> timespec?
    func setAttributes(of node: UInt64, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller)
        throws(Errno) -> (stat, validity: Double)
    /// Answers with a write of the target (at most PATH_MAX bytes) into `target`; returns its length.
    func readLink(_ node: UInt64, into target: UnsafeMutableRawBufferPointer, _ caller: Caller) throws(Errno)
        -> Int
    func makeNode(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, device: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply
    func makeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, _ caller: Caller)
        throws(Errno) -> EntryReply
    func makeSymbolicLink(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> EntryReply
    func link(_ node: UInt64, as name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller)
        throws(Errno) -> EntryReply
    func unlink(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno)
    func removeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno)
    func rename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer,
        in newParent: UInt64, flags: UInt32, _ caller: Caller) throws(Errno)
    func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply)
    /// A file without a name (O_TMPFILE), which LINK may give one unless `flags` has O_EXCL. Its link count is 0.
    func createTemporary(in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller)
        throws(Errno) -> (EntryReply, OpenReply)
    func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply
    /// Fills `buffer` from `offset` on; returns the bytes read, fewer only at the end. The room wipes what was
    /// returned (everything after an error): nothing may be left in the buffer beyond it.
    func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64,
        into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int
    /// What can be done without waiting: POLLIN and the like.
    ///
    /// - Parameter waiter: The kernel's number of who will wait if there is nothing, for `Notifier.wake`; nil if nobody will.
    func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?, _ caller: Caller) throws(Errno) -> UInt32
    func write(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, from buffer: UnsafeRawBufferPointer,
        killsSetID: Bool, _ caller: Caller
    ) throws(Errno) -> Int
    func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno)
    func release(_ node: UInt64, handle: UInt64, flags: Int32)
    func synchronize(_ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller) throws(Errno)
    func openDirectory(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply
    func readDirectory<Sink: DirectorySink & ~Copyable>(
        _ node: UInt64, handle: UInt64, from offset: Int64, into sink: inout Sink, _ caller: Caller)
        throws(Errno)
    func releaseDirectory(_ node: UInt64, handle: UInt64)
    func synchronizeDirectory(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno)
    func statistics(of node: UInt64, _ caller: Caller) throws(Errno) -> statvfs
    func setExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, flags: Int32,
        _ caller: Caller) throws(Errno)
    /// Calls `reply` once with the value's bytes (whatever their number: the room sizes and ERANGE).
    func extendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller,
        reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno)
    /// Calls `reply` once with all names, each ended by a zero byte.
    func listExtendedAttributes(_ node: UInt64, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void)
        throws(Errno)
    func removeExtendedAttribute(_ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller)
        throws(Errno)
    func allocate(
        _ node: UInt64, handle: UInt64, mode: Int32, at offset: Int64, count: Int64, _ caller: Caller)
        throws(Errno)
    func seek(_ node: UInt64, handle: UInt64, from offset: Int64, whence: Int32, _ caller: Caller)
        throws(Errno) -> Int64
}
