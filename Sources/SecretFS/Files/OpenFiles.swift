import Access
public import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

extension SecretFS {
    /// The kernel truncates in a request of its own, behind this one: see `beginReplacing`.
    public var truncatesAtOpening: Bool { false }
    public var hasAccessControlLists: Bool { true }

    public func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        if let control = ControlNode(node) { return try openControlFile(control, flags: flags, caller) }
        let id = NodeID(rawValue: node)
        let policy = gate.guardian.generation
        return try guarded(
            AccessRequest(.open, Operations(openFlags: flags), .node(id)), caller,
            undo: { [self] in release(node, handle: $0.handle, flags: flags) },
            { () throws(Errno) in try openFile(id, flags: flags, policy, caller) })
    }

    private func openFile(_ id: NodeID, flags: Int32, _ policy: UInt32, _ caller: Caller) throws(Errno) -> OpenReply {
        settle(id)
        let access = flags & O_ACCMODE
        // Who writes alone may be about to replace the value, and need not be able to read the old one: so a
        // compromised secret gets its new value. Others' writes meet the key where they need it.
        if access != O_WRONLY || flags & O_APPEND != 0 {
            try answering { () throws(TreeError) in try tree.checkReadable(id) }
        }
        if access == O_RDONLY { return openForReading(id, policy, caller) }
        guard !tree.isReadOnly else { throw .readOnly }
        return openForWriting(id, flags: flags, isFresh: access == O_WRONLY, policy, caller).reply
    }

    public func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) {
        let policy = gate.guardian.generation
        do throws(Errno) {
            return try guarded(
                AccessRequest(.create, Operations(openFlags: flags).union(.write), .name(name, in: parent)), caller
            ) { () throws(Errno) in try createNew(name, in: parent, mode: mode, flags: flags, policy, caller) }
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
    }

    /// What policy says of a name that the directory could have.
    public func createTemporary(in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller)
        throws(Errno) -> (EntryReply, OpenReply)
    {
        guard ControlNode(parent) == nil else { throw .notPermitted }
        let policy = gate.guardian.generation
        let name: StaticString = "#tmpfile"
        let bytes = UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
        return try guarded(
            AccessRequest(.create, Operations(openFlags: flags).union(.write), .name(bytes, in: parent)), caller
        ) { () throws(Errno) in
            let changes = changesSoFar
            let new = new(.file, mode: mode & 0o7777, caller)
            let attributes = try answering { () throws(TreeError) in
                try tree.makeTemporary(
                    new, in: NodeID(rawValue: parent), canBeLinked: flags & O_EXCL == 0, now: .now())
            }
            let entry = entry(attributes, since: changes)
            return (entry, openForWriting(attributes.id, flags: flags, isFresh: false, policy, caller).reply)
        }
    }

    private func createNew(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ policy: UInt32,
        _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) {
        let entry = try make(new(.file, mode: mode & 0o7777, caller), name, in: parent)
        let id = NodeID(rawValue: entry.node)
        if flags & O_ACCMODE == O_RDONLY { return (entry, openForReading(id, policy, caller)) }
        return (entry, openForWriting(id, flags: flags, isFresh: false, policy, caller).reply)
    }

    private var usesPageCache: Bool { options.cacheMode == .kernel }

    /// Whether a new descriptor may fill the page cache: not while others are open that an earlier policy let pass, who
    /// would find there what they are refused here.
    func mayShareCache(_ state: inout NodeState) -> Bool {
        state.adopt(gate.guardian.generation)
        return state.staleHandles == 0 && (!state.isInherited || !hasOlderPolicies)
    }

    /// Who writes alone does so past the page cache: half a value must not enter the pages that readers share.
    private func openForWriting(_ id: NodeID, flags: Int32, isFresh: Bool, _ policy: UInt32, _ caller: Caller)
        -> (reply: OpenReply, writer: Writer)
    {
        let mayCache = usesPageCache && flags & O_ACCMODE == O_RDWR
        let appends = flags & O_APPEND != 0
        let now = Self.monotonicTime
        let writer = nodes.change(id) { state in
            // What is appended through the page cache goes to where the kernel takes the end to be.
            let isCached = mayCache && (!appends || state.isCalm(at: now)) && mayShareCache(&state)
            let (generation, _) = state.openHandle(isCached: isCached, under: policy)
            let writer = Writer(
                id, opener: caller.pid, isFresh: isFresh, isCached: isCached, generation: generation, policy: policy,
                cell: options.ledger?.take())
            if isFresh { state.freshWriters.append(writer) }
            return writer
        }
        let number = writers.add(writer)
        writer.cell?.begin(writer, number, caller)
        var reply = OpenReply(handle: Handle.writer(number).rawValue)
        reply.directIO = !writer.isCached
        reply.keepCache = !writer.isCached
        return (reply, writer)
    }

    /// A truncation to nothing by the thread that has just opened the file for writing alone: O_TRUNC.
    ///
    /// The kernel asks for it behind OPEN (and not with it, see `truncatesAtOpening`: it would take the file to be
    /// empty at once, for everyone), and takes the size from the reply: the old one, as it stays for all others.
    ///
    /// - Returns: false if it is another kind of truncation, or somebody else writes too.
    func beginReplacing(_ id: NodeID, clearsSetID: Bool, _ caller: Caller) -> Bool {
        if caller.isResend, hasBegunReplacing(id, caller) { return true }
        let session = ReplaceSession(of: id, in: tree, clearsSetID: clearsSetID, by: caller.pid)
        openSessions.add(1, ordering: .sequentiallyConsistent)
        let writer = nodes.update(id) { state -> Writer? in
            guard state.session == nil, state.activeWriters == 0,
                let writer = state.freshWriters.last(where: { $0.opener == caller.pid })
            else { return nil }
            state.session = session
            return writer
        }
        guard let writer = writer ?? nil else {
            openSessions.subtract(1, ordering: .sequentiallyConsistent)
            return false
        }
        session.remember(in: writer.cell)
        writer.session = session
        endFreshness(of: writer)
        waitForReaders(of: id)
        return true
    }

    /// The truncation comes again: an earlier server has begun with it.
    private func hasBegunReplacing(_ id: NodeID, _ caller: Caller) -> Bool {
        guard let session = session(of: id), session.byteCount == 0 else { return false }
        return writers.contains { $0.session === session && $0.opener == caller.pid }
    }

    private func endFreshness(of writer: Writer) {
        guard writer.isFresh.exchange(false, ordering: .acquiringAndReleasing) else { return }
        writer.cell?.marks.remove(.fresh)
        _ = nodes.update(writer.node) { $0.freshWriters.removeAll { $0 === writer } }
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
        if let handle, case .writer(let number) = Handle(handle), let writer = writers[number] {
            endFreshness(of: writer)
            if !writer.isActive.exchange(true, ordering: .acquiringAndReleasing) {
                writer.cell?.marks.insert(.active)
                nodes.change(id) { $0.activeWriters += 1 }
            }
        }
        try join(id)
    }

    /// After a change that went past the page cache: who reads through it may have fetched an old page meanwhile.
    func endPlainChange(of id: NodeID, handle: UInt64?) {
        guard usesPageCache, let handle, case .writer(let number) = Handle(handle), writers[number]?.isCached == false
        else { return }
        let isBeingRead = nodes.update(id) { state in
            if state.mayBeRead { state.contentGeneration &+= 1 }
            return state.mayBeRead
        }
        if isBeingRead == true { dropPages(of: [id]) }
    }

    public func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        guard case .writer(let number) = Handle(handle), let writer = writers[number] else { return }
        if let session = writer.session, session.isOpen {
            try commit(session, .flush, by: caller, openedBy: writer.opener)
        }
        endFreshness(of: writer)
        endWriting(writer, by: caller)
        writer.isOpenPastCommit.store(false, ordering: .relaxed)
    }

    private func endWriting(_ writer: Writer, by caller: Caller? = nil) {
        guard writer.isActive.exchange(false, ordering: .acquiringAndReleasing) else { return }
        // Before the next server is told that there is nothing to tell.
        tellChanged(writer.node, by: caller)
        writer.cell?.marks.remove(.active)
        _ = nodes.update(writer.node) { $0.activeWriters -= min(1, $0.activeWriters) }
    }

    public func release(_ node: UInt64, handle: UInt64, flags: Int32) {
        if node == ControlNode.events.number { return options.closeEvents(handle) }
        switch Handle(handle) {
        case .control(let number): _ = controlFiles.remove(number)
        case .writer(let number): close(number, NodeID(rawValue: node))
        case .directReader(let number): close(reader: number, NodeID(rawValue: node))
        case .reader(let generation, let era, let policy):
            // Nothing is kept of those that an earlier server opened.
            guard era == self.era & 0xfff else { return }
            nodes.closeHandle(NodeID(rawValue: node)) { $0.closeHandle(isCached: true, generation, under: policy) }
        }
    }

    private func close(_ number: UInt64, _ id: NodeID) {
        guard let writer = writers.remove(number) else { return }
        if let session = writer.session, session.isOpen { finish(session) }
        endFreshness(of: writer)
        endWriting(writer)
        if let cell = writer.cell { options.ledger?.giveBack(cell) }
        nodes.closeHandle(id) { $0.closeHandle(isCached: writer.isCached, writer.generation, under: writer.policy) }
    }

    public func synchronize(_ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller) throws(Errno) {
        guard ControlNode(node) == nil else { return }
        if let session = session(ofHandle: handle) {
            if case .writer(let number) = Handle(handle) {
                writers[number]?.isOpenPastCommit.store(true, ordering: .relaxed)
            }
            try commit(session)
        }
        try answering { () throws(TreeError) in try tree.sync() }
    }
}

extension Operations {
    /// What an opening is for; a program that is run is read.
    init(openFlags flags: Int32) {
        switch flags & O_ACCMODE {
        case O_RDONLY: self = .read
        case O_WRONLY: self = .write
        default: self = [.read, .write]
        }
    }
}

extension NodeState {
    /// Somebody may be reading it with the page cache.
    var mayBeRead: Bool { cachedHandles > 0 || isInherited }

    /// One handle more.
    ///
    /// - Parameter policy: The policy that let it pass.
    /// - Returns: the content's generation, and whether the kernel may keep the pages it has.
    mutating func openHandle(isCached: Bool, under policy: UInt32) -> (generation: UInt32, keepsCache: Bool) {
        openHandles += 1
        // Without the page cache too: a mapping has pages whatever its descriptor was opened for.
        mayHavePages = true
        if isCached {
            cachedHandles += 1
            if (policy ^ self.policy) & Handle.policyMask != 0 { staleHandles += 1 }
        }
        return (contentGeneration, contentGeneration == cleanGeneration)
    }

    /// Counts what was opened under an earlier policy.
    mutating func adopt(_ policy: UInt32) {
        guard self.policy != policy else { return }
        self.policy = policy
        staleHandles = cachedHandles
    }

    mutating func closeHandle(isCached: Bool, _ generation: UInt32, under policy: UInt32) {
        guard isCached else { return }
        cachedHandles -= min(1, cachedHandles)
        if (policy ^ self.policy) & Handle.policyMask != 0 { staleHandles -= min(1, staleHandles) }
        // The kernel has had the answer to this handle's opening, and dropped older pages with it. A handle has 24 bits.
        if (generation ^ contentGeneration) & 0xff_ffff == 0 { cleanGeneration = contentGeneration }
    }
}
