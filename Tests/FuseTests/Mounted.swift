import Fuse
import Glibc
import Synchronization
import Testing

// Glibc's module has no sys/xattr.h.
@_silgen_name("setxattr")
func setxattr(
    _ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ value: UnsafeRawPointer?, _ count: Int,
    _ flags: Int32
) -> Int32
@_silgen_name("getxattr")
func getxattr(
    _ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>, _ value: UnsafeMutableRawPointer?, _ count: Int
) -> Int
@_silgen_name("listxattr")
func listxattr(_ path: UnsafePointer<CChar>, _ list: UnsafeMutableRawPointer?, _ count: Int) -> Int
@_silgen_name("removexattr")
func removexattr(_ path: UnsafePointer<CChar>, _ name: UnsafePointer<CChar>) -> Int32

/// A served mount in a directory of its own, taken down in the end whatever happened.
final class Mounted {
    let fileSystem: MemoryFileSystem
    let directory: String
    let mount: Mount
    let initRequest = Kept()
    private(set) var servers: [Server] = []

    /// The kernel's INIT request, as a guardian would keep it.
    final class Kept: Sendable {
        let bytes = Mutex<[UInt8]>([])
    }

    init(_ fileSystem: MemoryFileSystem = MemoryFileSystem(), _ change: (inout Mount.Options) -> Void = { _ in }) throws
    {
        self.fileSystem = fileSystem
        directory = try temporaryDirectory()
        var options = Mount.Options(source: "in, memory")
        change(&options)
        do throws(FuseError) {
            mount = try Mount(at: directory, options)
        } catch {
            rmdir(directory)
            if case .device = error { Issue.record("these tests need FUSE: /dev/fuse and root") }
            throw error
        }
        try serve(.fresh)
        let kept = initRequest
        guard eventually({ kept.bytes.withLock { !$0.isEmpty } }) else { throw Errno(ETIMEDOUT) }
    }

    @discardableResult
    func serve(_ start: Server.Start) throws -> Server {
        let kept = initRequest
        let server = try Server(serving: fileSystem, descriptor: mount.descriptor) { request in
            kept.bytes.withLock { $0 = Array(request) }
        }
        try server.start(start)
        servers.append(server)
        return server
    }

    deinit {
        // MNT_FORCE aborts the connection: nobody is left waiting for a server that does not answer.
        if umount2(directory, 0) != 0 { umount2(directory, Int32(MNT_FORCE) | Int32(MNT_DETACH)) }
        for server in servers { server.stop(atMost: 30) }
        close(mount.descriptor)
        rmdir(directory)
    }

    func path(_ name: String) -> String { directory + "/" + name }

    /// Flags of the kernel's INIT request.
    var offered: (flags: UInt32, flags2: UInt32) {
        initRequest.bytes.withLock { bytes in
            bytes.withUnsafeBytes {
                (
                    $0.loadUnaligned(fromByteOffset: 52, as: UInt32.self),
                    $0.loadUnaligned(fromByteOffset: 56, as: UInt32.self)
                )
            }
        }
    }
}

func temporaryDirectory() throws -> String {
    var template = Array("/tmp/letterlock-fuse-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw Errno(errno) }
    return String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// Waits for a condition, for 30 s at most.
func eventually(_ condition: () throws -> Bool) rethrows -> Bool {
    for _ in 0..<3000 {
        if try condition() { return true }
        usleep(10_000)
    }
    return try condition()
}

/// Work on a thread of its own, so that a test can do something while it hangs in the kernel.
final class Background<R: Sendable>: Sendable {
    private let result = Mutex<R?>(nil)
    private let body: @Sendable () -> R

    init(_ body: @escaping @Sendable () -> R) {
        self.body = body
        var thread = pthread_t()
        let argument = Unmanaged.passRetained(
            Box { [self] in
                let value = self.body()
                result.withLock { $0 = value }
            })
        pthread_create(
            &thread, nil,
            { argument in
                if let argument { Unmanaged<Box>.fromOpaque(argument).takeRetainedValue().body() }
                return nil
            }, argument.toOpaque())
        pthread_detach(thread)
    }

    /// nil while it has not ended.
    var value: R? { result.withLock { $0 } }
}

private final class Box {
    let body: () -> Void
    init(_ body: @escaping () -> Void) { self.body = body }
}

/// What the tests do as clients; each throws its errno.
enum Client {
    static func open(_ path: String, _ flags: Int32, mode: mode_t = 0o644) throws -> Int32 {
        let descriptor = Glibc.open(path, flags | O_CLOEXEC, mode)
        guard descriptor >= 0 else { throw Errno(errno) }
        return descriptor
    }

    static func read(_ path: String) throws -> String {
        let descriptor = try open(path, O_RDONLY)
        defer { close(descriptor) }
        return try read(descriptor)
    }

    static func read(_ descriptor: Int32, at start: Int = 0) throws -> String {
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while true {
            let count = pread(descriptor, &buffer, buffer.count, off_t(start + bytes.count))
            guard count >= 0 else { throw Errno(errno) }
            if count == 0 { return String(decoding: bytes, as: UTF8.self) }
            bytes += buffer[..<count]
        }
    }

    static func write(_ path: String, _ text: String, _ flags: Int32 = O_CREAT | O_TRUNC) throws {
        let descriptor = try open(path, O_WRONLY | flags)
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        guard Glibc.write(descriptor, bytes, bytes.count) == bytes.count else { throw Errno(errno) }
    }

    static func status(_ path: String) throws -> stat {
        var attributes = stat()
        guard lstat(path, &attributes) == 0 else { throw Errno(errno) }
        return attributes
    }

    static func names(_ path: String) throws -> [String] {
        guard let stream = opendir(path) else { throw Errno(errno) }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            names.append(
                withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                })
        }
        return names
    }

    /// Runs a program to its end; answers its wait status.
    static func spawn(_ words: [String]) throws -> Int32 {
        var argv = words.map { strdup($0) } + [nil]
        defer { for word in argv { free(word) } }
        var process = pid_t()
        let result = posix_spawnp(&process, words[0], nil, nil, &argv, environ)
        guard result == 0 else { throw Errno(result) }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        return status
    }

    /// Throws the errno of a call that answered -1.
    static func check(_ result: Int32) throws {
        guard result == 0 else { throw Errno(errno) }
    }
}
