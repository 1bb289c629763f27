import Glibc

// Glibc's module has no sys/xattr.h and no sys/fsuid.h.
@_silgen_name("setxattr")
func setxattr(
    _ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ value: UnsafeRawPointer?, _ size: Int,
    _ flags: Int32
) -> Int32
@_silgen_name("lgetxattr")
func lgetxattr(
    _ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ value: UnsafeMutableRawPointer?, _ size: Int
) -> Int
@_silgen_name("llistxattr")
func llistxattr(_ path: UnsafePointer<CChar>, _ list: UnsafeMutablePointer<CChar>?, _ size: Int) -> Int
@_silgen_name("removexattr")
func removexattr(_ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>) -> Int32
@_silgen_name("setfsuid") @discardableResult func setfsuid(_ uid: uid_t) -> Int32
@_silgen_name("setfsgid") @discardableResult func setfsgid(_ gid: gid_t) -> Int32

// syscall(2), for those that Glibc has no function for.
@_silgen_name("syscall")
func systemCall(
    _ number: Int, _ descriptor: Int32, _ range: UnsafePointer<UInt64>, _ result: UnsafeMutablePointer<UInt64>,
    _ flags: UInt32
) -> Int

/// An open file that is closed at the end of its life.
final class OpenFile {
    private(set) var descriptor: Int32

    init(_ path: String, _ flags: Int32, mode: mode_t = 0o644) throws(Errno) {
        descriptor = try check(open(path, flags | O_CLOEXEC, mode))
    }

    deinit { if descriptor >= 0 { Glibc.close(descriptor) } }

    func close() throws(Errno) {
        let number = descriptor
        descriptor = -1
        try check(Glibc.close(number))
    }

    @discardableResult
    func write(_ bytes: [UInt8]) throws(Errno) -> Int {
        try check(Glibc.write(descriptor, bytes, bytes.count))
    }
    @discardableResult
    func write(_ text: String) throws(Errno) -> Int { try write(Array(text.utf8)) }
    @discardableResult
    func write(_ text: String, at offset: Int) throws(Errno) -> Int {
        let bytes = Array(text.utf8)
        return try check(pwrite(descriptor, bytes, bytes.count, offset))
    }

    /// At most `count` bytes, fewer at the end of the file.
    func read(_ count: Int, at offset: Int) throws(Errno) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let step = try check(
                bytes.withUnsafeMutableBytes {
                    pread(descriptor, $0.baseAddress! + filled, count - filled, offset + filled)
                })
            if step == 0 { break }
            filled += step
        }
        return Array(bytes[..<filled])
    }

    func text(_ count: Int = 65536, at offset: Int = 0) throws(Errno) -> String {
        String(decoding: try read(count, at: offset), as: UTF8.self)
    }

    func attributes() throws(Errno) -> stat {
        var attributes = stat()
        try check(fstat(descriptor, &attributes))
        return attributes
    }
}

/// A file's whole contents.
func contents(_ path: String) throws(Errno) -> [UInt8] {
    let file = try OpenFile(path, O_RDONLY)
    var bytes: [UInt8] = []
    while true {
        let chunk = try file.read(1 << 20, at: bytes.count)
        bytes += chunk
        if chunk.count < 1 << 20 { return bytes }
    }
}

func text(_ path: String) throws(Errno) -> String { String(decoding: try contents(path), as: UTF8.self) }

/// Writes a file as `echo` into it does: O_TRUNC, one write, close; or with other flags.
func put(
    _ text: String, _ path: String, mode: mode_t = 0o644, flags: Int32 = O_WRONLY | O_CREAT | O_TRUNC
) throws(Errno) { try put(Array(text.utf8), path, mode: mode, flags: flags) }

func put(
    _ bytes: [UInt8], _ path: String, mode: mode_t = 0o644, flags: Int32 = O_WRONLY | O_CREAT | O_TRUNC
) throws(Errno) {
    let file = try OpenFile(path, flags, mode: mode)
    var written = 0
    while written < bytes.count {
        written += try check(
            bytes.withUnsafeBytes {
                Glibc.write(file.descriptor, $0.baseAddress! + written, bytes.count - written)
            })
    }
    try file.close()
}

/// lstat(2).
func attributes(_ path: String) throws(Errno) -> stat {
    var attributes = stat()
    try check(lstat(path, &attributes))
    return attributes
}

func exists(_ path: String) -> Bool { (try? attributes(path)) != nil }

/// The names in a directory but `.` and `..`, in the order that readdir(3) tells them, as bytes.
func rawNames(_ path: String) throws(Errno) -> [[UInt8]] {
    guard let stream = opendir(path) else { throw Errno(errno) }
    defer { closedir(stream) }
    var names: [[UInt8]] = []
    errno = 0
    while let entry = readdir(stream) {
        let name = withUnsafeBytes(of: &entry.pointee.d_name) { Array($0.prefix { $0 != 0 }) }
        if name != [46], name != [46, 46] { names.append(name) }
        errno = 0
    }
    guard errno == 0 else { throw Errno(errno) }
    return names
}

/// The names in a directory, sorted.
func names(_ path: String) throws(Errno) -> [String] {
    try rawNames(path).map { String(decoding: $0, as: UTF8.self) }.sorted()
}

func linkTarget(_ path: String) throws(Errno) -> String {
    var buffer = [UInt8](repeating: 0, count: 8192)
    let count = try check(
        buffer.withUnsafeMutableBytes {
            readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        })
    return String(decoding: buffer[..<count], as: UTF8.self)
}

func extendedAttribute(_ path: String, _ name: String) throws(Errno) -> [UInt8] {
    var value = [UInt8](repeating: 0, count: 65536)
    let count = try check(lgetxattr(path, name, &value, value.count))
    return Array(value[..<count])
}

func extendedAttributeText(_ path: String, _ name: String) throws(Errno) -> String {
    String(decoding: try extendedAttribute(path, name), as: UTF8.self)
}

func setExtendedAttribute(_ path: String, _ name: String, _ value: String, flags: Int32 = 0) throws(Errno) {
    let bytes = Array(value.utf8)
    try check(setxattr(path, name, bytes, bytes.count, flags))
}

func extendedAttributeNames(_ path: String) throws(Errno) -> [String] {
    var list = [CChar](repeating: 0, count: 65536)
    let count = try check(llistxattr(path, &list, list.count))
    return list[..<count].split(separator: 0).map {
        String(decoding: $0.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }.sorted()
}

/// Runs `body` as the file system sees another user: without root's rights over files.
///
/// The process's supplementary groups stay; tests give files groups of their own.
func asUser<Result>(_ uid: uid_t, _ gid: gid_t, _ body: () throws -> Result) rethrows -> Result {
    setfsgid(gid)
    setfsuid(uid)
    defer {
        setfsuid(0)
        setfsgid(0)
    }
    return try body()
}

let nobody: uid_t = 65534

extension stat {
    var permissions: mode_t { st_mode & 0o7777 }
    var type: mode_t { st_mode & S_IFMT }
    var modified: Instant { Instant(st_mtim) }
    var changed: Instant { Instant(st_ctim) }
    var accessed: Instant { Instant(st_atim) }
}

/// A comparable timespec.
struct Instant: Comparable, CustomStringConvertible {
    var seconds: Int
    var nanoseconds: Int

    init(_ time: timespec) { (seconds, nanoseconds) = (time.tv_sec, time.tv_nsec) }

    static func < (one: Instant, other: Instant) -> Bool {
        (one.seconds, one.nanoseconds) < (other.seconds, other.nanoseconds)
    }
    var description: String { "\(seconds) s \(nanoseconds) ns" }
}

/// Bytes that no two offsets and no two seeds share.
func pattern(_ count: Int, seed: UInt64 = 1) -> [UInt8] {
    var state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    return [UInt8](unsafeUninitializedCapacity: count + 8) { buffer, filled in
        let memory = UnsafeMutableRawBufferPointer(buffer)
        var offset = 0
        while offset < count {
            state ^= state << 13
            state ^= state >> 7
            state ^= state << 17
            memory.storeBytes(of: state, toByteOffset: offset, as: UInt64.self)
            offset += 8
        }
        filled = count
    }
}
