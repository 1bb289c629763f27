import Glibc
import Testing

@testable import Storage

/// A directory that goes with its owner, and with it what is mounted there.
final class Scratch {
    let path: String
    private var mounts: [String] = []

    init() {
        var template = Array("/tmp/letterlock-storage-XXXXXX\0".utf8CString)
        path = template.withUnsafeMutableBufferPointer { String(cString: mkdtemp($0.baseAddress!)) }
    }

    deinit {
        for mount in mounts.reversed() { run("umount", "-l", mount) }
        run("rm", "-rf", path)
    }

    func place(_ name: String) -> String { path + "/" + name }

    /// A small disk of its own; nil where nothing may be mounted.
    func disk(_ name: String, byteCount: Int) -> String? {
        let place = place(name)
        mkdir(place, 0o700)
        guard run("mount", "-t", "tmpfs", "-o", "size=\(byteCount)", "tmpfs", place) == 0 else { return nil }
        mounts.append(place)
        return place
    }
}

/// Runs a program and gives its exit code.
@discardableResult
func run(_ arguments: String...) -> Int32 {
    var pointers: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
    defer { for pointer in pointers { free(pointer) } }
    var child = pid_t()
    guard posix_spawnp(&child, arguments[0], nil, nil, &pointers, environ) == 0 else { return -1 }
    var status: Int32 = 0
    while waitpid(child, &status, 0) < 0, errno == EINTR {}
    return status
}

func bytes(of path: String) -> [UInt8] {
    let descriptor = open(path, O_RDONLY)
    defer { close(descriptor) }
    var status = stat()
    fstat(descriptor, &status)
    var bytes = [UInt8](repeating: 0, count: Int(status.st_size))
    let count = read(descriptor, &bytes, bytes.count)
    return Array(bytes.prefix(max(count, 0)))
}

func put(_ bytes: [UInt8], at path: String) {
    let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
    defer { close(descriptor) }
    _ = bytes.withUnsafeBytes { write(descriptor, $0.baseAddress, $0.count) }
}

/// Names and contents of the files of a directory.
func files(in path: String) -> [String: [UInt8]] {
    var found: [String: [UInt8]] = [:]
    guard let stream = opendir(path) else { return [:] }
    defer { closedir(stream) }
    while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: entry.pointee.d_name) {
            String(cString: $0.bindMemory(to: CChar.self).baseAddress!)
        }
        if name != ".", name != ".." { found[name] = bytes(of: path + "/" + name) }
    }
    return found
}

/// Random numbers that are the same in each run.
struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

let everything = RecordKey(kind: 0, owner: 0)...RecordKey(kind: .max, owner: .max, high: .max, low: .max)

func key(_ owner: UInt64, _ low: UInt64 = 0) -> RecordKey { RecordKey(kind: 6, owner: owner, low: low) }

func batch(_ changes: [(RecordKey, [UInt8]?)], freesSpace: Bool = false) -> RecordBatch {
    var batch = RecordBatch()
    batch.freesSpace = freesSpace
    for (key, value) in changes { if let value { batch.put(key, value) } else { batch.delete(key) } }
    return batch
}

extension RecordStore {
    func value(_ key: RecordKey) throws -> [UInt8]? { try read(key) { $0.map { Array($0) } } }

    func put(_ key: RecordKey, _ value: [UInt8]) throws { try commit(batch([(key, value)])) }

    func contents(_ range: ClosedRange<RecordKey> = everything, prefix: Int = .max) throws -> [RecordKey: [UInt8]] {
        var found: [RecordKey: [UInt8]] = [:]
        var last: RecordKey?
        var ordered = true
        try scan(range, prefix: prefix) { key, value in
            if let last, last >= key { ordered = false }
            last = key
            found[key] = Array(value)
            return true
        }
        #expect(ordered, "keys come in order, each once")
        return found
    }

    func foldedContents() throws -> [RecordKey: [UInt8]] {
        var found: [RecordKey: [UInt8]] = [:]
        try scanFolded(everything, prefix: .max) { key, value in
            found[key] = Array(value)
            return true
        }
        return found
    }

    func write(_ block: UInt64, _ byte: UInt8) throws {
        try [UInt8](repeating: byte, count: storeBlockByteCount).withUnsafeBytes { try writeBlocks(at: block, $0) }
    }

    func block(_ number: UInt64) throws -> [UInt8] {
        var bytes = [UInt8](repeating: 1, count: storeBlockByteCount)
        try bytes.withUnsafeMutableBytes { try readBlocks(at: number, into: $0) }
        return bytes
    }
}

/// The error that `body` throws as a store's; nil if it throws none.
func storageError(_ body: () throws -> Void) -> StorageError? {
    do {
        try body()
        return nil
    } catch { return error as? StorageError }
}
