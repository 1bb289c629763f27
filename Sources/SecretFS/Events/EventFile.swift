public import Fuse
import Glibc
import Keyring
import SecretTree

/// The control file `events`, which is there whether the keyring is locked or not.
extension SecretFSOptions {
    func openEvents(_ caller: Caller) throws(Errno) -> OpenReply {
        var reply = OpenReply(handle: Handle.control(try events.open(caller)).rawValue)
        reply.directIO = true
        reply.noFlush = true
        return reply
    }

    func readEvents(
        _ handle: UInt64, flags: Int32, at offset: Int64, into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int {
        guard case .control(let number) = Handle(handle) else { throw Errno(EBADF) }
        return try events.read(number, flags: flags, at: offset, into: buffer, caller)
    }

    func closeEvents(_ handle: UInt64) {
        if case .control(let number) = Handle(handle) { events.close(number) }
    }

    /// A regular file as long as all that was ever told.
    func describeEvents(in attributes: inout stat) {
        let (byteCount, modified) = events.size
        attributes.st_size = off_t(clamping: byteCount)
        attributes.st_mtim = modified.timespec
        attributes.st_ctim = modified.timespec
    }

    /// Files but `events` are always ready, as regular files are.
    func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?) throws(Errno) -> UInt32 {
        guard node == ControlNode.events.number, case .control(let number) = Handle(handle) else {
            return UInt32(POLLIN | POLLOUT | POLLRDNORM | POLLWRNORM)
        }
        return try events.poll(number, waiter: waiter)
    }
}

extension SecretFS {
    public func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?, _ caller: Caller) throws(Errno) -> UInt32 {
        try options.poll(node, handle: handle, waiter: waiter)
    }
}

extension FrontDoor {
    public func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?, _ caller: Caller) throws(Errno) -> UInt32 {
        try options.poll(node, handle: handle, waiter: waiter)
    }
}

extension FrontDoor {
    /// Says that a server begins.
    public func tellStart(isFirst: Bool) {
        var event = Event(isFirst ? .serverStarted : .serverRestarted)
        event.add("pid", .number(Int(getpid())))
        event.add("generation", .number(options.generation))
        event.add("version", .text(options.programVersion))
        options.events.begin(event, number: (fileSystem?.tree.keyring.lifecycle.latest.rawValue).map(UInt64.init))
    }
}
