public import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

extension SecretFS {
    public func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        if let control = ControlNode(node) { return try openControlFile(control, flags: flags) }
        let id = NodeID(rawValue: node)
        settle(id)
        let truncates = flags & O_TRUNC != 0
        // Who replaces a value need not be able to read the old one: so a compromised secret gets its new value.
        if !truncates { try answering { () throws(TreeError) in try tree.checkReadable(id) } }
        guard flags & O_ACCMODE != O_RDONLY || truncates else { return openForReading(id) }
        return try openForWriting(id, flags: flags, truncates: truncates, caller)
    }

    public func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) {
        let entry: EntryReply
        do throws(Errno) {
            entry = try makeNode(name, in: parent, mode: S_IFREG | mode & 0o7777, device: 0, caller)
        } catch {
            guard error == .exists, flags & O_EXCL == 0 else { throw error }
            // Somebody else made it since the kernel looked.
            let found = try lookup(name, in: parent, caller)
            guard found.node != 0 else { throw .notFound }
            do throws(Errno) { return (found, try open(found.node, flags: flags, caller)) } catch {
                forget(found.node, count: 1)
                throw error
            }
        }
        let id = NodeID(rawValue: entry.node)
        if flags & O_ACCMODE == O_RDONLY { return (entry, openForReading(id)) }
        return (entry, openPlainly(id, flags: flags).reply)
    }

    private var usesPageCache: Bool { options.cacheMode == .kernel }

    private func openForReading(_ id: NodeID) -> OpenReply {
        let isCached = usesPageCache
        let (generation, keepsCache) = nodes.change(id) { $0.openHandle(isCached: isCached) }
        var reply = OpenReply(handle: Handle.reader(generation: generation, isCached: isCached).rawValue)
        reply.directIO = !isCached
        reply.keepCache = keepsCache
        // Nothing is held back for a reader: close need not ask.
        reply.noFlush = true
        return reply
    }

    private func openForWriting(_ id: NodeID, flags: Int32, truncates: Bool, _ caller: Caller)
        throws(Errno) -> OpenReply
    {
        guard !tree.isReadOnly else { throw .readOnly }
        if truncates, flags & O_ACCMODE == O_WRONLY, let reply = openForReplacing(id, caller) { return reply }
        let (reply, number) = openPlainly(id, flags: flags)
        do throws(Errno) {
            try join(id)
            if truncates {
                var change = AttributeChange()
                change.size = 0
                change.clearsSetID = caller.killsSetID
                let truncation = change
                _ = try answering { () throws(TreeError) in try tree.setAttributes(of: id, truncation, now: .now()) }
            }
        } catch {
            close(number, id)
            throw error
        }
        return reply
    }

    /// Begins a replacement, unless somebody else is writing to the file.
    private func openForReplacing(_ id: NodeID, _ caller: Caller) -> OpenReply? {
        let session = ReplaceSession(of: id, in: tree, clearsSetID: caller.killsSetID)
        openSessions.add(1, ordering: .sequentiallyConsistent)
        let generation: UInt32? = nodes.change(id) { state in
            guard state.session == nil, state.activeWriters == 0 else { return nil }
            state.session = session
            return state.openHandle(isCached: false).generation
        }
        guard let generation else {
            openSessions.subtract(1, ordering: .sequentiallyConsistent)
            return nil
        }
        let writer = Writer(id, session: session, isCached: false, generation: generation)
        var reply = OpenReply(handle: Handle.writer(writers.add(writer)).rawValue)
        // Half a value must not enter the pages that readers share.
        reply.directIO = true
        reply.keepCache = true
        return reply
    }

    private func openPlainly(_ id: NodeID, flags: Int32) -> (reply: OpenReply, number: UInt64) {
        let appendsOnly = flags & O_ACCMODE == O_WRONLY && flags & O_APPEND != 0
        let usesPageCache = usesPageCache
        let (generation, keepsCache, isCached) = nodes.change(id) { state in
            // The kernel may be wrong about a replaced file's size until it asks: then what is appended
            // through the page cache would go to the wrong place in it.
            let isCached = usesPageCache && !(appendsOnly && state.contentGeneration != state.cleanGeneration)
            state.activeWriters += 1
            let (generation, keepsCache) = state.openHandle(isCached: isCached)
            return (generation, keepsCache, isCached)
        }
        let writer = Writer(id, session: nil, isCached: isCached, generation: generation)
        let number = writers.add(writer)
        var reply = OpenReply(handle: Handle.writer(number).rawValue)
        reply.directIO = !isCached
        reply.keepCache = keepsCache
        return (reply, number)
    }

    /// The value that a handle's writer is gathering; nil if it writes to the file itself.
    func session(ofHandle handle: UInt64?) -> ReplaceSession? {
        guard let handle, case .writer(let number) = Handle(handle), let session = writers[number]?.session,
            session.isOpen
        else { return nil }
        return session
    }

    /// Before a change goes to the file itself: the writer counts as one, and what is being gathered comes first.
    func beginPlainChange(of id: NodeID, handle: UInt64?) throws(Errno) {
        if let handle, case .writer(let number) = Handle(handle), let writer = writers[number],
            !writer.isActive.exchange(true, ordering: .acquiringAndReleasing)
        {
            nodes.change(id) { $0.activeWriters += 1 }
        }
        try join(id)
    }

    public func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        guard case .writer(let number) = Handle(handle), let writer = writers[number] else { return }
        if let session = writer.session, session.isOpen { try commit(session, .flush, by: caller) }
        endWriting(writer)
    }

    private func endWriting(_ writer: Writer) {
        guard writer.isActive.exchange(false, ordering: .acquiringAndReleasing) else { return }
        _ = nodes.update(writer.node) { $0.activeWriters -= min(1, $0.activeWriters) }
    }

    public func release(_ node: UInt64, handle: UInt64, flags: Int32) {
        switch Handle(handle) {
        case .control(let number): _ = controlFiles.remove(number)
        case .writer(let number): close(number, NodeID(rawValue: node))
        case .reader(let generation, let isCached):
            nodes.closeHandle(NodeID(rawValue: node)) { $0.closeHandle(isCached: isCached, generation) }
        }
    }

    private func close(_ number: UInt64, _ id: NodeID) {
        guard let writer = writers.remove(number) else { return }
        if let session = writer.session, session.isOpen { finish(session) }
        endWriting(writer)
        nodes.closeHandle(id) { $0.closeHandle(isCached: writer.isCached, writer.generation) }
    }

    public func synchronize(_ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller) throws(Errno) {
        guard ControlNode(node) == nil else { return }
        if let session = session(ofHandle: handle) { try commit(session) }
        try answering { () throws(TreeError) in try tree.sync() }
    }
}

extension NodeState {
    /// One handle more.
    ///
    /// - Returns: the content's generation, and whether the kernel may keep the pages it has.
    mutating func openHandle(isCached: Bool) -> (generation: UInt32, keepsCache: Bool) {
        openHandles += 1
        if isCached {
            cachedHandles += 1
            mayHavePages = true
        }
        return (contentGeneration, contentGeneration == cleanGeneration)
    }

    mutating func closeHandle(isCached: Bool, _ generation: UInt32) {
        guard isCached else { return }
        cachedHandles -= min(1, cachedHandles)
        // The kernel has had the answer to this handle's opening, and dropped older pages with it.
        if generation == contentGeneration { cleanGeneration = generation }
    }
}
