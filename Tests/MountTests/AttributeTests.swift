import Glibc
import Testing

@Suite("Attributes, times and extended attributes on the mount")
struct AttributeTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    /// Lets the clock that stamps files move on.
    private func pause() { usleep(20_000) }

    @Test func modesAndOwnersAreKept() throws {
        try put("", mounted("f"))
        for mode: mode_t in [0o600, 0o7777, 0, 0o4755, 0o2710, 0o644] {
            expectDone(chmod(mounted("f"), mode))
            #expect(try attributes(mounted("f")).permissions == mode)
        }
        expectDone(chown(mounted("f"), 1234, 5678))
        expectDone(chown(mounted("f"), uid_t.max, 5679))
        let kept = try attributes(mounted("f"))
        #expect(kept.st_uid == 1234 && kept.st_gid == 5679)
        expectDone(symlink("f", mounted("l")))
        expectDone(lchown(mounted("l"), 7, 8))
        #expect(try attributes(mounted("l")).st_uid == 7)
        #expect(try attributes(mounted("f")).st_uid == 1234)
        try mounted.remount()
        let again = try attributes(mounted("f"))
        #expect(again.st_uid == 1234 && again.st_gid == 5679 && again.permissions == 0o644)
        #expect(try attributes(mounted("l")).st_gid == 8)
    }

    @Test func theUmaskNarrowsNewFiles() throws {
        let before = umask(0o027)
        defer { umask(before) }
        try put("", mounted("f"), mode: 0o666)
        try check(mkdir(mounted("d"), 0o777))
        #expect(try attributes(mounted("f")).permissions == 0o640)
        #expect(try attributes(mounted("d")).permissions == 0o750)
    }

    @Test func timesAreSetToTheNanosecond() throws {
        try put("", mounted("f"))
        let times = [
            timespec(tv_sec: 1_000_000_000, tv_nsec: 123_456_789), timespec(tv_sec: -5, tv_nsec: 987_654_321),
        ]
        expectDone(utimensat(AT_FDCWD, mounted("f"), times, 0))
        try mounted.remount()
        let told = try attributes(mounted("f"))
        #expect(told.accessed == Instant(times[0]))
        #expect(told.modified == Instant(times[1]))
        let omit = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 2)
        let now = timespec(tv_sec: 0, tv_nsec: (1 << 30) - 1)
        expectDone(utimensat(AT_FDCWD, mounted("f"), [omit, now], 0))
        let after = try attributes(mounted("f"))
        #expect(after.accessed == Instant(times[0]))
        #expect(after.modified.seconds > 1_700_000_000)
        let far = timespec(tv_sec: 7_000_000_000, tv_nsec: 1)
        expectDone(utimensat(AT_FDCWD, mounted("f"), [far, far], 0))
        #expect(try attributes(mounted("f")).modified == Instant(far))
    }

    @Test func changesMoveTheTimesTheyShould() throws {
        try put("one", mounted("f"))
        try check(mkdir(mounted("d"), 0o755))
        func times(_ name: String) throws -> (modified: Instant, changed: Instant) {
            let told = try attributes(mounted(name))
            return (told.modified, told.changed)
        }
        func expectMoved(
            _ name: String, modified: Bool, changed: Bool, at place: SourceLocation = #_sourceLocation,
            by change: () throws -> Void
        ) throws {
            let before = try times(name)
            pause()
            try change()
            let after = try times(name)
            #expect((after.modified > before.modified) == modified, "mtime", sourceLocation: place)
            #expect((after.changed > before.changed) == changed, "ctime", sourceLocation: place)
        }
        try expectMoved("f", modified: true, changed: true) { try put("two", mounted("f")) }
        try expectMoved("f", modified: true, changed: true) {
            try OpenFile(mounted("f"), O_WRONLY).write("x", at: 0)
        }
        try expectMoved("f", modified: false, changed: true) { try check(chmod(mounted("f"), 0o600)) }
        try expectMoved("f", modified: false, changed: true) { try check(chown(mounted("f"), 1, 1)) }
        try expectMoved("f", modified: false, changed: true) { try check(link(mounted("f"), mounted("g"))) }
        try expectMoved("f", modified: false, changed: true) { try check(unlink(mounted("g"))) }
        try expectMoved("f", modified: false, changed: true) {
            try check(rename(mounted("f"), mounted("h")))
            try check(rename(mounted("h"), mounted("f")))
        }
        try expectMoved("f", modified: false, changed: true) {
            try setExtendedAttribute(mounted("f"), "user.a", "1")
        }
        try expectMoved("f", modified: false, changed: false) {
            try setExtendedAttribute(mounted("f"), "user.a", "1")
        }
        try expectMoved("f", modified: false, changed: true) {
            try setExtendedAttribute(mounted("f"), "user.a", "2")
        }
        try expectMoved("f", modified: true, changed: true) { try check(truncate(mounted("f"), 1)) }
        try expectMoved("f", modified: false, changed: false) { _ = try text(mounted("f")) }
        try expectMoved("d", modified: true, changed: true) { try put("", mounted("d/x")) }
        try expectMoved("d", modified: false, changed: false) { try put("1", mounted("d/x")) }
        try expectMoved("d", modified: true, changed: true) {
            try check(rename(mounted("d/x"), mounted("d/y")))
        }
        try expectMoved("d", modified: true, changed: true) { try check(unlink(mounted("d/y"))) }
        try expectMoved("d", modified: true, changed: true) { try check(mkdir(mounted("d/z"), 0o700)) }
        try expectMoved("d", modified: true, changed: true) { try check(rmdir(mounted("d/z"))) }
    }

    /// As `cp -p` of an empty file does.
    @Test(arguments: ["", "value"])
    func aTimeThatIsSetBeforeTheCloseIsKept(value: String) throws {
        try put("old", mounted("f"))
        let file = try OpenFile(mounted("f"), O_WRONLY | O_TRUNC)
        if !value.isEmpty { try file.write(value) }
        let time = timespec(tv_sec: 1_000_000_000, tv_nsec: 5)
        expectDone(futimens(file.descriptor, [time, time]))
        try file.close()
        // What wrote nothing ends when its descriptor is released.
        #expect(try eventually { try text(mounted("f")) == value })
        #expect(try attributes(mounted("f")).modified == Instant(time))
    }

    @Test func theBirthTimeIsThatOfTheMaking() throws {
        func born(_ name: String) throws -> String {
            try mounted.workspace.done(["stat", "--format=%W", mounted(name)]).line
        }
        let before = time(nil)
        try put("value", mounted("f"))
        try check(mkdir(mounted("d"), 0o755))
        let after = time(nil)
        for name in ["f", "d"] { #expect((before...after).contains(Int(try born(name)) ?? 0), "\(name)") }
        let first = try born("f")
        expectDone(utimensat(AT_FDCWD, mounted("f"), [timespec(), timespec()], 0))
        try put("another", mounted("f"))
        try mounted.remount()
        #expect(try born("f") == first)
        // The other attributes come with it.
        let told = try mounted.workspace.done(["stat", "--format=%W %s %a %h %F", mounted("f")]).line
        #expect(told == "\(first) 7 644 1 regular file")
        // `stat` asks for it of control files too, which have none.
        if !Mounted.isPlain {
            #expect(try mounted.workspace.done(["stat", mounted.control("status")]).text.contains("File:"))
        }
    }

    @Test func extendedAttributesAreKept() throws {
        try put("", mounted("f"))
        try check(mkdir(mounted("d"), 0o755))
        try setExtendedAttribute(mounted("f"), "user.colour", "blue")
        try setExtendedAttribute(mounted("f"), "user.empty", "")
        try setExtendedAttribute(mounted("d"), "user.of-a-directory", "yes")
        let name = "user." + String(repeating: "n", count: 250)
        try setExtendedAttribute(mounted("f"), name, "long")
        #expect(try extendedAttributeText(mounted("f"), "user.colour") == "blue")
        #expect(try extendedAttribute(mounted("f"), "user.empty") == [])
        let own = { (names: [String]) in names.filter { !$0.hasPrefix("user.letterlock.") } }
        #expect(own(try extendedAttributeNames(mounted("f"))) == ["user.colour", "user.empty", name])
        expectErrno(EEXIST) { try setExtendedAttribute(mounted("f"), "user.colour", "red", flags: 1) }
        expectErrno(ENODATA) { try setExtendedAttribute(mounted("f"), "user.none", "red", flags: 2) }
        try setExtendedAttribute(mounted("f"), "user.colour", "red", flags: 2)
        expectErrno(ENODATA) { _ = try extendedAttribute(mounted("f"), "user.none") }
        var small: UInt8 = 0
        expectErrno(ERANGE, lgetxattr(mounted("f"), "user.colour", &small, 1))
        #expect(lgetxattr(mounted("f"), "user.colour", nil, 0) == 3)
        try mounted.remount()
        #expect(try extendedAttributeText(mounted("f"), "user.colour") == "red")
        #expect(try extendedAttributeText(mounted("f"), name) == "long")
        #expect(try extendedAttributeText(mounted("d"), "user.of-a-directory") == "yes")
        expectDone(removexattr(mounted("f"), "user.colour"))
        expectErrno(ENODATA, removexattr(mounted("f"), "user.colour"))
        expectErrno(ENODATA) { _ = try extendedAttribute(mounted("f"), "user.colour") }
    }

    @Test func allocatedSizeFollowsContents() throws {
        try put(pattern(100_000), mounted("f"))
        let told = try attributes(mounted("f"))
        #expect(told.st_blocks * 512 >= 98_304)
        #expect(told.st_blksize >= 512)
        expectDone(truncate(mounted("f"), 0))
        #expect(try attributes(mounted("f")).st_blocks == 0)
    }

    @Test func inodeNumbersStayAcrossMounts() throws {
        guard !Mounted.isPlain else { return }
        try put("", mounted("f"))
        try check(mkdir(mounted("d"), 0o755))
        let before = (try attributes(mounted("f")).st_ino, try attributes(mounted("d")).st_ino)
        try mounted.remount()
        #expect(try attributes(mounted("f")).st_ino == before.0)
        #expect(try attributes(mounted("d")).st_ino == before.1)
    }

    @Test func theRootIsItsCreatorsAlone() throws {
        guard !Mounted.isPlain else { return }
        let root = try attributes(mounted.path)
        #expect(root.permissions == 0o700)
        #expect(root.st_uid == 0)
        expectErrno(EACCES) { _ = try asUser(nobody, nobody) { try names(mounted.path) } }
        expectDone(chmod(mounted.path, 0o755))
        #expect(try asUser(nobody, nobody) { try names(mounted.path) } == [])
    }
}
