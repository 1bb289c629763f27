import Glibc
import Testing

/// Who may do what beyond modes: real processes on a real mount.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class PolicyTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }

    init() throws {
        mounted = try Mounted()
        try check(chmod(mounted.path, 0o755))
        try check(mkdir(mounted("web"), 0o755))
        try put("secret", mounted("web/key"))
        try put("free", mounted("other"))
        // A program of another name, where others can run it.
        try work.done(["install", "-m", "755", "/usr/bin/cat", work("reader")])
    }

    private func rule(
        _ name: String = "web", _ effect: String = "allow", _ operations: String = "[\"read\"]",
        paths: String = "[\"/web/**\"]", more: String = ""
    ) -> String {
        """
        [[rule]]
        name = "\(name)"
        effect = "\(effect)"
        paths = \(paths)
        operations = \(operations)
        \(more)

        """
    }

    /// Nil if it could be read, else what the program complained of.
    private func complaint(_ program: String, _ name: String = "web/key", uid: Int = 0) throws -> String? {
        let outcome = try work.run([
            "setpriv", "--reuid", "\(uid)", "--regid", "\(uid)", "--clear-groups", program, mounted(name),
        ])
        return outcome.status == 0 ? nil : outcome.complaint
    }

    private func set(_ policy: String) throws(Errno) { try mounted.command(policy, "policy") }

    private func killServer() throws {
        let old = try mounted.process("server")
        kill(old, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    // MARK: The document

    @Test func aPolicyIsReplacedWholeOrNotAtAll() throws {
        #expect(try mounted.answer("policy") == "default = \"modes\"")
        let first = rule(more: "uids = [0]")
        try set(first)
        #expect(try text(mounted.control("policy")) == first)
        for broken in [first + "[[rule]]\n", "default = \"nothing\"", "x", first + first] {
            expectErrno(EINVAL) { try set(broken) }
            #expect(try text(mounted.control("policy")) == first)
        }
        expectErrno(E2BIG) { try set(first + String(repeating: "#", count: 4096)) }
        try work.shell("printf 'default = \"modes\"\\n' >'\(mounted.control("policy"))'")
        #expect(try mounted.answer("policy") == "default = \"modes\"")
        try set(first)
        try mounted.remount()
        #expect(try text(mounted.control("policy")) == first)
    }

    @Test func longPoliciesGoThroughTheProgram() throws {
        let long = (0..<200).map { rule("rule \($0)", paths: "[\"/web/\($0)/\u{e4}/**\"]") }.joined()
        #expect(long.utf8.count > 4 * 4096)
        try put(long + rule("last", more: "uids = [1777]"), work("policy.toml"))
        let set = try work.letterlock("policy", "set", mounted.path, work("policy.toml"))
        #expect(set.status == 0, "\(set.complaint)")
        #expect(try contents(mounted.control("policy")) == contents(work("policy.toml")))
        #expect(try complaint("cat", uid: 1777) == nil)
        #expect(try complaint("cat") != nil)
        #expect(!(try names(mounted.path + "/.letterlock").contains("policy.parts")))
        expectErrno(ESTALE) { try mounted.command("abcdefgh 2 2\nx", "policy.parts") }
        expectErrno(EINVAL) { try mounted.command("abcdefgh 1 1\nx", "policy.parts") }
        try killServer()
        #expect(try contents(mounted.control("policy")) == contents(work("policy.toml")))
    }

    @Test func theProgramChecksAndExplains() throws {
        try put("default = \"modes\"\n[[rule]]\nname = \"x\"\neffect = \"allow\"\npats = [\"/a\"]\n", work("bad.toml"))
        for words in [["policy", "check", work("bad.toml")], ["policy", "set", mounted.path, work("bad.toml")]] {
            let outcome = try work.run([try Workspace.program()] + words)
            #expect(outcome.status == 1)
            #expect(outcome.complaint.contains("bad.toml:5: 'pats' is not known in a rule"), "\(outcome.complaint)")
            #expect(outcome.complaint.contains("bad.toml:2: a rule has no paths"))
        }
        try put(rule(more: "exes = [\"\(work("reader"))\"]\nuids = [1777]"), work("good.toml"))
        let checked = try work.letterlock("policy", "check", work("good.toml"))
        #expect(checked.status == 0 && checked.text.contains(": 1 rule,"), "\(checked.complaint)")
        try work.done([try Workspace.program(), "policy", "set", mounted.path, work("good.toml")])
        let shown = try work.letterlock("policy", "show", mounted.path)
        #expect(shown.line == (try mounted.answer("policy")).trimmed)
        let test = ["policy", "test", mounted.path, "--path", "/web/key", "--uid", "1777", "--exe"]
        let yes = try work.run([try Workspace.program()] + test + [work("reader"), "--expect", "allow"])
        #expect(yes.status == 0 && yes.text.hasPrefix("allow read /web/key: web"), "\(yes.text)\(yes.complaint)")
        let no = try work.run([try Workspace.program()] + test + ["/usr/bin/cat", "--expect", "allow"])
        #expect(no.status == 1 && no.text.contains("does not match: exes"), "\(no.text)")
    }

    // MARK: Deciding

    @Test func programsUsersAndOperationsAreTold() throws {
        try set(rule(more: "exes = [\"\(work("reader"))\"]") + rule("no", "deny", more: "uids = [1778]"))
        #expect(try complaint(work("reader")) == nil)
        #expect(try complaint("cat")?.contains("Permission denied") == true)
        #expect(try complaint("cat", "other", uid: 1778) == nil)
        #expect(try complaint(work("reader"), uid: 1777) == nil)
        #expect(try complaint(work("reader"), uid: 1778)?.contains("Permission denied") == true)
        // Listing and writing are not named.
        #expect(try names(mounted("web")) == ["key"])
        try put("changed", mounted("web/key"))
        #expect(try complaint(work("reader")) == nil)
    }

    @Test func whoMayListNeedNotRead() throws {
        try set(
            rule("read", more: "uids = [1777]")
                + rule("list", "allow", "[\"list\"]", more: "uids = [1777, 1778]")
                + rule("write", "allow", "[\"write\"]", more: "uids = [0]"))
        func list(_ uid: Int) throws -> Int32 {
            try work.run(["setpriv", "--reuid", "\(uid)", "--clear-groups", "ls", mounted("web")]).status
        }
        #expect(try list(1777) == 0 && list(1778) == 0 && list(1779) != 0)
        #expect(try complaint("cat", uid: 1777) == nil)
        #expect(try complaint("cat", uid: 1778) != nil)
        expectErrno(EACCES) { _ = try contents(mounted("web/key")) }
        try put("new", mounted("web/key"))
        try put("more", mounted("web/second"))
        expectErrno(EACCES) { _ = try OpenFile(mounted("web/key"), O_RDWR) }
        expectErrno(EACCES) { _ = try rawNames(mounted("web")) }
    }

    @Test func whatMayNotBeWrittenIsNeitherMadeNorRemovedNorMoved() throws {
        try set(rule("write", "allow", "[\"write\"]", more: "uids = [1777]") + rule("read", more: "uids = [1777]"))
        expectErrno(EACCES) { try put("x", mounted("web/new")) }
        expectErrno(EACCES) { try put("x", mounted("web/key"), flags: O_WRONLY | O_APPEND) }
        expectErrno(EACCES, mkdir(mounted("web/d"), 0o755))
        expectErrno(EACCES, unlink(mounted("web/key")))
        expectErrno(EACCES, truncate(mounted("web/key"), 0))
        expectErrno(EACCES, chmod(mounted("web/key"), 0o600))
        expectErrno(EACCES, symlink("x", mounted("web/s")))
        expectErrno(EACCES, rename(mounted("other"), mounted("web/key")))
        expectErrno(EACCES, rename(mounted("web/key"), mounted("stolen")))
        expectErrno(EACCES, rename(mounted("web"), mounted("moved")))
        expectErrno(EACCES, link(mounted("web/key"), mounted("linked")))
        #expect(try names(mounted.path) == ["other", "web"])
        #expect(try names(mounted("web")) == ["key"])
    }

    @Test func nobodyMovesOrLinksWhatHeMayNotRead() throws {
        try set(rule("read", more: "uids = [1777]"))
        for (from, to) in [("web/key", "stolen"), ("web", "moved")] {
            expectErrno(EACCES, rename(mounted(from), mounted(to)))
        }
        expectErrno(EACCES, link(mounted("web/key"), mounted("linked")))
        // Two paths: both have to be open to the reader.
        try set("default = \"modes\"")
        expectDone(link(mounted("web/key"), mounted("linked")))
        try set(rule("read", more: "uids = [1777]"))
        expectErrno(EACCES) { _ = try contents(mounted("linked")) }
        #expect(try complaint("cat", "linked", uid: 1777) == nil)
    }

    @Test func defaultDenyShutsEverythingElseAndTheStoreIsTheWayBack() throws {
        try set("default = \"deny\"\n" + rule("all", "allow", "[\"read\", \"list\"]"))
        #expect(try text(mounted("web/key")) == "secret")
        expectErrno(EACCES) { _ = try contents(mounted("other")) }
        expectErrno(EACCES) { try mounted.command("1", "keys/rotate") }
        expectErrno(EACCES) { try set("default = \"modes\"") }
        expectErrno(EACCES) { try mounted.command("1", "lock") }
        try put("default = \"modes\"\n", work("open.toml"))
        try mounted.unmount()
        let outcome = try work.letterlock(
            "policy", "set", mounted.store, work("open.toml"), "--key-service", work.keyService)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        try mounted.mount()
        #expect(try text(mounted("other")) == "free")
        try mounted.command("1", "keys/rotate")
    }

    @Test func controlIsDecidedAtEachWrite() throws {
        let rotate = try OpenFile(mounted.control("keys/rotate"), O_WRONLY)
        try set(
            rule("rotate", "allow", "[\"control\"]", paths: "[\"/.letterlock/keys/**\"]", more: "uids = [1777]"))
        expectErrno(EACCES) { try rotate.write("1", at: 0) }
        try set("default = \"modes\"")
        try rotate.write("1", at: 0)
        #expect(try mounted.answer("keys/primary") == "2")
    }

    @Test func unitsAreToldByARealControlGroup() throws {
        let group = try ControlGroup("letterlock-\(getpid()).slice/web@1.service")
        try set(rule(more: "units = [\"web@*.service\"]"))
        let inside = try work.run(["bash", "-c", group.script("cat '\(mounted("web/key"))'")])
        #expect(inside.status == 0 && inside.text == "secret", "\(inside.complaint)")
        #expect(try complaint("cat") != nil)
        try set(rule(more: "cgroups = [\"/letterlock-*.slice/**\"]"))
        #expect(try work.run(["bash", "-c", group.script("cat '\(mounted("web/key"))'")]).status == 0)
        #expect(try complaint("cat") != nil)
    }

    @Test func programsAreToldByTheirHash() throws {
        let hash = try work.done(["sha256sum", work("reader")]).text.prefix(64)
        try set(rule(more: "exe_sha256 = [\"\(hash)\"]"))
        #expect(try complaint(work("reader")) == nil)
        // The same program of another name has the same hash; a changed one has not.
        #expect(try complaint("/usr/bin/cat") == nil)
        try work.shell("cp '\(work("reader"))' '\(work("changed"))' && printf x >>'\(work("changed"))'")
        #expect(try complaint(work("changed")) != nil)
        // A program that lies on the mount is not read by the server that serves it.
        try work.shell("install -m 755 /usr/bin/cat '\(mounted("cat"))'")
        #expect(try complaint(mounted("cat")) != nil)
    }

    @Test func openingsAreBudgeted() throws {
        try set(rule(more: "opens_per_process = 2"))
        _ = try contents(mounted("web/key"))
        _ = try contents(mounted("web/key"))
        expectErrno(EACCES) { _ = try contents(mounted("web/key")) }
        #expect(try complaint("cat") == nil)
    }

    // MARK: Open descriptors

    @Test(arguments: ["kernel", "none"])
    func openDescriptorsAreJudgedByTheNewPolicy(cache: String) throws {
        try mounted.remount("cache=" + cache)
        let file = try OpenFile(mounted("web/key"), O_RDONLY)
        let writer = try OpenFile(mounted("web/key"), O_RDWR)
        #expect(try file.text() == "secret")
        try set(rule("read", "allow", "[\"read\", \"write\"]", more: "uids = [1777]"))
        expectErrno(EACCES) { _ = try file.text() }
        expectErrno(EACCES) { _ = try writer.text() }
        expectErrno(EACCES) { try writer.write("x", at: 0) }
        expectErrno(EACCES, ftruncate(writer.descriptor, 0))
        // Pages that somebody else fetches are not for the old descriptor.
        #expect(try complaint("cat", uid: 1777) == nil)
        expectErrno(EACCES) { _ = try file.text() }
        try set(rule("read", "allow", "[\"read\", \"write\"]", more: "uids = [0]"))
        #expect(try file.text() == "secret")
        try writer.write("S", at: 0)
        #expect(try file.text() == "Secret")
        // And so does a successor.
        try set(rule("read", "allow", "[\"read\", \"write\"]", more: "uids = [1777]"))
        try killServer()
        expectErrno(EACCES) { _ = try file.text() }
        expectErrno(EACCES) { try writer.write("x", at: 0) }
        #expect(try complaint("cat", uid: 1777) == nil)
        expectErrno(EACCES) { _ = try file.text() }
    }

    @Test func aListingThatWasCachedIsNotForEverybody() throws {
        let directory = try #require(opendir(mounted("web")))
        defer { closedir(directory) }
        while readdir(directory) != nil {}
        #expect(try names(mounted("web")) == ["key"])
        try set(rule("list", "allow", "[\"list\"]", more: "uids = [1777]"))
        rewinddir(directory)
        errno = 0
        #expect(readdir(directory) == nil && errno == EACCES)
        expectErrno(EACCES) { _ = try rawNames(mounted("web")) }
    }

    // MARK: Trust

    @Test func aPolicyThatWasTamperedWithAllowsNothing() throws {
        try set(rule(more: "uids = [0]"))
        try mounted.unmount()
        let edit = StoreEdit(work: work)
        let record = try #require(try edit.records().first { $0.key.hasPrefix("100000000000000001") })
        for change in ["flip", "delete"] {
            if change == "flip" {
                try edit.set(record.key, StoreEdit.flipped(record.value, at: 60))
            } else {
                try edit.delete(record.key)
            }
            #expect(try work.letterlock("verify", mounted.store, "--key-service", work.keyService).status == 5)
            try mounted.mount()
            #expect(try mounted.answer("status").contains("the policy document"))
            expectErrno(EACCES) { _ = try contents(mounted("other")) }
            expectErrno(EACCES) { try set("default = \"modes\"") }
            try mounted.unmount()
        }
        try put("default = \"modes\"\n", work("open.toml"))
        try work.done([
            try Workspace.program(), "policy", "set", mounted.store, work("open.toml"), "--key-service",
            work.keyService,
        ])
        try mounted.mount()
        #expect(try text(mounted("other")) == "free")
        #expect(try mounted.answer("policy") == "default = \"modes\"")
    }
}

extension String {
    /// Without newlines at its end.
    var trimmed: String {
        var text = self
        while text.last == "\n" { text.removeLast() }
        return text
    }
}
