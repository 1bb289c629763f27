import Access
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// The control directory as nodes: attributes, names, and what open files of it do.
extension SecretFS {
    func controlEntry(_ control: ControlNode) throws(Errno) -> EntryReply {
        EntryReply(
            node: control.number, attributes: try controlAttributes(control), entryValidity: Self.validity,
            attributeValidity: controlValidity(control))
    }

    /// For how long the kernel may believe attributes: `events` grows.
    func controlValidity(_ control: ControlNode) -> Double { control == .events ? 0 : Self.validity }

    func controlAttributes(_ control: ControlNode) throws(Errno) -> stat {
        var attributes = stat()
        attributes.st_ino = UInt(control.number)
        attributes.st_uid = options.ownerUID
        attributes.st_gid = options.ownerGID
        attributes.st_blksize = 4096
        attributes.st_atim = started.timespec
        attributes.st_mtim = started.timespec
        attributes.st_ctim = started.timespec
        if control.isDirectory {
            attributes.st_mode = S_IFDIR | 0o700
            let directories = control.children(of: self).count { $0.node.isDirectory }
            attributes.st_nlink = UInt(2 + directories)
        } else {
            attributes.st_mode = S_IFREG | (try controlRow(control).file.mode)
            attributes.st_nlink = 1
            if control == .events { options.describeEvents(in: &attributes) }
        }
        return attributes
    }

    private func controlRow(_ control: ControlNode) throws(Errno) -> (file: ControlFile, version: KEKVersion?) {
        guard case .file(let row, let version) = control.kind else { throw .isDirectory }
        guard ControlFile.table.indices.contains(row) else { throw .notFound }
        return (ControlFile.table[row], version)
    }

    func readControlDirectory<Sink: DirectorySink & ~Copyable>(
        _ control: ControlNode, from offset: Int64, into sink: inout Sink
    ) throws(Errno) {
        guard control.isDirectory else { throw .notADirectory }
        // Rows come first and versions are never taken away, so that positions are stable.
        let children = control.children(of: self).filter { !$0.node.isHidden }
        for (index, child) in children.enumerated().dropFirst(Int(max(0, offset - 2))) {
            var name = child.name
            let next = Int64(index + 3)
            let reply = sink.wantsAttributes ? try controlEntry(child.node) : nil
            let isTaken = name.withUTF8 { name in
                let name = UnsafeRawBufferPointer(name)
                guard let reply else {
                    return sink.add(
                        name: name, node: child.node.number, type: child.node.isDirectory ? S_IFDIR : S_IFREG,
                        nextOffset: next)
                }
                return sink.add(name: name, entry: reply, nextOffset: next)
            }
            guard isTaken else { return }
        }
    }

    func openControlFile(_ control: ControlNode, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        let (file, version) = try controlRow(control)
        let access = flags & O_ACCMODE
        if access != O_RDONLY, !file.takesCommands { throw .accessDenied }
        // What is written is decided at the writing; whoever is shut out shall still see why.
        if file.stream != nil {
            // It gives away the whole keyring, sealed: recorded like a secret that is opened.
            return try guarded(
                AccessRequest(.open, .read, .control(control)), caller,
                undo: { [self] in release(control.number, handle: $0.handle, flags: flags) },
                { () throws(Errno) in try openControlFile(file, version, access) })
        }
        if access != O_WRONLY, gate.isActive, file.name != "status" {
            let passage = Passage(AccessRequest(.open, .read, .control(control)), caller, gate)
            let decision = gate.decide(passage.request, passage.requester, isOpening: false)
            guard decision.isAllowed else { try refuse(passage, decision) }
        }
        if control == .events { return try options.openEvents(caller) }
        return try openControlFile(file, version, access)
    }

    private func openControlFile(_ file: ControlFile, _ version: KEKVersion?, _ access: Int32) throws(Errno)
        -> OpenReply
    {
        let open = OpenControlFile(file, version)
        // One reader gets one value, however many reads it takes.
        if access != O_WRONLY { try open.begin(self) }
        var reply = OpenReply(handle: Handle.control(controlFiles.add(open)).rawValue)
        reply.directIO = true
        reply.noFlush = true
        return reply
    }

    /// The open file behind a handle. One that an earlier server opened is opened again.
    private func openControlFile(_ number: UInt64, of node: UInt64) throws(Errno) -> OpenControlFile {
        if let open = controlFiles[number] { return open }
        guard options.ledger != nil, let control = ControlNode(node) else { throw Errno(EBADF) }
        let (file, version) = try controlRow(control)
        let open = OpenControlFile(file, version)
        controlFiles.insert(open, at: number)
        return open
    }

    func readControlFile(_ number: UInt64, of node: UInt64, at offset: Int, into buffer: UnsafeMutableRawBufferPointer)
        throws(Errno) -> Int
    {
        let open = try openControlFile(number, of: node)
        return try open.read(self, at: offset, into: buffer)
    }

    /// One write is one command. It has taken effect when this returns.
    func writeControlFile(
        _ number: UInt64, of node: UInt64, at offset: Int64, _ bytes: UnsafeRawBufferPointer
    ) throws(Errno) {
        let open = try openControlFile(number, of: node)
        guard open.file.takesCommands else { throw .accessDenied }
        guard bytes.count <= ControlCommand.limit else { throw .tooBig }
        guard offset == 0 else { throw .invalid }
        guard let command = ControlCommand(bytes) else { throw .invalid }
        guard let write = open.file.write else { return try open.begin(self, command) }
        try write(self, open.version ?? KEKVersion(rawValue: 0), command)
        open.forgetText()
    }
}

/// An open control file, with what it read as when it was opened.
final class OpenControlFile: Sendable {
    let file: ControlFile
    let version: KEKVersion?
    private let kept = Mutex<ControlText?>(nil)
    private let stream = Mutex<ControlStream?>(nil)

    init(_ file: ControlFile, _ version: KEKVersion?) {
        self.file = file
        self.version = version
    }

    /// Takes what will be read as it is now.
    ///
    /// - Parameter command: What is wanted of a stream.
    func begin(_ fileSystem: SecretFS, _ command: ControlCommand? = nil) throws(Errno) {
        if let opens = file.stream {
            // The one before it holds old blocks.
            stream.withLock { $0 = nil }
            let opened = try opens(fileSystem, command)
            stream.withLock { $0 = opened }
        } else {
            _ = try text(of: fileSystem)
        }
    }

    func read(_ fileSystem: SecretFS, at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        guard file.stream != nil else { return try text(of: fileSystem).read(at: offset, into: buffer) }
        return try stream.withLock { stream throws(Errno) in
            // Another server has begun it, and only that one could go on with it.
            guard let stream else { throw Errno(ESTALE) }
            return try stream.read(at: offset, into: buffer)
        }
    }

    private func text(of fileSystem: SecretFS) throws(Errno) -> ControlText {
        if let text = kept.withLock({ $0 }) { return text }
        let text = try file.read(fileSystem, version ?? KEKVersion(rawValue: 0))
        kept.withLock { $0 = text }
        return text
    }

    /// After a command the same descriptor reads what holds now.
    func forgetText() { kept.withLock { $0 = nil } }
}
