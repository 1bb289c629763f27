import Glibc
import Synchronization
import Testing

@testable import Fuse

/// How mounts and servers begin, end and follow one another.
@Suite(.serialized)
struct LifeTests {
    @Test("an unmount ends the server")
    func unmounting() throws {
        let mounted = try Mounted()
        #expect(try Client.names(mounted.directory).sorted() == [".", ".."])
        try mounted.mount.unmount()
        #expect(mounted.servers[0].wait() == .unmounted)
        #expect(throws: FuseError.unmount(path: mounted.directory, EINVAL)) { try mounted.mount.unmount() }
    }

    @Test("the mount table shows type, source and options")
    func table() throws {
        let mounted = try Mounted { $0.flags |= UInt(MS_NOEXEC) | UInt(MS_RDONLY) }
        let line = try Client.read("/proc/self/mounts").split(separator: "\n").first {
            $0.contains(" \(mounted.directory) ")
        }
        let words = try #require(line).split(separator: " ")
        #expect(words[0] == "in,\\040memory" && words[2] == "fuse.letterlock")
        for word in ["ro", "nosuid", "nodev", "noexec", "default_permissions", "allow_other"] {
            #expect(words[3].split(separator: ",").contains(Substring(word)))
        }
    }

    @Test("a mount point that is not there is told with its path")
    func absentMountPoint() {
        #expect(throws: FuseError.mount(path: "/nowhere/at/all", ENOENT)) {
            try Mount(at: "/nowhere/at/all", Mount.Options(source: "x"))
        }
    }

    @Test("a stopped server leaves the mount waiting, and its successor answers what was asked meanwhile")
    func handOver() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "value")
        let open = try Client.open(mounted.path("a"), O_RDONLY)
        defer { close(open) }
        #expect(mounted.servers[0].stop(atMost: 30))
        #expect(mounted.servers[0].wait() == .stopped)
        let path = mounted.path("a")
        let asked = Background { try? Client.read(path) }
        usleep(50_000)
        #expect(asked.value == nil)
        try mounted.serve(.takingOver(initRequest: mounted.initRequest.bytes.withLock { $0 }))
        #expect(eventually { asked.value != nil })
        #expect(asked.value == "value")
        #expect(try Client.read(open) == "value", "a descriptor opened before stays good")
    }

    @Test("what a server had read and not answered comes again to its successor")
    func takeover() throws {
        let mounted = try Mounted()
        let fileSystem = mounted.fileSystem
        fileSystem.make("a", "value")
        fileSystem.holdsReads.store(true, ordering: .sequentiallyConsistent)
        let path = mounted.path("a")
        let asked = Background { try? Client.read(path) }
        defer { fileSystem.releases.store(true, ordering: .sequentiallyConsistent) }
        #expect(eventually { fileSystem.held.load(ordering: .sequentiallyConsistent) == 1 })
        #expect(!mounted.servers[0].stop(atMost: 0.1), "one thread hangs, as in a server that died")
        fileSystem.holdsReads.store(false, ordering: .sequentiallyConsistent)
        try mounted.serve(.takingOver(initRequest: mounted.initRequest.bytes.withLock { $0 }))
        #expect(eventually { asked.value != nil })
        #expect(asked.value == "value")
        #expect(fileSystem.state.withLock { $0.resent } == ["read"])
        fileSystem.releases.store(true, ordering: .sequentiallyConsistent)
        #expect(mounted.servers[0].stop(atMost: 30), "the late reply harms nobody")
        #expect(try Client.read(path) == "value")
    }

    @Test("servers follow one another under load without an error")
    func manyHandOvers() throws {
        let mounted = try Mounted()
        mounted.fileSystem.make("a", "value")
        let path = mounted.path("a")
        let ends = Flag()
        let client = Background { () -> Int? in
            var reads = 0
            while !ends.isSet.load(ordering: .relaxed) {
                guard (try? Client.read(path)) == "value" else { return nil }
                reads += 1
            }
            return reads
        }
        defer { ends.isSet.store(true, ordering: .relaxed) }
        for _ in 0..<10 {
            usleep(20_000)
            #expect(mounted.servers.last?.stop(atMost: 30) == true)
            try mounted.serve(.takingOver(initRequest: mounted.initRequest.bytes.withLock { $0 }))
        }
        ends.isSet.store(true, ordering: .relaxed)
        #expect(eventually { client.value != nil })
        #expect((client.value ?? nil) != nil)
    }

    @Test("readahead is raised for the mount's device alone")
    func readahead() throws {
        let mounted = try Mounted()
        guard access("/sys/class/bdi", W_OK) == 0, mounted.mount.raiseReadahead(to: 512 << 10) else { return }
        let device = try Client.status(mounted.directory).st_dev
        let minor = (device & 0xff) | (device >> 12 & 0xffff_ff00)
        #expect(try Client.read("/sys/class/bdi/0:\(minor)/read_ahead_kb") == "512\n")
    }

    @Test("the notifier has the kernel forget pages, attributes and names")
    func notifications() throws {
        let fileSystem = MemoryFileSystem()
        fileSystem.state.withLock { $0.keepsCache = true }
        let mounted = try Mounted(fileSystem)
        let node = fileSystem.make("a", "before")
        let notifier = mounted.servers[0].notifier
        #expect(try Client.read(mounted.path("a")) == "before")
        fileSystem.replace(node, "behind")
        #expect(try Client.read(mounted.path("a")) == "before", "the kernel keeps pages for hours")
        #expect(notifier.invalidateNode(node) == nil)
        #expect(try Client.read(mounted.path("a")) == "behind")

        #expect(throws: Errno(ENOENT)) { try Client.status(mounted.path("later")) }
        fileSystem.make("later", "")
        #expect(throws: Errno(ENOENT)) { try Client.status(mounted.path("later")) }
        Array("later".utf8).withUnsafeBytes { #expect(notifier.invalidateEntry(1, name: $0) == nil) }
        #expect(try Client.status(mounted.path("later")).st_ino == 3)

        let before = fileSystem.count("lookup")
        Array("later".utf8).withUnsafeBytes { #expect(notifier.expireEntry(1, name: $0) == nil) }
        _ = try Client.status(mounted.path("later"))
        #expect(fileSystem.count("lookup") == before + 1)

        fileSystem.state.withLock { _ = $0.nodes[1]?.remove(Array("later".utf8)) }
        Array("later".utf8).withUnsafeBytes { #expect(notifier.entryDeleted(1, child: 3, name: $0) == nil) }
        #expect(throws: Errno(ENOENT)) { try Client.status(mounted.path("later")) }
        #expect(notifier.invalidateNode(4711) == nil, "an unknown node is nothing to forget")
        try mounted.mount.unmount()
        #expect(notifier.invalidateNode(node) == nil, "nor is anything of a mount that is gone")
    }

    @Test("the helper's mounts work as root's do", .enabled(if: access("/usr/bin/fusermount3", X_OK) == 0))
    func helper() throws {
        let directory = try temporaryDirectory()
        defer { rmdir(directory) }
        let descriptor = try MountHelper.mount(directory, Mount.Options(source: "with, comma\\"))
        defer { close(descriptor) }
        let fileSystem = MemoryFileSystem()
        fileSystem.make("a", "value")
        let server = try Server(serving: fileSystem, descriptor: descriptor)
        try server.start()
        defer { umount2(directory, Int32(MNT_FORCE) | Int32(MNT_DETACH)) }
        #expect(try Client.read(directory + "/a") == "value")
        #expect(try Client.read("/proc/self/mounts").contains("with,\\040comma\\134 \(directory) fuse.letterlock"))
        #expect(fcntl(descriptor, F_GETFD) & FD_CLOEXEC != 0)
        try MountHelper.unmount(directory, lazily: false)
        #expect(server.wait() == .unmounted)
        #expect(throws: FuseError.helper(path: "/nowhere/at/all", nil)) {
            try MountHelper.mount("/nowhere/at/all", Mount.Options(source: "x"))
        }
    }

    @Test("an ordinary user's options for the helper escape what would divide them")
    func helperWords() {
        var options = Mount.Options(source: "a,b\\c")
        options.flags |= UInt(MS_RDONLY) | UInt(MS_NOATIME)
        options.allowsOthers = false
        #expect(
            MountHelper.words(options)
                == "fsname=a\\,b\\\\c,subtype=letterlock,ro,noatime,default_permissions")
    }
}

/// Told across threads.
private final class Flag: Sendable {
    let isSet = Atomic<Bool>(false)
}
