import Fuse
import Glibc
import Synchronization

/// A small file system in memory, for the room to serve, that counts and remembers what it was asked.
final class MemoryFileSystem: FileSystem {
    struct Node {
        var attributes: stat
        var content: [UInt8] = []
        var extended: [[UInt8]: [UInt8]] = [:]
        var names: [[UInt8]: UInt64] = [:]
        /// In the order of their cookies.
        var entries: [(cookie: Int64, name: [UInt8], node: UInt64)] = []
    }

    struct State {
        var nodes: [UInt64: Node] = [:]
        var nextNode: UInt64 = 2
        var nextCookie: Int64 = 3
        /// How often each operation was called.
        var calls: [String: Int] = [:]
        /// What was asked for in words a test can look up: `open`'s flags, `rename`'s, `allocate`'s and `seek`'s.
        var log: [String] = []
        var resent: [String] = []
        var keepsCache = false
        var validity = 3600.0
    }

    let state: Mutex<State>
    /// While true, a READ that begins waits for `release`.
    let holdsReads = Atomic<Bool>(false)
    let held = Atomic<Int>(0)
    let releases = Atomic<Bool>(false)

    init() {
        var state = State()
        state.nodes[1] = Self.node(1, mode: S_IFDIR | 0o755)
        self.state = Mutex(state)
    }

    static func node(_ number: UInt64, mode: UInt32) -> Node {
        var attributes = stat()
        attributes.st_ino = UInt(number)
        attributes.st_mode = mode
        attributes.st_nlink = mode & S_IFMT == S_IFDIR ? 2 : 1
        attributes.st_blksize = 4096
        attributes.st_mtim.tv_sec = 1_000_000
        return Node(attributes: attributes)
    }

    func count(_ operation: String) -> Int { state.withLock { $0.calls[operation] ?? 0 } }
    func logged(_ word: String) -> Bool { state.withLock { $0.log.contains(word) } }

    /// Makes a file behind the kernel's back.
    @discardableResult
    func make(_ name: String, _ content: String, extended: [String: [UInt8]] = [:]) -> UInt64 {
        state.withLock { state in
            let number = state.add(Array(name.utf8), in: 1, mode: S_IFREG | 0o644)
            state.nodes[number]?.content = Array(content.utf8)
            state.nodes[number]?.attributes.st_size = content.utf8.count
            for (key, value) in extended { state.nodes[number]?.extended[Array(key.utf8)] = value }
            return number
        }
    }

    func replace(_ node: UInt64, _ content: String) {
        state.withLock { $0.nodes[node]?.content = Array(content.utf8) }
    }

    /// Runs `body` on a node under the lock, counting the call.
    func with<R>(
        _ node: UInt64, _ operation: String, _ body: (inout State, inout Node) throws(Errno) -> R
    ) throws(Errno) -> R {
        let result: Result<R, Errno> = state.withLock { state in
            state.calls[operation, default: 0] += 1
            guard var copy = state.nodes.removeValue(forKey: node) else { return .failure(Errno(ENOENT)) }
            let result: Result<R, Errno>
            do throws(Errno) { result = .success(try body(&state, &copy)) } catch { result = .failure(error) }
            state.nodes[node] = copy
            return result
        }
        return try result.get()
    }

    func reply(_ node: Node, _ validity: Double) -> EntryReply {
        EntryReply(
            node: UInt64(node.attributes.st_ino), attributes: node.attributes, entryValidity: validity,
            attributeValidity: validity)
    }

    // MARK: - Names

    func lookup(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) -> EntryReply {
        let name = Array(name)
        return try with(parent, "lookup") { state, directory throws(Errno) in
            guard let number = directory.names[name], let node = state.nodes[number] else {
                return EntryReply(
                    node: 0, attributes: stat(), entryValidity: state.validity, attributeValidity: 0)
            }
            return reply(node, state.validity)
        }
    }

    func attributes(of node: UInt64, handle: UInt64?, _ caller: Caller) throws(Errno) -> (stat, validity: Double) {
        try with(node, "getattr") { state, node throws(Errno) in (node.attributes, state.validity) }
    }

    func setAttributes(
        of node: UInt64, handle: UInt64?, _ request: AttributeRequest, _ caller: Caller
    ) throws(Errno) -> (stat, validity: Double) {
        try with(node, "setattr") { state, node throws(Errno) in
            if let mode = request.mode { node.attributes.st_mode = node.attributes.st_mode & S_IFMT | mode & 0o7777 }
            if let uid = request.uid { node.attributes.st_uid = uid }
            if let gid = request.gid { node.attributes.st_gid = gid }
            if let size = request.size { node.resize(Int(size)) }
            if case .at(let time) = request.modificationTime { node.attributes.st_mtim = time }
            return (node.attributes, state.validity)
        }
    }

    func readLink(_ node: UInt64, into target: UnsafeMutableRawBufferPointer, _ caller: Caller) throws(Errno) -> Int {
        try with(node, "readlink") { _, node throws(Errno) in
            guard node.content.count <= target.count else { throw Errno(EINVAL) }
            target.copyBytes(from: node.content)
            return node.content.count
        }
    }

    func makeNode(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, device: UInt64, _ caller: Caller
    ) throws(Errno) -> EntryReply { try add(name, parent, mode & ~(caller.umask & 0o777)) }

    func makeDirectory(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, _ caller: Caller
    ) throws(Errno) -> EntryReply { try add(name, parent, mode & ~(caller.umask & 0o777)) }

    func makeSymbolicLink(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, target: UnsafeRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> EntryReply { try add(name, parent, S_IFLNK | 0o777, content: Array(target)) }

    func add(
        _ name: UnsafeRawBufferPointer, _ parent: UInt64, _ mode: UInt32, content: [UInt8] = []
    ) throws(Errno) -> EntryReply {
        let name = Array(name)
        let reply: EntryReply? = state.withLock { state in
            guard state.nodes[parent]?.names[name] == nil else { return nil }
            let number = state.add(name, in: parent, mode: mode)
            state.nodes[number]?.content = content
            state.nodes[number]?.attributes.st_size = content.count
            return state.nodes[number].map { self.reply($0, state.validity) }
        }
        guard let reply else { throw Errno(EEXIST) }
        return reply
    }

    func unlink(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        let name = Array(name)
        try with(parent, "unlink") { _, directory throws(Errno) in
            guard directory.remove(name) != nil else { throw Errno(ENOENT) }
        }
    }

    func removeDirectory(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) {
        try unlink(name, in: parent, caller)
    }

    func rename(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, to newName: UnsafeRawBufferPointer,
        in newParent: UInt64, flags: UInt32, _ caller: Caller
    ) throws(Errno) {
        let (name, newName) = (Array(name), Array(newName))
        guard flags == 0 else {
            state.withLock { $0.log.append("rename \(flags)") }
            throw Errno(EINVAL)
        }
        try with(parent, "rename") { state, directory throws(Errno) in
            guard parent == newParent else { throw Errno(EXDEV) }
            guard let node = directory.remove(name) else { throw Errno(ENOENT) }
            _ = directory.remove(newName)
            directory.insert(newName, node, cookie: &state.nextCookie)
        }
    }

    // MARK: - Contents

    func create(
        _ name: UnsafeRawBufferPointer, in parent: UInt64, mode: UInt32, flags: Int32, _ caller: Caller
    ) throws(Errno) -> (EntryReply, OpenReply) {
        state.withLock { $0.calls["create", default: 0] += 1 }
        return (try add(name, parent, mode & ~caller.umask), OpenReply(handle: 7))
    }

    func open(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        try with(node, "open") { state, node throws(Errno) in
            if flags & O_TRUNC != 0 {
                state.log.append("open truncating")
                node.resize(0)
            }
            var opened = OpenReply(handle: 7)
            opened.keepCache = state.keepsCache
            return opened
        }
    }

    func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64,
        into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int {
        if caller.isResend { state.withLock { $0.resent.append("read") } }
        if holdsReads.load(ordering: .sequentiallyConsistent) {
            held.add(1, ordering: .sequentiallyConsistent)
            while !releases.load(ordering: .sequentiallyConsistent) { usleep(1000) }
        }
        return try with(node, "read") { _, node throws(Errno) in
            guard offset >= 0, offset < node.content.count else { return 0 }
            let part = node.content[Int(offset)...].prefix(buffer.count)
            buffer.copyBytes(from: part)
            return part.count
        }
    }

    func write(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, from buffer: UnsafeRawBufferPointer,
        killsSetID: Bool, _ caller: Caller
    ) throws(Errno) -> Int {
        try with(node, "write") { _, node throws(Errno) in
            guard (0...1 << 26).contains(offset) else { throw Errno(EFBIG) }
            let end = Int(offset) + buffer.count
            if end > node.content.count { node.resize(end) }
            node.content.replaceSubrange(Int(offset)..<end, with: buffer)
            if killsSetID { node.attributes.st_mode &= ~UInt32(S_ISUID) }
            return buffer.count
        }
    }

    func flush(_ node: UInt64, handle: UInt64, _ caller: Caller) throws(Errno) {
        state.withLock { $0.calls["flush", default: 0] += 1 }
    }

    func synchronize(_ node: UInt64, handle: UInt64, dataOnly: Bool, _ caller: Caller) throws(Errno) {
        state.withLock { $0.log.append("fsync \(dataOnly)") }
    }

    func allocate(
        _ node: UInt64, handle: UInt64, mode: Int32, at offset: Int64, count: Int64, _ caller: Caller
    ) throws(Errno) {
        state.withLock { $0.log.append("allocate \(mode) \(offset) \(count)") }
    }

    func seek(
        _ node: UInt64, handle: UInt64, from offset: Int64, whence: Int32, _ caller: Caller
    ) throws(Errno) -> Int64 {
        try with(node, "seek") { state, node throws(Errno) in
            state.log.append("seek \(whence) \(offset)")
            guard offset < node.content.count else { throw Errno(ENXIO) }
            return whence == SEEK_HOLE ? Int64(node.content.count) : offset
        }
    }

    // MARK: - Directories, file system, extended attributes

    func openDirectory(_ node: UInt64, flags: Int32, _ caller: Caller) throws(Errno) -> OpenReply {
        OpenReply(handle: 0)
    }

    func readDirectory<Sink: DirectorySink & ~Copyable>(
        _ node: UInt64, handle: UInt64, from offset: Int64, into sink: inout Sink, _ caller: Caller
    ) throws(Errno) {
        let (entries, nodes, validity) = state.withLock { state in
            state.calls[sink.wantsAttributes ? "readdirplus" : "readdir", default: 0] += 1
            let entries = state.nodes[node]?.entries ?? []
            let start = entries.partitionPoint { $0.cookie > offset }
            return (entries[start...].prefix(2000), state.nodes, state.validity)
        }
        for (cookie, name) in [(Int64(1), "."), (2, "..")] where offset < cookie {
            let fits = Array(name.utf8).withUnsafeBytes {
                sink.add(name: $0, node: 1, type: UInt32(DT_DIR), nextOffset: cookie)
            }
            guard fits else { return }
        }
        for entry in entries {
            guard let node = nodes[entry.node] else { continue }
            let fits = entry.name.withUnsafeBytes { name in
                sink.wantsAttributes
                    ? sink.add(name: name, entry: reply(node, validity), nextOffset: entry.cookie)
                    : sink.add(
                        name: name, node: entry.node, type: node.attributes.st_mode, nextOffset: entry.cookie)
            }
            guard fits else { return }
        }
    }

    func statistics(of node: UInt64, _ caller: Caller) throws(Errno) -> statvfs {
        var statistics = statvfs()
        statistics.f_bsize = 4096
        statistics.f_frsize = 4096
        statistics.f_blocks = 12345
        statistics.f_namemax = 255
        return statistics
    }

    func setExtendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ value: UnsafeRawBufferPointer, flags: Int32,
        _ caller: Caller
    ) throws(Errno) {
        let (name, value) = (Array(name), Array(value))
        try with(node, "setxattr") { _, node throws(Errno) in node.extended[name] = value }
    }

    func extendedAttribute(
        _ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        let name = Array(name)
        try with(node, "getxattr") { state, node throws(Errno) in
            state.log.append("getxattr " + String(decoding: name, as: UTF8.self))
            guard let value = node.extended[name] else { throw Errno(ENODATA) }
            value.withUnsafeBytes(reply)
        }
    }

    func listExtendedAttributes(
        _ node: UInt64, _ caller: Caller, reply: (UnsafeRawBufferPointer) -> Void
    ) throws(Errno) {
        try with(node, "listxattr") { _, node throws(Errno) in
            Array(node.extended.keys.map { $0 + [0] }.joined()).withUnsafeBytes(reply)
        }
    }

    func removeExtendedAttribute(_ node: UInt64, _ name: UnsafeRawBufferPointer, _ caller: Caller) throws(Errno) {
        let name = Array(name)
        try with(node, "removexattr") { _, node throws(Errno) in
            guard node.extended.removeValue(forKey: name) != nil else { throw Errno(ENODATA) }
        }
    }
}

extension MemoryFileSystem.State {
    mutating func add(_ name: [UInt8], in parent: UInt64, mode: UInt32) -> UInt64 {
        let number = nextNode
        nextNode += 1
        nodes[number] = MemoryFileSystem.node(number, mode: mode)
        nodes[parent]?.insert(name, number, cookie: &nextCookie)
        return number
    }
}

extension MemoryFileSystem.Node {
    mutating func resize(_ count: Int) {
        let bounded = max(0, min(count, 1 << 27))
        if bounded < content.count { content.removeLast(content.count - bounded) }
        if bounded > content.count { content += [UInt8](repeating: 0, count: bounded - content.count) }
        attributes.st_size = bounded
    }

    mutating func insert(_ name: [UInt8], _ node: UInt64, cookie: inout Int64) {
        names[name] = node
        entries.append((cookie, name, node))
        cookie += 1
    }

    mutating func remove(_ name: [UInt8]) -> UInt64? {
        guard let node = names.removeValue(forKey: name) else { return nil }
        entries.removeAll { $0.name == name }
        return node
    }
}

extension Array {
    /// The first index at which `holds` is true, of an array in which it stays true from there on.
    func partitionPoint(_ holds: (Element) -> Bool) -> Int {
        var (low, high) = (0, count)
        while low < high {
            let middle = (low + high) / 2
            if holds(self[middle]) { high = middle } else { low = middle + 1 }
        }
        return low
    }
}
