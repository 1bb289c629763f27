import Glibc
import Keyring
import SecretTree
import Sodium
import Storage
import Testing

/// A tree over a store in memory, which can be closed and opened again.
final class House {
    static let now = Timestamp(seconds: 1_700_000_000, nanoseconds: 5)
    let store = MemoryStore()
    let keyring: UnlockedKeyring
    let tree: SecretTree
    private let keyFile: String

    deinit { unlink(keyFile) }

    /// - Parameter firstByte: Of the key file.
    init(firstByte: UInt8 = 0) throws {
        LockedMemory.allowsUnlocked = true
        try Sodium.start()
        keyFile = try House.makeKeyFile(firstByte)
        keyring = try UnlockedKeyring.create(name: "test", service: FileKeyService(path: keyFile), now: House.now)
        try SecretTree.create(in: store, keyring: keyring, uid: 1, gid: 2, now: House.now)
        tree = try SecretTree.open(
            store, keyring: keyring, readOnly: false, seenEpoch: nil, now: House.now)
    }

    /// The tree as a server finds it that starts anew.
    func reopened(readOnly: Bool = false, seenEpoch: UInt64? = nil) throws -> SecretTree {
        try SecretTree.open(
            store, keyring: keyring, readOnly: readOnly, seenEpoch: seenEpoch, now: House.now)
    }

    /// Likewise, with the keyring unlocked anew from its records.
    func reopenedWithKeysOfTheStore() throws -> SecretTree {
        let configuration = try #require(try SecretTree.configuration(of: store))
        let lifecycle = try #require(try SecretTree.lifecycle(of: store))
        let keyring = try configuration.withUnsafeBytes { configuration in
            try lifecycle.withUnsafeBytes { lifecycle in
                try UnlockedKeyring.unlock(
                    configuration: configuration, lifecycle: lifecycle, with: FileKeyService(path: keyFile))
            }
        }
        return try SecretTree.open(store, keyring: keyring, readOnly: false, seenEpoch: nil, now: House.now)
    }

    var keyService: FileKeyService { FileKeyService(path: keyFile) }

    private static func makeKeyFile(_ firstByte: UInt8) throws -> String {
        var template = Array("/tmp/letterlock-key-XXXXXX".utf8CString)
        let descriptor = mkstemp(&template)
        defer { Glibc.close(descriptor) }
        let bytes = (firstByte..<firstByte + 32).map { $0 }
        try #require(write(descriptor, bytes, bytes.count) == 32)
        return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// Puts content into scratch buffers and back: tests may hold "secrets" in arrays.
extension SecretTree {
    func make(_ name: String, in parent: NodeID = .root, _ type: NodeType = .file) throws(TreeError) -> NodeID {
        var name = name
        return try name.withUTF8Bytes { bytes throws(TreeError) in
            try make(
                NewNode(type: type, permissions: 0o644, uid: 1, gid: 2), named: bytes, in: parent, now: House.now
            ).id
        }
    }

    func find(_ name: String, in parent: NodeID = .root) throws(TreeError) -> NodeAttributes {
        var name = name
        return try name.withUTF8Bytes { bytes throws(TreeError) in try lookup(bytes, in: parent) }
    }

    func remove(_ name: String, in parent: NodeID = .root) throws(TreeError) {
        var name = name
        try name.withUTF8Bytes { bytes throws(TreeError) in _ = try unlink(bytes, in: parent, now: House.now) }
    }

    func move(
        _ name: String, in parent: NodeID = .root, to newName: String, in newParent: NodeID = .root,
        _ mode: RenameMode = .replace
    ) throws(TreeError) {
        var name = name
        var newName = newName
        try name.withUTF8Bytes { old throws(TreeError) in
            try newName.withUTF8Bytes { new throws(TreeError) in
                _ = try rename(old, in: parent, to: new, in: newParent, mode, now: House.now)
            }
        }
    }

    func put(_ bytes: [UInt8], at offset: UInt64 = 0, to node: NodeID, appends: Bool = false) throws(TreeError) {
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(TreeError) in
                _ = try write(node, at: offset, from: bytes, appends: appends, clearsSetID: false, now: House.now)
            }
        }
        try result.get()
    }

    func bytes(of node: NodeID, at offset: UInt64 = 0, _ count: Int = 1 << 20) throws(TreeError) -> [UInt8] {
        var bytes = [UInt8](repeating: 0xEE, count: count)
        let result = bytes.withUnsafeMutableBytes { buffer in
            Result { () throws(TreeError) in try read(node, at: offset, into: buffer) }
        }
        return Array(bytes.prefix(try result.get()))
    }

    func names(in directory: NodeID = .root) throws(TreeError) -> [String] {
        var names: [String] = []
        try readDirectory(directory, after: 0, withAttributes: false) { name, _ in
            names.append(String(decoding: name, as: UTF8.self))
            return true
        }
        return names.sorted()
    }

    func resize(_ node: NodeID, to size: UInt64) throws(TreeError) {
        var change = AttributeChange()
        change.size = size
        _ = try setAttributes(of: node, change, now: House.now)
    }
}

extension String {
    mutating func withUTF8Bytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        let result = withUTF8 { text in Result { () throws(E) -> R in try body(UnsafeRawBufferPointer(text)) } }
        return try result.get()
    }
}
