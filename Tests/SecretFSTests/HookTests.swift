import Access
import CLinux
import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization
import Testing

@testable import SecretFS

/// What hooks are told of, and what outlives those who run them.
final class HookTests {
    private let descriptor: Int32
    private let board: UnsafeMutableRawPointer
    private let mounted: MountedTree

    init() throws {
        let file = try #require(tmpfile())
        descriptor = dup(fileno(file))
        fclose(file)
        #expect(ftruncate(descriptor, off_t(HookRow.boardByteCount)) == 0)
        board = mmap(nil, HookRow.boardByteCount, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)!
        mounted = try MountedTree(hooks: HookStage(board: board, descriptor: descriptor, place: 0) { _ in nil })
        try mounted.fileSystem.replaceHooks(
            "[[hook]]\nname = \"web\"\npaths = [\"/web/**\"]\ncommand = [\"/bin/true\"]\ndebounce = \"1h\"\n")
    }

    deinit {
        munmap(board, HookRow.boardByteCount)
        close(descriptor)
    }

    private var row: HookRow { HookRow(board, 0) }
    private var waiting: Set<String> { Set(row.waitingPaths.map { String(decoding: $0, as: UTF8.self) }) }

    private func events() throws -> [String] {
        let stream = mounted.fileSystem.options.events
        let handle = try stream.open(mounted.caller)
        defer { stream.close(handle) }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        let count = try bytes.withUnsafeMutableBytes { bytes in
            Result { () throws(Errno) in
                try stream.read(handle, flags: O_NONBLOCK, at: 0, into: bytes, mounted.caller)
            }
        }.get()
        return String(decoding: bytes[..<count], as: UTF8.self).split(separator: "\n").map(String.init)
    }

    private func makeDirectory(_ name: String) throws -> UInt64 {
        try mounted.named(name) { name throws(Errno) in
            try mounted.fileSystem.makeDirectory(name, in: 1, mode: 0o755, mounted.caller).node
        }
    }

    /// As the front door does with a rename that an earlier server has made, and did not come to say so.
    private func repeatRename(_ name: String, _ parent: UInt64, _ newName: String, _ newParent: UInt64, _ flags: UInt32)
        throws
    {
        try mounted.named(name) { name throws(Errno) in
            try mounted.named(newName) { newName throws(Errno) in
                mounted.fileSystem.afterRepeatedRename(
                    name, in: parent, to: newName, in: newParent, flags: flags, mounted.caller)
            }
        }
    }

    @Test func `a rename of an earlier server is told, and what it changed waits for its hook`() throws {
        let web = try makeDirectory("web")
        _ = try mounted.make("new", "two")
        #expect(waiting.isEmpty)
        // What the earlier server came to: the name is moved, and nothing is told.
        try mounted.named("new") { name throws(Errno) in
            try mounted.named("key") { newName throws(Errno) in
                _ = try answering { () throws(TreeError) in
                    try mounted.tree.rename(
                        name, in: .root, to: newName, in: NodeID(rawValue: web), .replace, now: .now())
                }
            }
        }
        #expect(waiting.isEmpty)
        try repeatRename("new", 1, "key", web, 0)
        #expect(waiting == ["/web/key"])
        let told = try #require(try events().last)
        #expect(told.contains("\"event\":\"value_changed\",\"path\":\"/web/key\",\"moved_from\":\"/new\""), "\(told)")
    }

    @Test func `both names of a repeated exchange are told to hooks`() throws {
        let web = try makeDirectory("web")
        let other = try makeDirectory("other")
        #expect(waiting.isEmpty)
        let exchange: UInt32 = 2
        // The directory that has this name now has become another one: all that is below it may have changed.
        try repeatRename("web", 1, "other", 1, exchange)
        #expect(waiting == ["/web"])
        #expect(try mounted.lookup("web") == web && mounted.lookup("other") == other)
        // What has left the hook's paths is none of its business.
        try repeatRename("key", web, "elsewhere", 1, 0)
        #expect(waiting == ["/web"])
    }

    private func take(_ ticket: UInt64) throws -> HookRun {
        guard let run = HookRun(board: descriptor, at: 0, ticket: ticket) else { throw Errno(EBUSY) }
        return run
    }

    @Test func `a runner finds the command of one that was killed, and no other process`() throws {
        row.note(Array("/web/key".utf8), at: 1)
        let ticket = row.start()
        let child = try Sleeper()
        do {
            let run = try take(ticket)
            let earlier = run.command
            #expect(earlier == nil)
            run.note(command: child.process)
            #expect(throws: Errno(EBUSY)) { _ = try take(ticket) }
        }
        let next = try take(row.issue())
        var found = next.command
        #expect(found == child.process)
        let paths = String(decoding: next.paths.bytes, as: UTF8.self)
        #expect(paths == "/web/key\0")
        child.end()
        found = next.command
        #expect(found == nil)
        // Nor is a process meant that has got the number later: this one has it, and began at another time.
        next.note(command: getpid())
        found = next.command
        #expect(found == getpid())
        board.storeBytes(of: UInt64(1), toByteOffset: 56, as: UInt64.self)
        found = next.command
        #expect(found == nil)
        next.note(command: getpid())
        next.end(.exited, 3)
        #expect(row.stage == .ended && row.outcome.kind == .exited && row.outcome.number == 3)
        // What has come to its end has no command any more.
        found = next.command
        #expect(found == nil)
    }

    private final class Sleeper {
        let process: pid_t
        init() throws {
            var child: pid_t = 0
            var words: [UnsafeMutablePointer<CChar>?] = (["sleep", "600"] as [String]).map { strdup($0) } + [nil]
            defer { for word in words { free(word) } }
            #expect(posix_spawn(&child, "/bin/sleep", nil, nil, &words, nil) == 0)
            process = child
        }
        func end() {
            kill(process, SIGKILL)
            waitpid(process, nil, 0)
        }
        deinit { kill(process, SIGKILL) }
    }
}
