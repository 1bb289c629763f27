import Access
public import Fuse
import Glibc
import Keyring
import SecretTree

extension SecretFS {
    /// The control directory's name is taken in the root, and nowhere else.
    func isControlName(_ name: UnsafeRawBufferPointer, in parent: UInt64) -> Bool {
        parent == NodeID.root.rawValue && name.elementsEqual(ControlNode.rootName.utf8)
    }

    /// A directory of the tree in which something is made or removed.
    private func directory(_ parent: UInt64) throws(Errno) -> NodeID {
        guard ControlNode(parent) == nil else { throw .notPermitted }
        return NodeID(rawValue: parent)
    }

    public func lookup(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller)
        throws(Errno) -> EntryReply
    {
        if isControlName(name, in: parent) { return try controlEntry(.root) }
        if let control = ControlNode(parent) { return try controlEntry(control.child(name, of: self)) }
        let changes = changesSoFar
        do throws(TreeError) {
            let attributes = try tree.lookup(name, in: NodeID(rawValue: parent))
            gate.paths.note(attributes.id, named: name, in: NodeID(rawValue: parent))
            return entry(attributes, since: changes)
        } catch {
            guard case .notFound = error else { throw Errno(error) }
            // Absent names are asked for as often as present ones; the kernel remembers both.
            return EntryReply(
                node: 0, attributes: stat(), entryValidity: Self.validity, attributeValidity: Self.validity)
        }
    }

    public func forget(_ node: UInt64, count: UInt64) {
        guard ControlNode(node) == nil else { return }
        nodes.forget(NodeID(rawValue: node), count: count)
    }

    public func readLink(_ node: UInt64, into target: UnsafeMutableRawBufferPointer, _ caller: Caller)
        throws(Errno) -> Int
    {
        guard ControlNode(node) == nil else { throw .invalid }
        return try answering { () throws(TreeError) in
            try tree.readTarget(of: NodeID(rawValue: node), into: target)
        }
    }

    func new(_ type: NodeType, mode: UInt32, _ caller: Caller) -> NewNode {
        // The kernel leaves the mask to us (FUSE_CAP_DONT_MASK).
        let permissions = type == .symbolicLink ? 0o777 : mode & 0o7777 & ~options.umask
        var new = NewNode(type: type, permissions: UInt16(permissions), uid: caller.uid, gid: caller.gid)
        new.mask = UInt16(caller.umask & 0o777)
        return new
    }

    func make(
        _ new: NewNode, _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer? = nil
    ) throws(Errno) -> EntryReply {
        let directory = try directory(parent)
        guard !isControlName(name, in: parent) else { throw .exists }
        let changes = changesSoFar
        let attributes = try answering { () throws(TreeError) in
            try tree.make(new, named: name, in: directory, target: target, now: .now())
        }
        gate.paths.note(attributes.id, named: name, in: directory)
        return entry(attributes, since: changes)
    }

    /// Regular files, FIFOs and sockets; device nodes for whom the kernel lets make them (CAP_MKNOD).
    public func makeNode(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, device: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply {
        guard let type = NodeType(mknodMode: mode) else { throw .invalid }
        var new = new(type, mode: mode, caller)
        if type == .characterDevice || type == .blockDevice { new.device = device }
        let node = new
        return try guarded(AccessRequest(.makeNode, .write, .name(name, in: parent)), caller) { () throws(Errno) in
            try make(node, name, in: parent)
        }
    }

    public func makeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, _ caller: Caller)
        throws(Errno) -> EntryReply
    {
        try guarded(AccessRequest(.makeDirectory, .write, .name(name, in: parent)), caller) { () throws(Errno) in
            try make(new(.directory, mode: mode, caller), name, in: parent)
        }
    }

    public func makeSymbolicLink(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> EntryReply {
        guard target.count < PATH_MAX else { throw Errno(ENAMETOOLONG) }
        return try guarded(AccessRequest(.symlink, .write, .name(name, in: parent)), caller) { () throws(Errno) in
            try make(new(.symbolicLink, mode: 0o777, caller), name, in: parent, target: target)
        }
    }

    public func link(_ node: UInt64, as name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller)
        throws(Errno) -> EntryReply
    {
        let directory = try directory(parent)
        guard ControlNode(node) == nil else { throw .notPermitted }
        guard !isControlName(name, in: parent) else { throw .exists }
        let changes = changesSoFar
        let id = NodeID(rawValue: node)
        return try guarded(AccessRequest(.link, .write, .node(id), to: .name(name, in: parent)), caller) {
            () throws(Errno) in
            let attributes = try answering { () throws(TreeError) in
                try tree.link(id, as: name, in: directory, now: .now())
            }
            gate.paths.note(id, named: name, in: directory)
            gate.paths.changed()
            return entry(attributes, since: changes)
        }
    }

    public func unlink(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        let directory = try directory(parent)
        guard !isControlName(name, in: parent) else { throw .isDirectory }
        try guarded(AccessRequest(.unlink, .write, .name(name, in: parent)), caller) { () throws(Errno) in
            _ = try answering { () throws(TreeError) in try tree.unlink(name, in: directory, now: .now()) }
            gate.paths.changed()
        }
    }

    public func removeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        let directory = try directory(parent)
        guard !isControlName(name, in: parent) else { throw .notPermitted }
        try guarded(AccessRequest(.rmdir, .write, .name(name, in: parent)), caller) { () throws(Errno) in
            _ = try answering { () throws(TreeError) in try tree.removeDirectory(name, in: directory, now: .now()) }
            gate.paths.changed()
        }
    }

    public func rename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer,
        in newParent: UInt64, flags: UInt32, _ caller: Caller
    ) throws(Errno) {
        let (mode, leavesWhiteout) = try Self.renameMode(flags)
        let old = try directory(parent)
        let new = try directory(newParent)
        guard !isControlName(name, in: parent), !isControlName(newName, in: newParent) else { throw .notPermitted }
        var request = AccessRequest(.rename, .write, .name(name, in: parent), to: .name(newName, in: newParent))
        request.isExchange = mode == .exchange
        try guarded(request, caller) { () throws(Errno) in
            _ = try answering { () throws(TreeError) in
                try tree.rename(
                    name, in: old, to: newName, in: new, mode,
                    leaving: leavesWhiteout ? self.new(.characterDevice, mode: 0, caller) : nil, now: .now())
            }
            gate.paths.changed()
            noteMove(of: name, in: old, to: newName, in: new, isExchange: mode == .exchange)
        }
    }

    /// renameat2(2)'s flags: no replacement 1, exchange 2, whiteout 4: a character device 0:0 is left at the old name,
    /// by which a union file system knows that something was there.
    private static func renameMode(_ flags: UInt32) throws(Errno) -> (RenameMode, leavesWhiteout: Bool) {
        switch flags {
        case 0: (.replace, false)
        case 1: (.noReplace, false)
        case 2: (.exchange, false)
        case 4: (.replace, true)
        case 5: (.noReplace, true)
        default: throw .invalid
        }
    }
}
