import Glibc
import Testing

@Suite("Jobs that move files to newer keys", .enabled(if: !Mounted.isPlain))
struct JobTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    private func makeFiles(_ count: Int, byteCount: Int) throws {
        for number in 0..<count { try put(pattern(byteCount, seed: UInt64(number)), mounted("f\(number)")) }
    }

    private func expectContents(_ count: Int, byteCount: Int, at place: SourceLocation = #_sourceLocation) throws {
        for number in 0..<count {
            let seen = try contents(mounted("f\(number)"))
            #expect(seen == pattern(byteCount, seed: UInt64(number)), "f\(number)", sourceLocation: place)
        }
    }

    private func expectDone(_ job: String, at place: SourceLocation = #_sourceLocation) throws {
        let isDone = try eventually { try mounted.answer(job).hasPrefix("{\"state\":\"done\"") }
        let said = try mounted.answer(job)
        #expect(isDone, "\(said)", sourceLocation: place)
    }

    @Test(arguments: ["rewrap", "reencrypt"])
    func aJobMovesEveryFileAndTouchesNone(job: String) throws {
        #expect(try mounted.answer(job).contains("\"state\":\"idle\""))
        try makeFiles(20, byteCount: 10_000)
        try put("small", mounted("small"))
        try mounted.command("1", "keys/rotate")
        let open = try OpenFile(mounted("small"), O_RDONLY)
        let before = try names(mounted.path).map { try attributes(mounted($0)) }
        usleep(20_000)
        try mounted.command("start\n", job)
        try expectDone(job)
        #expect(try mounted.answer("keys/1/files") == "0")
        #expect(try mounted.answer("keys/2/files") == "21")
        #expect(try extendedAttributeText(mounted("f7"), "user.letterlock.kek_version") == "2")
        try expectContents(20, byteCount: 10_000)
        #expect(try open.text() == "small")
        try open.close()
        try mounted.remount()
        for (old, name) in zip(before, try names(mounted.path)) {
            let new = try attributes(mounted(name))
            #expect(new.modified == old.modified && new.changed == old.changed && new.st_ino == old.st_ino, "\(name)")
        }
        try expectContents(20, byteCount: 10_000)
        // Nothing needs version 1 any more.
        try mounted.command("disable", "keys/1/state")
        #expect(try text(mounted("small")) == "small")
    }

    @Test func jobsRefuseWhatTheyCannotDo() throws {
        for job in ["rewrap", "reencrypt"] {
            expectErrno(EINVAL) { try mounted.command("go", job) }
            expectErrno(EINVAL) { try mounted.command("start from=x", job) }
            expectErrno(ENOENT) { try mounted.command("start from=9", job) }
        }
        expectErrno(ENOENT) { try mounted.command("start path=/none", "reencrypt") }
        expectErrno(EINVAL) { try mounted.command("start path=/none", "rewrap") }
        expectErrno(EINVAL) { try mounted.command("1", "revoke") }
        expectErrno(EINVAL) { try mounted.command("reason", "revoke") }
        expectErrno(ENOENT) { try mounted.command("9 reason", "revoke") }
        expectErrno(ENOENT) { try mounted.command("99999999999 reason", "revoke") }
        expectErrno(ENOENT) { try mounted.command("99999999999", "keys/primary") }
        expectErrno(ESTALE) { try mounted.command("if-latest=99999999999", "keys/rotate") }
    }

    @Test func revocationReencryptsAndFlagsWhatItProtected() throws {
        try makeFiles(5, byteCount: 5000)
        try mounted.command("1 key was seen on a screen", "revoke")
        try expectDone("revoke")
        #expect(try mounted.answer("keys/1/state") == "compromised")
        #expect(try mounted.answer("keys/primary") == "2")
        #expect(try mounted.answer("keys/1/files") == "0")
        try expectContents(5, byteCount: 5000)
        #expect(try extendedAttributeText(mounted("f1"), "user.letterlock.needs_regeneration") == "1")
        try put("regenerated", mounted("f1"))
        #expect(try extendedAttributeText(mounted("f1"), "user.letterlock.needs_regeneration") == "0")
        #expect(try extendedAttributeText(mounted("f2"), "user.letterlock.needs_regeneration") == "1")
        try mounted.remount()
        #expect(try extendedAttributeText(mounted("f2"), "user.letterlock.needs_regeneration") == "1")
    }

    @Test func aKilledJobGoesOnByItselfAndLosesNothing() throws {
        try makeFiles(150, byteCount: 9000)
        try mounted.command("1", "keys/rotate")
        for _ in 0..<3 {
            let state = try mounted.answer("reencrypt")
            if state.contains("\"state\":\"idle\"") { try mounted.command("start", "reencrypt") }
            usleep(20_000)
            mounted.killServer()
            let verified = try mounted.workspace.letterlock(
                "verify", mounted.store, "--key-service", mounted.workspace.keyService)
            #expect(verified.status == 0, "\(verified.complaint)\(verified.text)")
            try mounted.mount()
        }
        try expectDone("reencrypt")
        try expectContents(150, byteCount: 9000)
        #expect(try mounted.answer("keys/1/files") == "0")
    }

    @Test(arguments: ["rewrap", "reencrypt"])
    func aDamagedFileIsCountedNamedAndPassed(job: String) throws {
        for name in ["a", "b", "c"] {
            try check(mkdir(mounted(name), 0o755))
            try put("value of \(name)", mounted(name + "/secret"))
        }
        try mounted.unmount()
        let edit = StoreEdit(work: mounted.workspace)
        let (key, value) = try #require(edit.records(.envelope).sorted { $0.key < $1.key }.first)
        try edit.set(key, StoreEdit.flipped(value, at: 20))
        try mounted.mount()
        try mounted.command("1", "keys/rotate")
        let outcome = try mounted.workspace.letterlock(job, mounted.path, "--wait")
        #expect(outcome.status == 1 && outcome.complaint.contains("2 files done, 1 failed"), "\(outcome.complaint)")
        #expect(try mounted.answer(job).hasPrefix("{\"state\":\"done\",\"done\":2,\"total\":3,\"failed\":1,"))
        let status = try mounted.workspace.letterlock("status", mounted.path).text
        #expect(status.contains("\n  /a/secret: the envelope of content 1 is not the one last written\n"), "\(status)")
        let failures = "\"failures\":[{\"path\":\"/a/secret\","
        #expect(try mounted.answer(job).contains(failures))
        // Another server knows it too, until there is another value.
        try mounted.remount()
        #expect(try mounted.answer(job).contains(failures))
        for name in ["b", "c"] { #expect(try text(mounted(name + "/secret")) == "value of \(name)") }
        expectErrno(EBADMSG) { _ = try contents(mounted("a/secret")) }
    }

    @Test func readersAndWritersGoOnWhileAJobRuns() throws {
        try makeFiles(60, byteCount: 9000)
        try mounted.command("1", "keys/rotate")
        let worker = try mounted.workspace.start([
            "bash", "-euc",
            """
            cd '\(mounted.path)'
            for i in $(seq 1 60); do
                echo "value $i" >value; [[ $(<value) == "value $i" ]]
                cp f$((i - 1)) copy; cmp copy f$((i - 1)); mv copy f$((i - 1))
            done
            """,
        ])
        try mounted.command("start", "reencrypt")
        try expectDone("reencrypt")
        let outcome = try worker.wait()
        #expect(outcome.status == 0, "\(outcome.complaint)")
        try expectContents(60, byteCount: 9000)
        try mounted.remount()
        try expectContents(60, byteCount: 9000)
    }
}
