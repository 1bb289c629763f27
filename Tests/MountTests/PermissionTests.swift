import Glibc
import Testing

@Suite("What the mount lets other users do")
struct PermissionTests {
    let mounted: Mounted
    let user: uid_t = 1777
    let group: gid_t = 1888

    init() throws {
        mounted = try Mounted()
        try check(chmod(mounted.path, 0o755))
    }

    private func asOther<Result>(_ body: () throws -> Result) rethrows -> Result {
        try asUser(user, group, body)
    }

    @Test func modesDecideWhoReadsAndWrites() throws {
        try put("secret", mounted("f"))
        expectDone(chown(mounted("f"), 0, group))
        for (mode, reads, writes): (mode_t, Bool, Bool) in [
            (0o600, false, false), (0o640, true, false), (0o620, false, true), (0o606, false, false),
            (0o660, true, true),
        ] {
            expectDone(chmod(mounted("f"), mode))
            asOther {
                if reads {
                    #expect((try? text(mounted("f"))) == "secret", "\(String(mode, radix: 8))")
                } else {
                    expectErrno(EACCES, open(mounted("f"), O_RDONLY), "\(String(mode, radix: 8))")
                }
                let writer = open(mounted("f"), O_WRONLY | O_CLOEXEC)
                #expect((writer >= 0) == writes, "\(String(mode, radix: 8))")
                if writer >= 0 { close(writer) }
            }
        }
        expectDone(chown(mounted("f"), user, 0))
        expectDone(chmod(mounted("f"), 0o400))
        #expect(try asOther { try text(mounted("f")) } == "secret")
        // Root reads everything.
        expectDone(chmod(mounted("f"), 0))
        #expect(try text(mounted("f")) == "secret")
    }

    @Test func aWriteByAnotherTakesSetIDBitsAway() throws {
        for flags in [O_RDWR, O_WRONLY] {
            try put("value", mounted("f"))
            expectDone(chmod(mounted("f"), 0o6777))
            try asOther { () throws in
                let file = try OpenFile(mounted("f"), flags)
                try file.write("VALUE")
                try file.close()
            }
            #expect(try text(mounted("f")) == "VALUE")
            #expect(try attributes(mounted("f")).st_mode & 0o7777 == 0o777)
        }
    }

    @Test func directoriesDecideWhoEntersListsAndCreates() throws {
        try check(mkdir(mounted("d"), 0o755))
        try put("inside", mounted("d/f"))
        try asOther { () throws in
            #expect(try names(mounted("d")) == ["f"])
            expectErrno(EACCES, open(mounted("d/new"), O_WRONLY | O_CREAT, 0o600))
            expectErrno(EACCES, unlink(mounted("d/f")))
            expectErrno(EACCES, mkdir(mounted("d/new"), 0o700))
            expectErrno(EACCES, rename(mounted("d/f"), mounted("d/g")))
        }
        expectDone(chmod(mounted("d"), 0o711))
        try asOther { () throws in
            expectErrno(EACCES) { _ = try names(mounted("d")) }
            #expect(try text(mounted("d/f")) == "inside")
        }
        expectDone(chmod(mounted("d"), 0o744))
        try asOther { () throws in
            #expect(try names(mounted("d")) == ["f"])
            expectErrno(EACCES) { _ = try text(mounted("d/f")) }
        }
    }

    @Test func onlyOwnersChangeModesOwnersAndTimes() throws {
        try put("", mounted("f"), mode: 0o666)
        expectDone(chmod(mounted("f"), 0o666))
        asOther {
            expectErrno(EPERM, chmod(mounted("f"), 0o600))
            expectErrno(EPERM, chown(mounted("f"), user, group))
            expectErrno(EPERM, utimensat(AT_FDCWD, mounted("f"), [timespec(), timespec()], 0))
            // Touching needs no more than the right to write.
            expectDone(utimensat(AT_FDCWD, mounted("f"), nil, 0))
        }
        expectDone(chown(mounted("f"), user, group))
        asOther {
            expectDone(chmod(mounted("f"), 0o600))
            expectErrno(EPERM, chown(mounted("f"), 0, group))
            expectErrno(EPERM, chown(mounted("f"), user, 4321))
        }
    }

    @Test func stickyDirectoriesKeepEachOnesFiles() throws {
        try check(mkdir(mounted("tmp"), 0o777))
        expectDone(chmod(mounted("tmp"), 0o1777))
        try put("root's", mounted("tmp/a"))
        try asOther {
            try put("mine", mounted("tmp/b"))
            expectErrno(EPERM, unlink(mounted("tmp/a")))
            expectErrno(EPERM, rename(mounted("tmp/a"), mounted("tmp/c")))
            expectErrno(EPERM, rename(mounted("tmp/b"), mounted("tmp/a")))
            expectDone(rename(mounted("tmp/b"), mounted("tmp/c")))
            expectDone(unlink(mounted("tmp/c")))
        }
    }

    @Test func setgidDirectoriesHandTheirGroupOn() throws {
        try check(mkdir(mounted("d"), 0o755))
        expectDone(chown(mounted("d"), 0, 4321))
        expectDone(chmod(mounted("d"), 0o2777))
        try put("", mounted("d/f"))
        try check(mkdir(mounted("d/sub"), 0o755))
        #expect(try attributes(mounted("d/f")).st_gid == 4321)
        #expect(try attributes(mounted("d/f")).permissions & 0o2000 == 0)
        let sub = try attributes(mounted("d/sub"))
        #expect(sub.st_gid == 4321)
        #expect(sub.permissions == 0o2755)
        try asOther { try put("", mounted("d/of-another")) }
        let other = try attributes(mounted("d/of-another"))
        #expect(other.st_uid == user && other.st_gid == 4321)
    }

    @Test func newFilesAreTheirMakers() throws {
        expectDone(chmod(mounted.path, 0o777))
        try asOther {
            try put("", mounted("f"))
            try check(mkdir(mounted("d"), 0o700))
            try check(symlink("f", mounted("l")))
            try check(mkfifo(mounted("p"), 0o600))
        }
        for name in ["f", "d", "l", "p"] {
            let made = try attributes(mounted(name))
            #expect(made.st_uid == user && made.st_gid == group, "\(name)")
        }
    }

    @Test func writingByOthersClearsSetIDBits() throws {
        try put("program", mounted("f"))
        expectDone(chmod(mounted("f"), 0o6777))
        try asOther {
            let file = try OpenFile(mounted("f"), O_WRONLY)
            try file.write("x", at: 0)
        }
        #expect(try attributes(mounted("f")).permissions == 0o777)
        expectDone(chmod(mounted("f"), 0o6777))
        try asOther {
            let file = try OpenFile(mounted("f"), O_WRONLY)
            expectDone(fallocate(file.descriptor, 0, 0, 100))
        }
        #expect(try attributes(mounted("f")).permissions == 0o777)
        expectDone(chmod(mounted("f"), 0o6777))
        expectDone(chown(mounted("f"), user, group))
        #expect(try attributes(mounted("f")).permissions == 0o777)
    }

    @Test func realProcessesOfOtherUsersAreJudgedAlike() throws {
        try put("for nobody", mounted("f"), mode: 0o400)
        try put("for root", mounted("g"), mode: 0o400)
        expectDone(chown(mounted("f"), nobody, nobody))
        let asNobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        let work = mounted.workspace
        #expect(try work.done(asNobody + ["cat", mounted("f")]).line == "for nobody")
        #expect(try work.run(asNobody + ["cat", mounted("g")]).status != 0)
        if !Mounted.isPlain {
            #expect(try work.run(asNobody + ["cat", mounted.control("status")]).status != 0)
            #expect(try work.run(asNobody + ["ls", mounted.path + "/.letterlock"]).status != 0)
        }
    }

    @Test func accessControlListsDecideBeyondModes() throws {
        try put("shared", mounted("f"), mode: 0o600)
        try check(mkdir(mounted("d"), 0o700))
        let work = mounted.workspace
        func list(_ name: String) throws -> [Substring] {
            try work.done(["getfacl", "--omit-header", "--numeric", "--absolute-names", mounted(name)]).text
                .split(separator: "\n")
        }
        try work.done(["setfacl", "--modify", "u:\(user):r", mounted("f")])
        try work.done(["setfacl", "--modify", "u:\(user):x", mounted.path])
        #expect(try list("f") == ["user::rw-", "user:\(user):r--", "group::---", "mask::r--", "other::---"])
        #expect(try attributes(mounted("f")).permissions == 0o640)
        try asOther { () throws in
            #expect(try text(mounted("f")) == "shared")
            expectErrno(EACCES, open(mounted("f"), O_WRONLY))
        }
        // The mask is what chmod(2) sets of a file with a list.
        expectDone(chmod(mounted("f"), 0o600))
        asOther { expectErrno(EACCES, open(mounted("f"), O_RDONLY)) }
        expectDone(chmod(mounted("f"), 0o640))
        try mounted.remount()
        #expect(try list("f") == ["user::rw-", "user:\(user):r--", "group::---", "mask::r--", "other::---"])
        #expect(try asOther { try text(mounted("f")) } == "shared")
        // What is made in a directory, and copied.
        try work.done(["setfacl", "--default", "--modify", "u:\(user):rwx,o::-", mounted("d")])
        try put("", mounted("d/new"), mode: 0o666)
        #expect(
            try list("d/new") == [
                "user::rw-", "user:\(user):rwx\t#effective:rw-", "group::---", "mask::rw-", "other::---",
            ])
        try work.done(["cp", "-a", mounted("f"), mounted("copy")])
        try work.done(["rsync", "-aHAX", mounted("d") + "/", mounted("e") + "/"])
        #expect(try list("copy") == list("f"))
        #expect(try list("e/new") == list("d/new"))
        #expect(try list("e") == list("d"))
        try work.done(["setfacl", "--remove-all", mounted("f")])
        #expect(try list("f") == ["user::rw-", "group::---", "other::---"])
        asOther { expectErrno(EACCES, open(mounted("f"), O_RDONLY)) }
    }

    @Test func aReadOnlyMountTakesNothing() throws {
        guard !Mounted.isPlain else { return }
        try put("kept", mounted("f"))
        try mounted.remount("ro")
        #expect(try text(mounted("f")) == "kept")
        expectErrno(EROFS, open(mounted("f"), O_WRONLY))
        expectErrno(EROFS, open(mounted("new"), O_WRONLY | O_CREAT, 0o600))
        expectErrno(EROFS, unlink(mounted("f")))
        expectErrno(EROFS, mkdir(mounted("d"), 0o700))
        expectErrno(EROFS, chmod(mounted("f"), 0o600))
        expectErrno(EROFS, rename(mounted("f"), mounted("g")))
        expectErrno(EROFS) { try setExtendedAttribute(mounted("f"), "user.a", "1") }
    }

    @Test func mountOptionsShowOtherOwnersAndNarrowModes() throws {
        guard !Mounted.isPlain else { return }
        try mounted.remount("uid=1777,gid=1888,umask=027")
        try put("", mounted("f"), mode: 0o666)
        let made = try attributes(mounted("f"))
        #expect(made.st_uid == 1777 && made.st_gid == 1888)
        #expect(made.permissions == 0o640)
        try check(mkdir(mounted("d"), 0o777))
        #expect(try attributes(mounted("d")).permissions == 0o750)
    }
}
