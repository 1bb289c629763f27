import Glibc
import Testing

@Suite("The control directory", .enabled(if: !Mounted.isPlain))
struct ControlTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    @Test func itIsReachedByNameAndNeverListed() throws {
        try put("x", mounted("a"))
        #expect(try names(mounted.path) == ["a"])
        #expect(try mounted.workspace.done(["find", mounted.path, "-mindepth", "1"]).line == mounted("a"))
        let directory = try attributes(mounted.path + "/.letterlock")
        #expect(directory.type == S_IFDIR && directory.permissions == 0o700 && directory.st_uid == 0)
        let listed = try names(mounted.path + "/.letterlock")
        #expect(listed.contains("status") && listed.contains("keys"))
        for name in [
            "status", "keys/list", "keys/primary", "keys/rotate", "keys/1/state", "keys/1/created",
            "keys/1/files", "keys/1/paths",
        ] {
            let file = try attributes(mounted.control(name))
            #expect(file.type == S_IFREG, "\(name)")
            #expect([0o600, 0o400].contains(file.permissions), "\(name)")
        }
        let inodes = try ["status", "keys/list", "keys/1/state"].map {
            try attributes(mounted.control($0)).st_ino
        }
        #expect(Set(inodes).count == 3)
    }

    @Test func nothingIsMadeRemovedOrChangedInIt() throws {
        try put("x", mounted("a"))
        expectErrno(EEXIST, mkdir(mounted.path + "/.letterlock", 0o700))
        func refused(_ result: Int32, _ what: String) { #expect(result == -1, "\(what)") }
        refused(rmdir(mounted.path + "/.letterlock"), "rmdir")
        refused(unlink(mounted.control("status")), "unlink")
        refused(open(mounted.control("new"), O_WRONLY | O_CREAT, 0o600), "create")
        refused(mkdir(mounted.control("new"), 0o700), "mkdir")
        refused(rename(mounted("a"), mounted.control("a")), "rename into")
        refused(rename(mounted("a"), mounted.path + "/.letterlock"), "rename over")
        refused(rename(mounted.path + "/.letterlock", mounted("b")), "rename")
        refused(rename(mounted.control("status"), mounted("b")), "rename out")
        refused(link(mounted.control("status"), mounted("b")), "link")
        refused(chmod(mounted.control("status"), 0o666), "chmod")
        refused(symlink("a", mounted.path + "/.letterlock"), "symlink")
        #expect(try names(mounted.path) == ["a"])
        #expect(try text(mounted.control("keys/primary")) == "1\n")
    }

    @Test func statusIsJSON() throws {
        try put("x", mounted("a"))
        let script = """
            import json, sys
            s = json.load(sys.stdin)
            for name in ('keyring', 'store_id', 'state', 'primary', 'files', 'versions', 'server', 'problems'):
                assert name in s, name
            print(s['keyring'], s['state'], s['primary'], s['files'], s['versions'], s['problems'])
            """
        let said = try mounted.workspace.done(
            ["python3", "-c", script], input: try text(mounted.control("status")))
        #expect(said.line == "trial unlocked 1 1 {'primary': 1} []")
        let list = """
            import json, sys
            for v in json.load(sys.stdin): print(v['version'], v['state'], v['files'], v['created'])
            """
        let listed = try mounted.workspace.done(
            ["python3", "-c", list], input: try text(mounted.control("keys/list")))
        #expect(listed.line.hasPrefix("1 primary 1 20"))
        #expect(listed.line.split(separator: " ").last == Substring(try mounted.answer("keys/1/created")))
    }

    @Test func echoRotates() throws {
        try put("old", mounted("a"))
        try mounted.workspace.shell("echo 1 >'\(mounted.control("keys/rotate"))'")
        #expect(try mounted.answer("keys/primary") == "2")
        #expect(try mounted.answer("keys/rotate") == "2")
        #expect(try mounted.answer("keys/1/state") == "enabled")
        #expect(try mounted.answer("keys/2/state") == "primary")
        try put("new", mounted("b"))
        #expect(try extendedAttributeText(mounted("a"), "user.letterlock.kek_version") == "1")
        #expect(try extendedAttributeText(mounted("b"), "user.letterlock.kek_version") == "2")
        #expect(try mounted.answer("keys/1/files") == "1")
        #expect(try mounted.answer("keys/2/files") == "1")
        #expect(try mounted.answer("keys/1/paths") == "/a\0")
        try mounted.remount()
        #expect(try mounted.answer("keys/primary") == "2")
        #expect(try text(mounted("a")) == "old")
        #expect(try text(mounted("b")) == "new")
    }

    @Test func ifLatestComparesAndSets() throws {
        try mounted.command("if-latest=1\n", "keys/rotate")
        #expect(try mounted.answer("keys/primary") == "2")
        expectErrno(ESTALE) { try mounted.command("if-latest=1\n", "keys/rotate") }
        expectErrno(ESTALE) { try mounted.command("if-latest=7", "keys/rotate") }
        #expect(try mounted.answer("keys/primary") == "2")
        try mounted.command("if-latest=2", "keys/rotate")
        #expect(try mounted.answer("keys/primary") == "3")
    }

    @Test func promotionMovesThePrimary() throws {
        try mounted.command("1", "keys/rotate")
        try mounted.command("1\n", "keys/primary")
        #expect(try mounted.answer("keys/primary") == "1")
        #expect(try mounted.answer("keys/2/state") == "enabled")
        expectErrno(ENOENT) { try mounted.command("3", "keys/primary") }
        try mounted.command("disable", "keys/2/state")
        expectErrno(EPERM) { try mounted.command("2", "keys/primary") }
        // The latest is 2 still, and what comes is 3.
        try mounted.command("1", "keys/rotate")
        #expect(try mounted.answer("keys/primary") == "3")
    }

    @Test(arguments: [
        ("keys/rotate", "2"), ("keys/rotate", ""), ("keys/rotate", "yes"), ("keys/rotate", "if-latest="),
        ("keys/rotate", "if-latest=x"), ("keys/rotate", "1\n1\n"),
        ("keys/primary", "one"), ("keys/primary", "-1"), ("keys/1/state", "off"), ("keys/1/state", "Disable"),
        ("keys/1/state", "disable now"), ("keys/rotate", " \n"),
    ])
    func badCommandsAreEINVAL(name: String, command: String) throws {
        guard !command.isEmpty else {
            // Nothing written is no command.
            try put("", mounted.control(name))
            #expect(try mounted.answer("keys/primary") == "1")
            return
        }
        expectErrno(EINVAL) { try mounted.command(command, name) }
        #expect(try mounted.answer("keys/primary") == "1")
        #expect(try mounted.answer("keys/1/state") == "primary")
    }

    @Test func commandsAreOneWriteAtTheStartOfAtMost4096Bytes() throws {
        let file = try OpenFile(mounted.control("keys/rotate"), O_WRONLY)
        expectErrno(EINVAL) { try file.write("1", at: 1) }
        expectErrno(E2BIG) { try file.write([UInt8](repeating: 0x31, count: 4097)) }
        expectErrno(EINVAL) { try file.write([UInt8](repeating: 0x31, count: 4096)) }
        try file.write("1", at: 0)
        #expect(try mounted.answer("keys/primary") == "2")
        try file.write("1", at: 0)
        #expect(try mounted.answer("keys/primary") == "3")
    }

    @Test func whatCannotBeIsRefused() throws {
        expectErrno(EBUSY) { try mounted.command("disable", "keys/1/state") }
        expectErrno(ENOENT) { try mounted.command("disable", "keys/2/state") }
        expectErrno(ENOENT) { _ = try mounted.answer("keys/0/state") }
        expectErrno(ENOENT) { _ = try mounted.answer("keys/01/state") }
        expectErrno(ENOENT) { _ = try mounted.answer("keys/x") }
        expectErrno(EPERM) { try mounted.command("enable", "keys/1/state") }
        try mounted.command("1", "keys/rotate")
        try mounted.command("disable", "keys/1/state")
        expectErrno(EPERM) { try mounted.command("disable", "keys/1/state") }
        expectErrno(EACCES) { try asUser(1777, 1888) { try mounted.command("1", "keys/rotate") } }
        #expect(try mounted.answer("keys/primary") == "2")
    }

    @Test func filesTellAboutThemselves() throws {
        try put("x", mounted("a"))
        let version = try extendedAttributeText(mounted("a"), "user.letterlock.kek_version")
        let created = try extendedAttributeText(mounted("a"), "user.letterlock.dek_created")
        let changed = try extendedAttributeText(mounted("a"), "user.letterlock.value_changed")
        #expect(version == "1")
        #expect(created.count >= 20 && created.hasPrefix("20") && created.contains("T"))
        #expect(changed.count >= 20 && changed.hasPrefix("20") && changed.contains("T"))
        #expect(try extendedAttributeText(mounted("a"), "user.letterlock.needs_regeneration") == "0")
        func refused(_ body: () throws(Errno) -> Void) -> Bool {
            do { try body() } catch { return [EPERM, EACCES, EOPNOTSUPP].contains(error.value) }
            return false
        }
        #expect(
            refused { () throws(Errno) in
                try setExtendedAttribute(mounted("a"), "user.letterlock.kek_version", "9")
            })
        #expect(
            refused { () throws(Errno) in try check(removexattr(mounted("a"), "user.letterlock.kek_version"))
            })
        // Told to the second.
        usleep(1_100_000)
        try put("y", mounted("a"))
        #expect(try extendedAttributeText(mounted("a"), "user.letterlock.value_changed") > changed)
    }

    @Test func rotationTouchesNoFile() throws {
        try put("x", mounted("a"))
        let before = try attributes(mounted("a"))
        try mounted.command("1", "keys/rotate")
        let after = try attributes(mounted("a"))
        #expect(
            after.modified == before.modified && after.changed == before.changed
                && after.st_ino == before.st_ino)
        try mounted.remount()
        let later = try attributes(mounted("a"))
        #expect(
            later.modified == before.modified && later.changed == before.changed
                && later.st_ino == before.st_ino)
    }

    @Test func rotationDisturbsNoReaderAndNoWriter() throws {
        try put("value 0", mounted("a"))
        let worker = try mounted.workspace.start([
            "bash", "-euc",
            """
            for i in $(seq 1 200); do
                echo "value $i" >'\(mounted("b"))'
                [[ $(<'\(mounted("b"))') == "value $i" ]]
                [[ $(<'\(mounted("a"))') == "value 0" ]]
            done
            """,
        ])
        var rotations = 0
        while !worker.hasEnded, rotations < 500 {
            try mounted.command("1", "keys/rotate")
            rotations += 1
        }
        let outcome = try worker.wait()
        #expect(outcome.status == 0, "\(outcome.complaint)")
        #expect(try mounted.answer("keys/primary") == "\(rotations + 1)")
        #expect(try text(mounted("b")) == "value 200\n")
    }

    @Test func pathsNameEveryFileOfAVersion() throws {
        try check(mkdir(mounted("d"), 0o755))
        for name in ["a", "d/b", "d/with\nnewline"] { try put("x", mounted(name)) }
        try check(link(mounted("a"), mounted("also-a")))
        try check(symlink("a", mounted("l")))
        try mounted.command("1", "keys/rotate")
        try put("y", mounted("new"))
        let paths = Set(try text(mounted.control("keys/1/paths")).split(separator: "\0").map(String.init))
        #expect(paths.isSuperset(of: ["/d/b", "/d/with\nnewline"]))
        #expect(paths.contains("/a") || paths.contains("/also-a"))
        #expect(!paths.contains("/new") && !paths.contains("/l") && !paths.contains("/d"))
        #expect(try mounted.answer("keys/1/files") == "3")
        #expect(try text(mounted.control("keys/2/paths")) == "/new\0")
    }
}
