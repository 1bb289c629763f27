import Glibc
import Testing

@Suite("Change notices on the mount")
struct NoticeTests {
    let mounted: Mounted

    /// IN_ALL_EVENTS, a macro that is not imported.
    private let allEvents: UInt32 = 0xFFF

    init() throws { mounted = try Mounted() }

    /// The events that wait on a watch: mask bits and the name they are about.
    private func events(_ watch: Int32) -> [(mask: UInt32, name: String)] {
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = read(watch, &buffer, buffer.count)
        var events: [(UInt32, String)] = []
        var place = 0
        while place + 16 <= count {
            let (mask, length) = buffer.withUnsafeBytes {
                (
                    $0.loadUnaligned(fromByteOffset: place + 4, as: UInt32.self),
                    Int($0.loadUnaligned(fromByteOffset: place + 12, as: UInt32.self))
                )
            }
            let name = buffer[(place + 16)..<(place + 16 + length)].prefix { $0 != 0 }
            events.append((mask, String(decoding: name, as: UTF8.self)))
            place += 16 + length
        }
        return events
    }

    @Test func changesRaiseEventsOnFilesAndDirectories() throws {
        try put("old", mounted("secret"))
        let watch = try check(inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC)))
        defer { close(watch) }
        try check(inotify_add_watch(watch, mounted.path, allEvents & ~UInt32(IN_ACCESS | IN_OPEN | IN_CLOSE_NOWRITE)))
        try put("new", mounted("secret"))
        let written = events(watch)
        #expect(written.contains { $0.mask & UInt32(IN_MODIFY) != 0 && $0.name == "secret" })
        #expect(written.contains { $0.mask & UInt32(IN_CLOSE_WRITE) != 0 && $0.name == "secret" })
        try put("next", mounted("next"))
        expectDone(rename(mounted("next"), mounted("secret")))
        let renamed = events(watch)
        #expect(renamed.contains { $0.mask & UInt32(IN_MOVED_FROM) != 0 && $0.name == "next" })
        #expect(renamed.contains { $0.mask & UInt32(IN_MOVED_TO) != 0 && $0.name == "secret" })
        expectDone(unlink(mounted("secret")))
        #expect(events(watch).contains { $0.mask & UInt32(IN_DELETE) != 0 && $0.name == "secret" })
    }

    /// A value that is brought back from an export, and one that stays because its writer was killed.
    @Test func whatIsBroughtBackRaisesEventsToo() throws {
        guard !Mounted.isPlain else { return }
        let work = mounted.workspace
        try put("old", mounted("secret"))
        try work.done([try Workspace.program(), "export", mounted.path, work("out"), "--in-clear", "--format", "json"])
        try put("new", mounted("secret"))
        let watch = try check(inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC)))
        defer { close(watch) }
        try check(inotify_add_watch(watch, mounted.path, UInt32(IN_MODIFY | IN_CLOSE_WRITE)))
        try check(inotify_add_watch(watch, mounted("secret"), UInt32(IN_MODIFY | IN_CLOSE_WRITE)))
        func expectBoth(_ what: String) {
            let seen = events(watch)
            for mask in [IN_MODIFY, IN_CLOSE_WRITE] {
                for name in ["secret", ""] {
                    #expect(
                        seen.contains { $0.mask & UInt32(mask) != 0 && $0.name == name },
                        "\(what): \(mask), \(name): \(seen)")
                }
            }
        }
        try work.done([try Workspace.program(), "import", work("out"), mounted.path, "--format", "json", "--replace"])
        #expect(try text(mounted("secret")) == "old")
        expectBoth("a restored value")
        let writer = try work.start([
            "python3", "-c",
            "import os,sys,time\nf=os.open(sys.argv[1],os.O_WRONLY|os.O_TRUNC)\nos.write(f,b'half')\n"
                + "os.kill(os.getpid(),9)", mounted("secret"),
        ])
        #expect(try writer.wait().status == 128 + SIGKILL)
        #expect(eventually { (try? text(self.mounted("secret"))) == "old" })
        expectBoth("a value that stays")
    }

    @Test func rotationRaisesNone() throws {
        guard !Mounted.isPlain else { return }
        try put("value", mounted("secret"))
        let watch = try check(inotify_init1(Int32(IN_NONBLOCK) | Int32(IN_CLOEXEC)))
        defer { close(watch) }
        for path in [mounted.path, mounted("secret")] {
            try check(inotify_add_watch(watch, path, allEvents))
        }
        try mounted.command("1", "keys/rotate")
        let seen = events(watch).filter {
            $0.name == "secret" || $0.mask & UInt32(IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF) != 0
        }
        #expect(seen.isEmpty, "\(seen)")
    }
}
