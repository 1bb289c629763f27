import Glibc
import Testing

@Suite("Disabled keys deny at once", .enabled(if: !Mounted.isPlain))
struct KeyStateTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    /// A file under version 1, which is not the primary any more, and one under version 2.
    private func twoVersions(_ size: Int = 100) throws {
        try put(pattern(size), mounted("old"))
        try mounted.command("1", "keys/rotate")
        try put("under version 2", mounted("new"))
    }

    @Test(arguments: ["kernel", "none"])
    func openAndReadAreRefusedUntilEnabledAgain(cache: String) throws {
        try mounted.remount("cache=\(cache)")
        try twoVersions(200_000)
        let file = try OpenFile(mounted("old"), O_RDONLY)
        // All of it is in the page cache now, where there is one.
        #expect(try file.read(200_000, at: 0) == pattern(200_000))
        let map = mmap(nil, 4096, PROT_READ, MAP_PRIVATE, file.descriptor, 0)
        let place = try #require(map != MAP_FAILED ? map : nil)
        #expect(place.load(as: UInt8.self) == pattern(1)[0])
        try mounted.command("disable", "keys/1/state")
        #expect(try mounted.answer("keys/1/state") == "disabled")
        expectErrno(EKEYREVOKED, open(mounted("old"), O_RDONLY))
        expectErrno(EKEYREVOKED) { _ = try file.read(10, at: 0) }
        expectErrno(EKEYREVOKED) { _ = try file.read(10, at: 150_000) }
        expectErrno(EKEYREVOKED) { try put("more", mounted("old"), flags: O_WRONLY | O_APPEND) }
        // The others go on; so do names and attributes.
        #expect(try text(mounted("new")) == "under version 2")
        #expect(try attributes(mounted("old")).st_size == 200_000)
        #expect(try extendedAttributeText(mounted("old"), "user.letterlock.kek_version") == "1")
        try mounted.command("enable", "keys/1/state")
        #expect(try file.read(200_000, at: 0) == pattern(200_000))
        #expect(try contents(mounted("old")) == pattern(200_000))
        munmap(place, 4096)
    }

    /// Also where a page was there before. With cache=none the kernel has private mappings alone.
    @Test(arguments: ["kernel", "none"], [("disable", 0), ("disable", 5000), ("compromise laptop lost", 0)])
    func aMappingOfWhatIsDeniedFaults(cache: String, order: (String, place: Int)) throws {
        try mounted.remount("cache=\(cache)")
        try twoVersions(8192)
        let script = """
            import mmap, os
            f = os.open('\(mounted("old"))', os.O_RDONLY)
            shared = '\(cache)' == 'kernel'
            m = mmap.mmap(f, 8192, flags=mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
            first = m[0]
            open('\(mounted.control("keys/1/state"))', 'w').write('\(order.0)')
            print(m[\(order.place)])
            """
        let outcome = try mounted.workspace.run(["python3", "-c", script])
        #expect(outcome.status == 128 + SIGBUS, "\(outcome.status) \(outcome.text) \(outcome.complaint)")
    }

    @Test func aDisabledVersionStaysSoAcrossMounts() throws {
        try twoVersions()
        try mounted.command("disable", "keys/1/state")
        try mounted.remount()
        #expect(try mounted.answer("keys/1/state") == "disabled")
        expectErrno(EKEYREVOKED, open(mounted("old"), O_RDONLY))
        #expect(try text(mounted("new")) == "under version 2")
        try mounted.unmount()
        // verify finds no tampering in what a disabled key protects.
        let verified = try mounted.workspace.letterlock(
            "verify", mounted.store, "--key-service", mounted.workspace.keyService)
        #expect(verified.status == 0, "\(verified.complaint)")
        try mounted.mount()
        try mounted.command("enable", "keys/1/state")
        #expect(try contents(mounted("old")) == pattern(100))
    }

    @Test func aNewValueFreesAFileFromItsDisabledKey() throws {
        try twoVersions()
        try mounted.command("disable", "keys/1/state")
        try put("written anew", mounted("old"))
        #expect(try text(mounted("old")) == "written anew")
        #expect(try extendedAttributeText(mounted("old"), "user.letterlock.kek_version") == "2")
        #expect(try mounted.answer("keys/1/files") == "0")
    }

    @Test func disabledFilesAreRenamedAndRemovedAllTheSame() throws {
        try twoVersions()
        try mounted.command("disable", "keys/1/state")
        expectDone(rename(mounted("old"), mounted("older")))
        expectDone(chmod(mounted("older"), 0o600))
        #expect(try names(mounted.path) == ["new", "older"])
        #expect(try text(mounted.control("keys/1/paths")) == "/older\0")
        expectDone(unlink(mounted("older")))
        // It goes when the kernel has forgotten it.
        #expect(try eventually { try mounted.answer("keys/1/files") == "0" })
    }
}
