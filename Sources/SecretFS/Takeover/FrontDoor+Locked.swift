import Access
import Fuse
import Glibc
import Keyring
import SecretTree

/// What is there while the keyring is locked: the root, and of the control directory `status`, `lock`, `unlock` and
/// `events`.
extension FrontDoor {
    private static let names = ["status", "lock", "unlock", ControlNode.eventsName]

    private static func node(_ name: String) -> ControlNode? {
        ControlFile.table.firstIndex { $0.place == .top && $0.name == name }.map { ControlNode(.file($0, nil)) }
    }

    private func name(of node: UInt64) -> String? {
        Self.names.first { Self.node($0)?.number == node }
    }

    func isLockFile(_ node: UInt64) -> Bool { node == Self.lockNode || node == Self.unlockNode }

    private static let lockNode = node("lock")?.number
    private static let unlockNode = node("unlock")?.number

    func lockedLookup(_ name: UnsafeRawBufferPointer, in parent: UInt64) throws(Errno) -> EntryReply {
        let name = String(decoding: name, as: UTF8.self)
        let node: UInt64
        if parent == NodeID.root.rawValue, name == ControlNode.rootName {
            node = ControlNode.root.number
        } else if parent == ControlNode.root.number, Self.names.contains(name), let found = Self.node(name) {
            node = found.number
        } else {
            throw Errno(ENOKEY)
        }
        return EntryReply(
            node: node, attributes: try lockedAttributes(of: node).0, entryValidity: 0, attributeValidity: 0)
    }

    func lockedAttributes(of node: UInt64) throws(Errno) -> (stat, validity: Double) {
        if node == NodeID.root.rawValue { return (lockedRoot, 0) }
        guard let control = ControlNode(node), control == .root || name(of: node) != nil else { throw Errno(ENOKEY) }
        var attributes = stat()
        attributes.st_ino = UInt(node)
        attributes.st_uid = options.ownerUID
        attributes.st_gid = options.ownerGID
        attributes.st_blksize = 4096
        attributes.st_nlink = control.isDirectory ? 2 : 1
        attributes.st_mode =
            control.isDirectory ? S_IFDIR | 0o700 : S_IFREG | (isLockFile(node) ? 0o600 : 0o400)
        if control == .events { options.describeEvents(in: &attributes) }
        return (attributes, 0)
    }

    func lockedOpen(_ node: UInt64, _ caller: Caller) throws(Errno) -> OpenReply {
        guard name(of: node) != nil else { throw Errno(ENOKEY) }
        if node == ControlNode.events.number { return try options.openEvents(caller) }
        // Its reading needs no handle: an earlier or later server's may have this number without harm.
        var reply = OpenReply(handle: Handle.control(0).rawValue)
        reply.directIO = true
        reply.noFlush = true
        return reply
    }

    func lockedRead(_ node: UInt64, at offset: Int64, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        switch name(of: node) {
        case "status": return ControlText(lockedStatus).read(at: Int(offset), into: buffer)
        case "lock", "unlock": return ControlText("locked\n").read(at: Int(offset), into: buffer)
        default: throw Errno(ENOKEY)
        }
    }

    /// Nobody decides about a command while it is locked, but who tries is recorded. A server that has found it locked has not begun
    /// its log, which takes the keyring's keys.
    func recordingWhileLocked(
        _ control: ControlNode, _ caller: Caller, _ body: () throws(Errno) -> Void
    ) throws(Errno) {
        guard let audit = options.audit else { return try body() }
        let entry = AuditEntry(
            id: .text(Passage.id(caller.unique, audit)), call: "control", operation: .control,
            path: Array(control.path.utf8), newPath: nil,
            requester: Requester(
                uid: caller.uid, gid: caller.gid,
                process: Access.ProcessTable().identify(thread: caller.pid, uid: caller.uid, gid: caller.gid)),
            isAllowed: true, rule: Decision.unopposed.rule)
        try audit.recording(entry, body)
    }

    /// A command to `lock` or `unlock`.
    func changeLock(_ node: UInt64, at offset: Int64, _ bytes: UnsafeRawBufferPointer) throws(Errno) {
        guard bytes.count <= ControlCommand.limit else { throw .tooBig }
        guard offset == 0 else { throw .invalid }
        if node == Self.lockNode {
            guard let command = ControlCommand(bytes) else { throw .invalid }
            try command.expect("1")
            lockKeyring()
        } else {
            // A passphrase may be anything; it is looked at where it lies.
            let hasNewline = bytes.last == UInt8(ascii: "\n")
            let secret = UnsafeRawBufferPointer(rebasing: hasNewline ? bytes.dropLast() : bytes[...])
            guard !secret.isEmpty else { throw .invalid }
            try unlockKeyring(secret)
        }
    }
}

extension SecretFS {
    /// The write had happened, but perhaps not what comes after it.
    func afterRepeatedWrite(_ node: UInt64) {
        if let control = ControlNode(node) {
            dropUnreadablePages()
            tellRotations()
            if control == .revoke { tellRevoked() }
            return
        }
        dropPages(of: [NodeID(rawValue: node)])
    }
}
