import CLinux
import Fuse
import Glibc
import Synchronization
import Testing

/// The file system protocol through the real kernel.
@Suite(.serialized)
struct MountedTests {
    @Test("files are created, written, read, appended to, renamed and removed")
    func contents() throws {
        let mounted = try Mounted()
        let big = String(repeating: "0123456789abcdef", count: 200_000)
        try Client.write(mounted.path("a"), "first")
        try Client.write(mounted.path("a"), " second", O_APPEND)
        #expect(try Client.read(mounted.path("a")) == "first second")
        try Client.write(mounted.path("big"), big)
        #expect(try Client.read(mounted.path("big")) == big)
        #expect(try Client.status(mounted.path("big")).st_size == big.utf8.count)
        try Client.check(rename(mounted.path("a"), mounted.path("b")))
        #expect(throws: Errno(ENOENT)) { try Client.read(mounted.path("a")) }
        #expect(try Client.read(mounted.path("b")) == "first second")
        try Client.check(unlink(mounted.path("b")))
        #expect(try Client.names(mounted.directory).sorted() == [".", "..", "big"])
        try Client.check(truncate(mounted.path("big"), 10))
        #expect(try Client.read(mounted.path("big")) == "0123456789")
    }

    @Test("O_TRUNC comes with the opening, without a SETATTR of its own")
    func truncation() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "old")
        try Client.write(mounted.path("a"), "new", O_TRUNC)
        #expect(mounted.fileSystem.logged("open truncating"))
        #expect(mounted.fileSystem.count("setattr") == 0)
        #expect(try Client.read(mounted.path("a")) == "new")
    }

    @Test("directories, symbolic links and FIFOs are made with the caller's mask left to the file system")
    func kinds() throws {
        let mounted = try Mounted()
        let old = umask(0o077)
        defer { umask(old) }
        try Client.check(mkdir(mounted.path("directory"), 0o777))
        try Client.check(symlink("a target", mounted.path("link")))
        try Client.check(mkfifo(mounted.path("fifo"), 0o666))
        #expect(try Client.status(mounted.path("directory")).st_mode == S_IFDIR | 0o700)
        #expect(try Client.status(mounted.path("fifo")).st_mode == S_IFIFO | 0o600)
        var target = [CChar](repeating: 0, count: 100)
        #expect(readlink(mounted.path("link"), &target, 99) == 8)
        #expect(target.prefix(8).map { UInt8(bitPattern: $0) } == Array("a target".utf8))
    }

    @Test("rename flags, fallocate, seeks and fsync arrive with their arguments")
    func arguments() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "12345")
        mounted.fileSystem.make("b", "")
        #expect(ll_renameat2(AT_FDCWD, mounted.path("a"), AT_FDCWD, mounted.path("b"), 2) == -1)
        #expect(mounted.fileSystem.logged("rename 2"))
        let descriptor = try Client.open(mounted.path("a"), O_RDWR)
        defer { close(descriptor) }
        try Client.check(fallocate(descriptor, 3, 4096, 8192))
        #expect(mounted.fileSystem.logged("allocate 3 4096 8192"))
        #expect(lseek(descriptor, 2, SEEK_HOLE) == 5)
        #expect(lseek(descriptor, 2, SEEK_DATA) == 2)
        #expect(lseek(descriptor, 6, SEEK_DATA) == -1)
        #expect(mounted.fileSystem.logged("seek \(SEEK_HOLE) 2"))
        try Client.check(fsync(descriptor))
        try Client.check(fdatasync(descriptor))
        #expect(mounted.fileSystem.logged("fsync false") && mounted.fileSystem.logged("fsync true"))
        var statistics = statvfs()
        try Client.check(statvfs(mounted.directory, &statistics))
        #expect(statistics.f_blocks == 12345 && statistics.f_namemax == 255)
    }

    @Test("ten thousand entries are listed once each, with and without attributes")
    func directories() throws {
        let mounted = try Mounted()
        let expected = Set((0..<10_000).map { "entry number \($0)" })
        for name in expected { mounted.fileSystem.make(name, "") }
        let names = try Client.names(mounted.directory)
        #expect(names.count == 10_002 && Set(names).isSuperset(of: expected))
        #expect(mounted.fileSystem.count("readdirplus") > 0)
        let before = mounted.fileSystem.count("lookup")
        for name in names.prefix(50) where name.hasPrefix("entry") { _ = try Client.status(mounted.path(name)) }
        #expect(mounted.fileSystem.count("lookup") == before, "READDIRPLUS has looked them up")
        #expect(mounted.fileSystem.count("readdir") > 0, "the kernel asks for attributes only at first")
    }

    @Test("names of 255 bytes and names that are no UTF-8 pass unchanged; absent names are remembered")
    func names() throws {
        let mounted = try Mounted()
        let long = String(repeating: "n", count: 255)
        try Client.write(mounted.path(long), "x")
        #expect(try Client.names(mounted.directory).contains(long))
        let raw = mounted.path("").utf8CString.dropLast() + [CChar(bitPattern: 0xff), CChar(bitPattern: 0xfe), 0]
        #expect(mkdir(Array(raw), 0o700) == 0)
        #expect(mounted.fileSystem.state.withLock { $0.nodes[1]?.names[[0xff, 0xfe]] } != nil)
        #expect(throws: Errno(ENOENT)) { try Client.status(mounted.path("absent")) }
        let before = mounted.fileSystem.count("lookup")
        #expect(throws: Errno(ENOENT)) { try Client.status(mounted.path("absent")) }
        #expect(mounted.fileSystem.count("lookup") == before)
    }

    @Test("extended attributes answer their size, ERANGE and long names")
    func extendedAttributes() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "")
        let path = mounted.path("a")
        let long = "user." + String(repeating: "x", count: 250)
        let value = [UInt8]((0..<5000).map { UInt8($0 % 251) })
        var buffer = [UInt8](repeating: 0, count: 6000)
        try Client.check(setxattr(path, long, value, value.count, 0))
        #expect(mounted.fileSystem.state.withLock { $0.nodes[2]?.extended[Array(long.utf8)] } == value)
        #expect(getxattr(path, long, nil, 0) == 5000)
        #expect(getxattr(path, long, &buffer, 4999) == -1 && errno == ERANGE)
        #expect(getxattr(path, long, &buffer, 6000) == 5000)
        #expect(Array(buffer[..<5000]) == value)
        try Client.check(setxattr(path, "user.empty", value, 0, 0))
        #expect(getxattr(path, "user.empty", &buffer, 10) == 0)
        #expect(listxattr(path, nil, 0) == 256 + 11)
        #expect(listxattr(path, &buffer, 200) == -1 && errno == ERANGE)
        #expect(listxattr(path, &buffer, 6000) == 256 + 11)
        try Client.check(removexattr(path, long))
        #expect(getxattr(path, long, nil, 0) == -1 && errno == ENODATA)
    }

    @Test("where the kernel knows KILLPRIV_V2, not every write asks for security.capability, and set-id bits go")
    func killpriv() throws {
        let mounted = try Mounted()
        let node = mounted.fileSystem.make("a", "")
        guard mounted.offered.flags & 1 << 28 != 0 else { return }
        let descriptor = try Client.open(mounted.path("a"), O_WRONLY)
        defer { close(descriptor) }
        for _ in 0..<100 { #expect(write(descriptor, "x", 1) == 1) }
        #expect(mounted.fileSystem.count("write") == 100)
        #expect(mounted.fileSystem.count("getxattr") <= 1, "the kernel asks once and remembers")

        try Client.check(fchmod(descriptor, 0o4777))
        // Root keeps set-id bits; another user's write takes them away.
        let child = try Client.spawn([
            "setpriv", "--reuid=1000", "--clear-groups", "sh", "-c", "echo x >>\(mounted.path("a"))",
        ])
        #expect(child == 0)
        #expect(mounted.fileSystem.state.withLock { $0.nodes[node]?.attributes.st_mode } == S_IFREG | 0o777)
    }

    @Test("a mapping of an opened file reads its content")
    func mapping() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "mapped")
        let descriptor = try Client.open(mounted.path("a"), O_RDONLY)
        defer { close(descriptor) }
        let address = mmap(nil, 6, PROT_READ, MAP_SHARED, descriptor, 0)
        try #require(address != MAP_FAILED)
        defer { munmap(address, 6) }
        #expect(address.map { Array(UnsafeRawBufferPointer(start: $0, count: 6)) } == Array("mapped".utf8))
    }

    @Test("many clients at once are served by several threads")
    func parallel() throws {
        let mounted = try Mounted()
        for index in 0..<8 { mounted.fileSystem.make("file\(index)", "content \(index)") }
        let directory = mounted.directory
        let clients = (0..<8).map { index in
            Background { () -> Bool in
                (0..<300).allSatisfy { _ in (try? Client.read("\(directory)/file\(index)")) == "content \(index)" }
            }
        }
        #expect(eventually { clients.allSatisfy { $0.value != nil } })
        #expect(clients.allSatisfy { $0.value == true })
    }
}
