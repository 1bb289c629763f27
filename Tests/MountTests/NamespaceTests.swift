import CLinux
import Glibc
import Testing

@Suite("Names, directories, links and renames on the mount")
struct NamespaceTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    @Test func filesAreMadeAndExclusiveCreationRefusesTheSecond() throws {
        try put("one", mounted("a"))
        expectErrno(EEXIST, open(mounted("a"), O_WRONLY | O_CREAT | O_EXCL, 0o600))
        let made = open(mounted("b"), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o640)
        expectDone(close(made))
        #expect(try attributes(mounted("b")).permissions == 0o640)
        #expect(try names(mounted.path) == ["a", "b"])
        expectErrno(ENOENT, open(mounted("none"), O_RDONLY))
        expectErrno(ENOTDIR, open(mounted("a/x"), O_RDONLY))
        expectErrno(EISDIR, open(mounted.path, O_WRONLY))
        expectErrno(ENOTDIR, open(mounted("a"), O_RDONLY | O_DIRECTORY))
    }

    @Test func directoriesCountTheirSubdirectories() throws {
        let before = try attributes(mounted.path).st_nlink
        for name in ["d", "d/e", "d/f"] { try check(mkdir(mounted(name), 0o755)) }
        #expect(try attributes(mounted.path).st_nlink == before + 1)
        #expect(try attributes(mounted("d")).st_nlink == 4)
        expectErrno(EEXIST, mkdir(mounted("d"), 0o755))
        expectErrno(ENOTEMPTY, rmdir(mounted("d")))
        expectErrno(EISDIR, unlink(mounted("d")))
        expectDone(rmdir(mounted("d/e")))
        #expect(try attributes(mounted("d")).st_nlink == 3)
        expectErrno(ENOENT, rmdir(mounted("d/e")))
        try put("", mounted("plain"))
        expectErrno(ENOTDIR, rmdir(mounted("plain")))
        expectErrno(EINVAL, rmdir(mounted("d/.")))
        // EBUSY for a mount point, which the root of this file system is.
        if !Mounted.isPlain { expectErrno(EBUSY, rmdir(mounted.path)) }
    }

    @Test func anOpenFileOutlivesItsName() throws {
        try put("still here", mounted("a"))
        let file = try OpenFile(mounted("a"), O_RDWR)
        expectDone(unlink(mounted("a")))
        #expect(!exists(mounted("a")))
        #expect(try file.text() == "still here")
        #expect(try file.attributes().st_nlink == 0)
        try file.write(", and grows", at: 10)
        expectDone(fchmod(file.descriptor, 0o600))
        expectDone(ftruncate(file.descriptor, 15))
        #expect(try file.text() == "still here, and")
        try put("another", mounted("a"))
        #expect(try file.text() == "still here, and")
        try file.close()
        #expect(try text(mounted("a")) == "another")
    }

    @Test func hardLinksShareOneFile() throws {
        try put("shared", mounted("a"))
        expectDone(link(mounted("a"), mounted("b")))
        try check(mkdir(mounted("d"), 0o755))
        expectDone(link(mounted("a"), mounted("d/c")))
        let one = try attributes(mounted("a"))
        let other = try attributes(mounted("d/c"))
        #expect(one.st_ino == other.st_ino)
        #expect(one.st_nlink == 3)
        try put("changed", mounted("b"))
        #expect(try text(mounted("a")) == "changed")
        #expect(try text(mounted("d/c")) == "changed")
        expectErrno(EEXIST, link(mounted("a"), mounted("b")))
        expectErrno(EPERM, link(mounted("d"), mounted("dd")))
        expectDone(unlink(mounted("a")))
        expectDone(unlink(mounted("d/c")))
        #expect(try attributes(mounted("b")).st_nlink == 1)
        #expect(try text(mounted("b")) == "changed")
        expectErrno(EXDEV, link(mounted("b"), "/dev/shm/letterlock-test-link"))
    }

    @Test func symbolicLinksAreFollowedAndRead() throws {
        try put("target", mounted("a"))
        expectDone(symlink("a", mounted("l")))
        #expect(try linkTarget(mounted("l")) == "a")
        #expect(try text(mounted("l")) == "target")
        let own = try attributes(mounted("l"))
        #expect(own.type == S_IFLNK)
        #expect(own.st_size == 1)
        #expect(own.permissions == 0o777)
        expectErrno(EEXIST, symlink("b", mounted("l")))
        expectErrno(EINVAL) { _ = try linkTarget(mounted("a")) }
        expectErrno(ELOOP, open(mounted("l"), O_RDONLY | O_NOFOLLOW))
        expectDone(symlink("y", mounted("x")))
        expectDone(symlink("x", mounted("y")))
        expectErrno(ELOOP, open(mounted("x"), O_RDONLY))
        let long = String(repeating: "p/", count: 2000)
        expectDone(symlink(long, mounted("long")))
        #expect(try linkTarget(mounted("long")) == long)
        expectErrno(ENOENT, symlink("", mounted("empty")))
    }

    @Test func renameReplacesInOneStep() throws {
        try put("new", mounted("a"))
        try put("old", mounted("b"))
        let inode = try attributes(mounted("a")).st_ino
        let replaced = try OpenFile(mounted("b"), O_RDONLY)
        expectDone(rename(mounted("a"), mounted("b")))
        #expect(!exists(mounted("a")))
        #expect(try text(mounted("b")) == "new")
        #expect(try attributes(mounted("b")).st_ino == inode)
        #expect(try replaced.text() == "old")
        #expect(try replaced.attributes().st_nlink == 0)
        expectDone(link(mounted("b"), mounted("c")))
        // Two names of one file: nothing happens.
        expectDone(rename(mounted("b"), mounted("c")))
        #expect(try names(mounted.path) == ["b", "c"])
        expectErrno(ENOENT, rename(mounted("none"), mounted("x")))
    }

    @Test func renameKnowsDirectoriesFromFiles() throws {
        for name in ["d", "d/sub", "e", "full", "full/x"] { try check(mkdir(mounted(name), 0o755)) }
        try put("", mounted("f"))
        expectErrno(EISDIR, rename(mounted("f"), mounted("e")))
        expectErrno(ENOTDIR, rename(mounted("e"), mounted("f")))
        expectErrno(ENOTEMPTY, rename(mounted("e"), mounted("full")))
        expectErrno(EINVAL, rename(mounted("d"), mounted("d/sub/inside")))
        let count = try attributes(mounted.path).st_nlink
        expectDone(rename(mounted("d/sub"), mounted("e")))
        #expect(try attributes(mounted("d")).st_nlink == 2)
        #expect(try attributes(mounted.path).st_nlink == count)
        expectDone(rename(mounted("e"), mounted("d/moved")))
        #expect(try attributes(mounted("d")).st_nlink == 3)
        #expect(try attributes(mounted.path).st_nlink == count - 1)
        // ".." of a moved directory is its new parent.
        #expect(try attributes(mounted("d/moved/..")).st_ino == attributes(mounted("d")).st_ino)
    }

    @Test func renameFlagsExchangeAndNeverReplace() throws {
        try put("a", mounted("a"))
        try put("b", mounted("b"))
        try check(mkdir(mounted("d"), 0o755))
        try put("inside", mounted("d/file"))
        let noReplace: UInt32 = 1
        let exchange: UInt32 = 2
        expectErrno(EEXIST, ll_renameat2(AT_FDCWD, mounted("a"), AT_FDCWD, mounted("b"), noReplace))
        expectDone(ll_renameat2(AT_FDCWD, mounted("a"), AT_FDCWD, mounted("c"), noReplace))
        expectDone(ll_renameat2(AT_FDCWD, mounted("b"), AT_FDCWD, mounted("c"), exchange))
        #expect(try text(mounted("b")) == "a")
        #expect(try text(mounted("c")) == "b")
        expectErrno(ENOENT, ll_renameat2(AT_FDCWD, mounted("b"), AT_FDCWD, mounted("none"), exchange))
        // A file for a directory, in another directory.
        try check(mkdir(mounted("e"), 0o755))
        expectDone(ll_renameat2(AT_FDCWD, mounted("d"), AT_FDCWD, mounted("e/x"), noReplace))
        expectDone(ll_renameat2(AT_FDCWD, mounted("e/x"), AT_FDCWD, mounted("b"), exchange))
        #expect(try text(mounted("b/file")) == "inside")
        #expect(try text(mounted("e/x")) == "a")
        #expect(try attributes(mounted("e")).st_nlink == 2)
        expectErrno(
            EINVAL, ll_renameat2(AT_FDCWD, mounted("b"), AT_FDCWD, mounted("c"), noReplace | exchange))
        expectErrno(EXDEV, rename(mounted("c"), "/dev/shm/letterlock-test-rename"))
    }

    @Test func aFileMayBeMadeWithoutANameAndGetOneLater() throws {
        let (temporary, follow): (Int32, Int32) = (0o20_200_000, 0x400)
        func give(_ file: OpenFile, _ name: String) -> Int32 {
            linkat(AT_FDCWD, "/proc/self/fd/\(file.descriptor)", AT_FDCWD, mounted(name), follow)
        }
        try check(mkdir(mounted("d"), 0o755))
        let before = try attributes(mounted("d"))
        let file = try OpenFile(mounted("d"), temporary | O_RDWR, mode: 0o640)
        try file.write("made in the dark")
        #expect(try file.attributes().st_nlink == 0)
        #expect(try file.attributes().permissions == 0o640)
        #expect(try names(mounted("d")) == [])
        #expect(try attributes(mounted("d")).modified == before.modified)
        expectDone(give(file, "d/f"))
        #expect(try text(mounted("d/f")) == "made in the dark")
        #expect(try file.attributes().st_nlink == 1)
        expectDone(give(file, "g"))
        try file.write(", seen by both", at: 16)
        #expect(try text(mounted("g")) == "made in the dark, seen by both")
        // With O_EXCL never; and not any more when the last name is gone.
        let secret = try OpenFile(mounted.path, temporary | O_EXCL | O_WRONLY)
        expectErrno(ENOENT, give(secret, "x"))
        expectDone(unlink(mounted("d/f")))
        expectDone(unlink(mounted("g")))
        expectErrno(ENOENT, give(file, "x"))
        expectErrno(ENOTDIR) {
            try put("", mounted("plain"))
            _ = try OpenFile(mounted("plain"), temporary | O_RDWR)
        }
    }

    @Test func aRenameMayLeaveAWhiteout() throws {
        let (noReplace, exchange, whiteout): (UInt32, UInt32, UInt32) = (1, 2, 4)
        func expectWhiteout(_ name: String, at place: SourceLocation = #_sourceLocation) throws {
            let left = try attributes(mounted(name))
            #expect(left.st_mode == S_IFCHR && left.st_rdev == 0 && left.st_nlink == 1, sourceLocation: place)
        }
        try put("a", mounted("a"))
        try put("b", mounted("b"))
        expectDone(ll_renameat2(AT_FDCWD, mounted("a"), AT_FDCWD, mounted("b"), whiteout))
        #expect(try text(mounted("b")) == "a")
        try expectWhiteout("a")
        expectErrno(EEXIST, ll_renameat2(AT_FDCWD, mounted("b"), AT_FDCWD, mounted("a"), noReplace | whiteout))
        expectErrno(EINVAL, ll_renameat2(AT_FDCWD, mounted("b"), AT_FDCWD, mounted("a"), exchange | whiteout))
        // A directory to another one, and a removal of both that finds them empty.
        for name in ["from", "to", "from/d"] { try check(mkdir(mounted(name), 0o755)) }
        expectDone(ll_renameat2(AT_FDCWD, mounted("from/d"), AT_FDCWD, mounted("to/d"), noReplace | whiteout))
        try expectWhiteout("from/d")
        #expect(try attributes(mounted("from")).st_nlink == 2)
        #expect(try attributes(mounted("to")).st_nlink == 3)
        expectErrno(ENOTEMPTY, rmdir(mounted("from")))
        expectDone(unlink(mounted("from/d")))
        expectDone(rmdir(mounted("from")))
        try mounted.remount()
        try expectWhiteout("a")
        #expect(try names(mounted.path) == ["a", "b", "to"])
    }

    @Test func namesMayBeAnyBytesUpTo255() throws {
        var made: [[UInt8]] = []
        for byte in UInt8(1)...255 where byte != 47 && byte != 46 { made.append([byte]) }
        made.append(Array(repeating: 0xFF, count: 255))
        made.append(Array("née".utf8))
        made.append(Array("ne\u{301}e".utf8))
        for (number, name) in made.enumerated() {
            let path = Array(mounted.path.utf8) + [47] + name + [0]
            let descriptor = path.withUnsafeBytes {
                open(
                    $0.baseAddress!.assumingMemoryBound(to: CChar.self),
                    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0o600)
            }
            try check(descriptor)
            let bytes = Array(String(number).utf8)
            try check(write(descriptor, bytes, bytes.count))
            try check(close(descriptor))
        }
        let told = try rawNames(mounted.path)
        #expect(Set(told) == Set(made))
        let long = String(repeating: "n", count: 256)
        expectErrno(ENAMETOOLONG, open(mounted(long), O_WRONLY | O_CREAT, 0o600))
        expectErrno(ENAMETOOLONG, mkdir(mounted(long), 0o700))
        expectErrno(ENAMETOOLONG, rename(mounted("A"), mounted(long)))
        expectErrno(ENAMETOOLONG, symlink("a", mounted(long)))
        expectErrno(ENAMETOOLONG) { _ = try attributes(mounted(long)) }
    }

    @Test func aDirectoryOfThousandsIsToldOnceEach() throws {
        let count = 3000
        try check(mkdir(mounted("d"), 0o755))
        for number in 0..<count { try put("", mounted("d/entry-\(number)")) }
        let told = try rawNames(mounted("d"))
        #expect(told.count == count)
        #expect(Set(told).count == count)
    }

    @Test func readingADirectoryWhileDeletingFromItTellsEachEntryOnce() throws {
        let count = 2000
        try check(mkdir(mounted("d"), 0o755))
        for number in 0..<count { try put("", mounted("d/entry-\(number)")) }
        let stream = try #require(opendir(mounted("d")))
        defer { closedir(stream) }
        var told: Set<String> = []
        var toldTwice = 0
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name == "." || name == ".." { continue }
            if !told.insert(name).inserted { toldTwice += 1 }
            expectDone(unlink(mounted("d/" + name)))
        }
        #expect(told.count == count)
        #expect(toldTwice == 0)
        expectDone(rmdir(mounted("d")))
    }

    @Test func aPlaceInADirectoryIsFoundAgain() throws {
        try check(mkdir(mounted("d"), 0o755))
        for number in 0..<500 { try put("", mounted("d/entry-\(number)")) }
        let stream = try #require(opendir(mounted("d")))
        defer { closedir(stream) }
        func next() -> String? {
            readdir(stream).map { entry in
                withUnsafeBytes(of: &entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
            }
        }
        for _ in 0..<200 { _ = next() }
        let place = telldir(stream)
        var following: [String] = []
        while let name = next() { following.append(name) }
        // Others come and go meanwhile; POSIX leaves open whether this reader sees that before it rewinds.
        try put("", mounted("d/late"))
        let gone = following.remove(at: 100)
        expectDone(unlink(mounted("d/\(gone)")))
        seekdir(stream, place)
        var again: [String] = []
        while let name = next() { if name != "late", name != gone { again.append(name) } }
        #expect(again == following)
        rewinddir(stream)
        var all = 0
        while next() != nil { all += 1 }
        #expect(all == 500 + 2)
    }

    @Test func aRemovedDirectoryIsEmptyToThoseInsideIt() throws {
        try check(mkdir(mounted("d"), 0o755))
        let inside = try OpenFile(mounted("d"), O_RDONLY | O_DIRECTORY)
        let before = try inside.attributes()
        usleep(20_000)
        expectDone(rmdir(mounted("d")))
        // Nothing in it has changed since.
        #expect(try inside.attributes().modified == before.modified)
        #expect(try inside.attributes().changed > before.changed)
        expectErrno(ENOENT, openat(inside.descriptor, "x", O_WRONLY | O_CREAT | O_CLOEXEC, 0o600))
        #expect(try inside.attributes().st_nlink == 0)
    }

    @Test func aPipeOnTheMountConnectsTwoProcesses() throws {
        expectDone(mkfifo(mounted("pipe"), 0o600))
        #expect(try attributes(mounted("pipe")).type == S_IFIFO)
        expectErrno(EEXIST, mkfifo(mounted("pipe"), 0o600))
        let said = try mounted.workspace.shell(
            "echo through >'\(mounted("pipe"))' & cat '\(mounted("pipe"))'; wait")
        #expect(said.line == "through")
        expectErrno(ENXIO, open(mounted("pipe"), O_WRONLY | O_NONBLOCK))
    }

    @Test func statfsTellsAboutTheDisk() throws {
        var told = statvfs()
        try check(statvfs(mounted.path, &told))
        #expect(told.f_namemax == 255)
        #expect(told.f_blocks > 0)
        #expect(told.f_bavail > 0)
        #expect(told.f_bavail <= told.f_blocks)
    }

    @Test func aReaderNeverMissesAFileThatIsRenamedOver() throws {
        try put("value 0000", mounted("secret"))
        let writer = try mounted.workspace.start([
            "bash", "-c",
            "for i in $(seq 1 300); do printf 'value %04d' $i >'\(mounted("next"))'; mv '\(mounted("next"))' '\(mounted("secret"))'; done",
        ])
        var reads = 0
        while !writer.hasEnded {
            let value = try text(mounted("secret"))
            #expect(value.count == 10 && value.hasPrefix("value "))
            reads += 1
        }
        #expect(try writer.wait().status == 0)
        #expect(reads > 0)
        #expect(try text(mounted("secret")) == "value 0300")
    }

    @Test func aReaderNeverMissesASwappedLink() throws {
        for name in ["v1", "v2"] {
            try check(mkdir(mounted(name), 0o755))
            try put(name, mounted(name + "/key"))
        }
        try check(symlink("v1", mounted("..data")))
        try check(symlink("..data/key", mounted("key")))
        let writer = try mounted.workspace.start([
            "bash", "-c",
            "cd '\(mounted.path)'; for i in $(seq 1 300); do ln -s v$((i % 2 + 1)) ..tmp; mv -T ..tmp ..data; done",
        ])
        while !writer.hasEnded { #expect(["v1", "v2"].contains(try text(mounted("key")))) }
        #expect(try writer.wait().status == 0)
    }
}
