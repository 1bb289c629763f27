import Fuse
import Glibc
import Keyring
import SecretFS
import SecretTree
import Sodium
import Storage
import Testing

/// A file system over a tree in memory, asked as the kernel asks it.
final class MountedTree {
    let tree: SecretTree
    let fileSystem: SecretFS
    let caller = Caller(uid: 0, gid: 0, pid: getpid(), umask: 0o022, unique: 1, isResend: false)
    private let keyFile: String

    init(cache: SecretFSOptions.CacheMode = .kernel, hooks: HookStage? = nil) throws {
        LockedMemory.allowsUnlocked = true
        try Sodium.start()
        var template = Array("/tmp/letterlock-key-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        #expect(Glibc.write(descriptor, Array(0..<32 as Range<UInt8>), 32) == 32)
        Glibc.close(descriptor)
        keyFile = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        let store = MemoryStore()
        let keyring = try UnlockedKeyring.create(
            name: "test", service: FileKeyService(path: keyFile), now: .now())
        try SecretTree.create(in: store, keyring: keyring, uid: 0, gid: 0, now: .now())
        tree = try SecretTree.open(store, keyring: keyring, readOnly: false, seenEpoch: nil, now: .now())
        var options = SecretFSOptions(ownerUID: 0, ownerGID: 0)
        options.cacheMode = cache
        options.hooks = hooks
        fileSystem = SecretFS(tree, options: options)
    }

    deinit { unlink(keyFile) }

    func named<R>(_ name: String, _ body: (UnsafeRawBufferPointer) throws(Errno) -> R) throws(Errno) -> R {
        var name = name
        return try name.withUTF8 { text in
            Result { () throws(Errno) -> R in try body(UnsafeRawBufferPointer(text)) }
        }.get()
    }

    func lookup(_ name: String, in parent: UInt64 = 1) throws(Errno) -> UInt64 {
        let node = try named(name) { name throws(Errno) in try fileSystem.lookup(name, in: parent, caller).node }
        guard node != 0 else { throw Errno(ENOENT) }
        return node
    }

    /// A node of the control directory.
    func control(_ path: String) throws(Errno) -> UInt64 {
        var node = try lookup(".letterlock")
        for name in path.split(separator: "/") { node = try lookup(String(name), in: node) }
        return node
    }

    /// Makes a file with a value.
    func make(_ name: String, _ value: String) throws(Errno) -> UInt64 {
        let (entry, opened) = try named(name) { name throws(Errno) in
            try fileSystem.create(name, in: 1, mode: 0o644, flags: O_WRONLY | O_CREAT, caller)
        }
        try write(value, to: entry.node, opened.handle)
        try close(entry.node, opened.handle)
        return entry.node
    }

    /// Opens as the kernel does for O_WRONLY|O_TRUNC: OPEN, then SETATTR without a handle.
    func openToReplace(_ node: UInt64) throws(Errno) -> UInt64 {
        let opened = try fileSystem.open(node, flags: O_WRONLY, caller)
        #expect(opened.directIO)
        var truncation = AttributeRequest()
        truncation.size = 0
        _ = try fileSystem.setAttributes(of: node, handle: nil, truncation, caller)
        return opened.handle
    }

    func write(_ text: String, to node: UInt64, _ handle: UInt64, at offset: Int64 = 0) throws(Errno) {
        _ = try named(text) { bytes throws(Errno) in
            try fileSystem.write(
                node, handle: handle, flags: O_WRONLY, at: offset, from: bytes, killsSetID: false, caller)
        }
    }

    func close(_ node: UInt64, _ handle: UInt64) throws(Errno) {
        try fileSystem.flush(node, handle: handle, caller)
        fileSystem.release(node, handle: handle, flags: O_WRONLY)
    }

    func read(_ node: UInt64, _ handle: UInt64, at offset: Int64 = 0, _ count: Int = 4096) throws(Errno) -> String {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let found = try bytes.withUnsafeMutableBytes { buffer in
            Result { () throws(Errno) in
                try fileSystem.read(node, handle: handle, flags: O_RDONLY, at: offset, into: buffer, caller)
            }
        }.get()
        return String(decoding: bytes.prefix(found), as: UTF8.self)
    }

    /// What who opens the file now reads.
    func value(_ node: UInt64) throws(Errno) -> String {
        let opened = try fileSystem.open(node, flags: O_RDONLY, caller)
        defer { fileSystem.release(node, handle: opened.handle, flags: O_RDONLY) }
        return try read(node, opened.handle)
    }

    func command(_ text: String, _ path: String) throws(Errno) {
        let node = try control(path)
        let opened = try fileSystem.open(node, flags: O_WRONLY, caller)
        defer { fileSystem.release(node, handle: opened.handle, flags: O_WRONLY) }
        try write(text, to: node, opened.handle)
    }

    func size(_ node: UInt64) throws(Errno) -> Int {
        try fileSystem.attributes(
            of: node, handle: nil,
            Caller(
                uid: 0, gid: 0, pid: 1, umask: 0, unique: 2, isResend: false)
        ).0.st_size
    }
}

/// The errno that a call fails with; 0 if it does not.
func failure(_ body: () throws(Errno) -> Void) -> Int32 {
    do throws(Errno) { try body() } catch { return error.rawValue }
    return 0
}
