import Fuse
import Glibc
import Keyring
import SecretFS
import SecretTree
import Synchronization
import Testing

struct WholeValueTests {
    @Test("who opens while a value is gathered reads the old one to its end, and the new one from its start")
    func readersKeepTheirValue() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "the old value")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new and longer than that", to: node, writer)
        #expect(try mounted.size(node) == 13)
        let reader = try mounted.fileSystem.open(node, flags: O_RDONLY, mounted.caller)
        #expect(reader.directIO)
        #expect(try mounted.read(node, reader.handle, 4) == "the ")
        try mounted.close(node, writer)
        #expect(try mounted.read(node, reader.handle, at: 4) == "old value")
        #expect(try mounted.value(node) == "new and longer than that")
        #expect(try mounted.size(node) == 24)
        #expect(try mounted.read(node, reader.handle) == "new and longer than that")
        mounted.fileSystem.release(node, handle: reader.handle, flags: O_RDONLY)
        // What was kept for the reader is gone: one content is left.
        #expect(mounted.tree.versionCounts.values.reduce(0, +) == 1)
    }

    @Test("an old value goes with its last reader", arguments: [1, 3])
    func oldValuesGo(readers: Int) throws {
        let mounted = try MountedTree(cache: .none)
        let node = try mounted.make("a", "0")
        var handles: [UInt64] = []
        for number in 1...readers {
            let reader = try mounted.fileSystem.open(node, flags: O_RDONLY, mounted.caller)
            handles.append(reader.handle)
            #expect(try mounted.read(node, reader.handle) == "\(number - 1)")
            let writer = try mounted.openToReplace(node)
            try mounted.write("\(number)", to: node, writer)
            try mounted.close(node, writer)
        }
        #expect(mounted.tree.versionCounts.values.reduce(0, +) == readers + 1)
        for handle in handles { mounted.fileSystem.release(node, handle: handle, flags: O_RDONLY) }
        #expect(mounted.tree.versionCounts.values.reduce(0, +) == 1)
        #expect(try mounted.value(node) == "\(readers)")
    }

    @Test("a descriptor that is closed before anything is written does not empty the file")
    func duplicatedDescriptors() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.fileSystem.flush(node, handle: writer, mounted.caller)
        #expect(try mounted.value(node) == "old")
        try mounted.write("new", to: node, writer)
        #expect(try mounted.value(node) == "old")
        try mounted.close(node, writer)
        #expect(try mounted.value(node) == "new")
    }

    @Test("nothing but a truncation empties the file with its last descriptor")
    func truncation() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        try mounted.close(node, try mounted.openToReplace(node))
        #expect(try mounted.value(node) == "")
        #expect(try mounted.size(node) == 0)
    }

    /// - Parameter isTriedAgain: The writer has gone on where it had failed.
    @Test("a value that could not be written whole replaces none", arguments: [false, true])
    func failedWrites(isTriedAgain: Bool) throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new", to: node, writer)
        #expect(failure { () throws(Errno) in try mounted.write("x", to: node, writer, at: .max) } == EFBIG)
        if isTriedAgain { try mounted.write("newer", to: node, writer) }
        try mounted.fileSystem.flush(node, handle: writer, mounted.caller)
        #expect(try mounted.value(node) == (isTriedAgain ? "newer" : "old"))
        try mounted.close(node, writer)
        #expect(try mounted.value(node) == (isTriedAgain ? "newer" : "old"))
        #expect(mounted.tree.versionCounts.values.reduce(0, +) == 1)
    }

    @Test("a value of which a part was refused replaces none")
    func refusedWrites() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new", to: node, writer)
        let denial = "[[rule]]\nname = \"no\"\neffect = \"deny\"\npaths = [\"/a\"]\noperations = [\"write\"]\n"
        try mounted.command(denial, "policy")
        #expect(failure { () throws(Errno) in try mounted.write("er", to: node, writer, at: 3) } == EACCES)
        try mounted.close(node, writer)
        #expect(try mounted.value(node) == "old")
    }

    @Test("with a second writer plain order holds")
    func secondWriter() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let first = try mounted.openToReplace(node)
        try mounted.write("first", to: node, first)
        let second = try mounted.fileSystem.open(node, flags: O_WRONLY, mounted.caller).handle
        try mounted.write("F", to: node, second)
        #expect(try mounted.value(node) == "First")
        try mounted.write("!", to: node, first, at: 5)
        #expect(try mounted.value(node) == "First!")
        // Both have written: this is no replacement.
        _ = try mounted.openToReplace(node)
        #expect(try mounted.value(node) == "")
    }

    @Test("a modification time set while a value is gathered is the file's afterwards")
    func times() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new", to: node, writer)
        var change = AttributeRequest()
        change.modificationTime = .at(timespec(tv_sec: 1_000_000, tv_nsec: 7))
        _ = try mounted.fileSystem.setAttributes(of: node, handle: nil, change, mounted.caller)
        try mounted.close(node, writer)
        let attributes = try mounted.fileSystem.attributes(of: node, handle: nil, mounted.caller).0
        #expect(attributes.st_mtim.tv_sec == 1_000_000 && attributes.st_mtim.tv_nsec == 7)
        #expect(try mounted.value(node) == "new")
    }

    @Test("a file that loses its name while a value is gathered takes that along")
    func unlinked() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new", to: node, writer)
        try mounted.named("a") { name throws(Errno) in try mounted.fileSystem.unlink(name, in: 1, mounted.caller) }
        try mounted.close(node, writer)
        #expect(try mounted.value(node) == "new")
        mounted.fileSystem.forget(node, count: 1)
        #expect(mounted.tree.versionCounts.isEmpty)
        // The kernel may forget what this server never told it of.
        mounted.fileSystem.forget(node, count: 5)
        mounted.fileSystem.forget(1 << 62 | 3, count: 1)
    }

    @Test("what is still gathered at the end is kept")
    func draining() throws {
        let mounted = try MountedTree()
        let node = try mounted.make("a", "old")
        let writer = try mounted.openToReplace(node)
        try mounted.write("new", to: node, writer)
        mounted.fileSystem.drain()
        #expect(try mounted.value(node) == "new")
    }

    @Test("who begins while a value is being replaced reads one value, however often it is replaced then")
    func readersAmongReplacements() throws {
        nonisolated(unsafe) let mounted = try MountedTree(cache: .none)
        let values = "abcdefgh".map { String(repeating: $0, count: 64) }
        let node = try mounted.make("a", values[0])
        let isOver = Atomic(false)
        let torn = Atomic(0)
        let readers = (0..<3).map { _ in
            Thread {
                do throws(Errno) {
                    while !isOver.load(ordering: .relaxed) {
                        let reader = try mounted.fileSystem.open(node, flags: O_RDONLY, mounted.caller).handle
                        defer { mounted.fileSystem.release(node, handle: reader, flags: O_RDONLY) }
                        // One that has begun with an older value, and begins anew.
                        for _ in 0..<3 {
                            var value = ""
                            for place in 0..<8 { value += try mounted.read(node, reader, at: Int64(place * 8), 8) }
                            if Set(value).count != 1 || value.count != 64 { torn.add(1, ordering: .relaxed) }
                        }
                    }
                } catch { torn.add(1, ordering: .relaxed) }
            }
        }
        defer {
            isOver.store(true, ordering: .relaxed)
            for reader in readers { reader.join() }
            #expect(torn.load(ordering: .relaxed) == 0)
        }
        for round in 0..<800 {
            let writer = try mounted.openToReplace(node)
            try mounted.write(values[round % values.count], to: node, writer)
            try mounted.close(node, writer)
        }
    }
}

private final class Thread {
    private final class Body: Sendable {
        let run: @Sendable () -> Void
        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    private var thread = pthread_t()

    init(_ run: @escaping @Sendable () -> Void) {
        let body = Unmanaged.passRetained(Body(run))
        pthread_create(
            &thread, nil,
            { context in
                Unmanaged<Body>.fromOpaque(context!).takeRetainedValue().run()
                return nil
            }, body.toOpaque())
    }

    func join() { pthread_join(thread, nil) }
}
