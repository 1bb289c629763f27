import Access
public import Fuse
public import Glibc
import Keyring
import SecretTree
import Synchronization

extension SecretFS {
    /// How many values had changed before something is read; see `attributeValidity`.
    var changesSoFar: UInt64 { valueChanges.load(ordering: .sequentiallyConsistent) }

    /// A node as an answer to a lookup or creation; the kernel then holds it once more.
    func entry(_ attributes: NodeAttributes, since changes: UInt64) -> EntryReply {
        nodes.hold(attributes.id)
        return EntryReply(
            node: attributes.id.rawValue, attributes: stat(attributes, options), entryValidity: Self.validity,
            attributeValidity: attributeValidity(of: attributes.id, since: changes))
    }

    public func attributes(of node: UInt64, handle: UInt64?, _ caller: Caller)
        throws(Errno) -> (stat, validity: Double)
    {
        if let control = ControlNode(node) { return (try controlAttributes(control), controlValidity(control)) }
        let id = NodeID(rawValue: node)
        if let session = session(ofHandle: handle) { return try attributes(of: id, gatheredBy: session) }
        settle(id)
        if handle == nil, let session = session(of: id), session.isWritten(by: caller.pid) {
            return try attributes(of: id, gatheredBy: session)
        }
        let changes = changesSoFar
        var attributes = try answering { () throws(TreeError) in try tree.attributes(of: id) }
        if let size = oldSize(of: id, handle: handle, caller) {
            attributes.size = size
            return (stat(attributes, options), 0)
        }
        return (stat(attributes, options), attributeValidity(of: id, since: changes))
    }

    public func birthTime(of node: UInt64) -> timespec? {
        guard ControlNode(node) == nil else { return nil }
        return try? tree.attributes(of: NodeID(rawValue: node)).birthTime.timespec
    }

    /// As the one who writes the value sees them.
    private func attributes(of id: NodeID, gatheredBy session: ReplaceSession)
        throws(Errno) -> (stat, validity: Double)
    {
        var attributes = try answering { () throws(TreeError) in try tree.attributes(of: id) }
        if let byteCount = session.byteCount { attributes.size = byteCount }
        return (stat(attributes, options), 0)
    }

    public func setAttributes(
        of node: UInt64, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller
    ) throws(Errno) -> (stat, validity: Double) {
        if let control = ControlNode(node) {
            // A truncation is what `>` does before it writes; everything else would change what cannot change.
            guard request.size != nil, request.mode == nil, request.uid == nil, request.gid == nil else {
                throw .notPermitted
            }
            return (try controlAttributes(control), Self.validity)
        }
        let id = NodeID(rawValue: node)
        // What a writer does to his own open file was decided when he opened it.
        if let handle, request.size != nil {
            try recheckWriting(id, handle, caller)
            return try setAttributes(of: id, handle: handle, request, caller)
        }
        return try guarded(AccessRequest(.setAttributes, .write, .node(id)), caller) { () throws(Errno) in
            try setAttributes(of: id, handle: handle, request, caller)
        }
    }

    private func setAttributes(of id: NodeID, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller)
        throws(Errno) -> (stat, validity: Double)
    {
        let now = Timestamp.now()
        var change = AttributeChange()
        change.permissions = request.mode.map { UInt16($0 & 0o7777) }
        change.uid = request.uid
        change.gid = request.gid
        change.accessTime = request.accessTime.map { Timestamp($0, now: now) }
        change.modificationTime = request.modificationTime.map { Timestamp($0, now: now) }
        // A request for nothing at all is chown(2) with neither owner nor group, which takes the bits away too.
        let isChown = request.uid != nil || request.gid != nil || request.asksForNothing
        change.clearsSetID = request.mode == nil && (request.killsSetID || isChown)
        if change.clearsSetID, isChown {
            let present = try answering { () throws(TreeError) in try tree.attributes(of: id) }
            change.clearsSetID = present.type != .directory
            if request.asksForNothing, change.clearsSetID, present.losesSetID(to: caller) {
                // Nobody has checked who asks, as the kernel finds no attribute in the request. It may be a write through
                // the page cache, or fallocate(2), for which an open descriptor is enough.
                let isWriting = writers.contains { $0.node == id }
                guard caller.uid == 0 || caller.uid == present.uid || isWriting else { throw .notPermitted }
            }
        }
        if let size = request.size {
            guard size >= 0 else { throw .invalid }
            let own = session(ofHandle: handle)
            let writing = ReplaceSession.Writing(thread: caller.pid, clearsSetID: change.clearsSetID, now: now)
            if let own, try own.truncate(to: UInt64(size), writing) {
                if change.hasAny {
                    _ = try answering { () throws(TreeError) in try tree.setAttributes(of: id, change, now: now) }
                }
                return try attributes(of: id, gatheredBy: own)
            }
            if size == 0, handle == nil, !change.hasAny {
                settle(id)
                if beginReplacing(id, clearsSetID: change.clearsSetID, caller) {
                    let attributes = try answering { () throws(TreeError) in try tree.attributes(of: id) }
                    return (stat(attributes, options), 0)
                }
            }
            try beginPlainChange(of: id, handle: handle)
            change.size = UInt64(size)
        } else {
            settle(id)
        }
        if case .at? = request.modificationTime, let time = change.modificationTime {
            session(of: id)?.keep(modificationTime: time)
        }
        let changes = changesSoFar
        let requested = change
        let attributes = try answering { () throws(TreeError) in
            try tree.setAttributes(of: id, requested, now: now)
        }
        if requested.size != nil, handle == nil { tellChanged(id, by: caller) }
        return (stat(attributes, options), attributeValidity(of: id, since: changes))
    }
}

extension NodeAttributes {
    /// Whether a chown(2) that asks for nothing would take bits away. The set-group-id bit of what its group may not run
    /// stays for the group.
    fileprivate func losesSetID(to caller: Caller) -> Bool {
        permissions & 0o6000 != 0 && (permissions & 0o6010 != 0o2000 || caller.gid != gid)
    }
}

extension AttributeRequest {
    fileprivate var asksForNothing: Bool {
        mode == nil && size == nil && accessTime == nil && modificationTime == nil
    }
}

extension AttributeChange {
    fileprivate var hasAny: Bool {
        permissions != nil || uid != nil || gid != nil || accessTime != nil || modificationTime != nil
    }
}
