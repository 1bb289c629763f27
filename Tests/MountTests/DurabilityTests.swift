import Glibc
import Testing

@Suite("What was acknowledged survives", .enabled(if: !Mounted.isPlain))
struct DurabilityTests {
    let mounted: Mounted
    var work: Workspace { mounted.workspace }

    init() throws { mounted = try Mounted() }

    private func expectClean(at place: SourceLocation = #_sourceLocation) throws {
        let outcome = try work.letterlock("verify", mounted.store, "--key-service", work.keyService)
        #expect(outcome.status == 0, "\(outcome.complaint)\(outcome.text)", sourceLocation: place)
    }

    @Test func everyKindOfChangeSurvivesAKill() throws {
        for name in ["gone", "from", "over", "cut"] { try put("contents of \(name)", mounted(name)) }
        try put(pattern(100_000), mounted("big"))
        try check(mkdir(mounted("d"), 0o750))
        try check(rename(mounted("from"), mounted("d/to")))
        try check(unlink(mounted("gone")))
        try check(symlink("target", mounted("l")))
        try check(link(mounted("over"), mounted("linked")))
        try check(truncate(mounted("cut"), 8))
        try check(chmod(mounted("over"), 0o604))
        try setExtendedAttribute(mounted("over"), "user.a", "b")
        try mounted.command("1", "keys/rotate")
        try put("replaced", mounted("over"))
        let open = try OpenFile(mounted("big"), O_WRONLY)
        try open.write("changed", at: 50_000)
        mounted.killServer()
        expectErrno(ENOTCONN, fsync(open.descriptor))
        try? open.close()
        try expectClean()
        try mounted.mount()
        #expect(try names(mounted.path) == ["big", "cut", "d", "l", "linked", "over"])
        #expect(try text(mounted("d/to")) == "contents of from")
        #expect(try linkTarget(mounted("l")) == "target")
        #expect(try text(mounted("cut")) == "contents")
        #expect(try text(mounted("linked")) == "replaced")
        let kept = try attributes(mounted("over"))
        #expect(kept.permissions == 0o604 && kept.st_nlink == 2)
        #expect(try extendedAttributeText(mounted("over"), "user.a") == "b")
        #expect(try mounted.answer("keys/primary") == "2")
        var big = pattern(100_000)
        big.replaceSubrange(50_000..<50_007, with: Array("changed".utf8))
        #expect(try contents(mounted("big")) == big)
    }

    /// Writes values until it is stopped, and tells on the disk beside which ones close(2) returned for.
    private func writer(_ name: String) throws -> Child {
        let script = """
            import os
            # Once the mount is taken away, its path is that of a plain directory: go by the working directory.
            os.chdir('\(mounted.path)')
            log = os.open('\(work("log-" + name))', os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            n = 0
            try:
                while True:
                    n += 1
                    with open('\(name)-%d' % (n % 7), 'w') as f:
                        f.write(('%08d' % n) * (1 + n * 37 % 2000))
                    os.write(log, b'%d\\n' % n)
                    if n % 5 == 0:
                        os.rename('\(name)-%d' % (n % 7), '\(name)-moved')
                        os.write(log, b'moved %d\\n' % n)
            except OSError:
                pass
            """
        return try work.start(["python3", "-c", script])
    }

    private func expectAcknowledged(_ name: String, at place: SourceLocation = #_sourceLocation) throws {
        let log = try text(work("log-" + name)).split(separator: "\n")
        // The newest acknowledged value of each name; the one after it was in flight and may be there or not.
        var newest: [String: Int] = [:]
        var last = 0
        for line in log {
            if line.hasPrefix("moved") {
                newest["moved"] = last
                newest["\(last % 7)"] = nil
            } else {
                last = try #require(Int(line))
                newest["\(last % 7)"] = last
            }
        }
        func value(_ number: Int) -> String {
            let digits = String(number)
            let word = String(repeating: "0", count: 8 - digits.count) + digits
            return String(repeating: word, count: 1 + number * 37 % 2000)
        }
        let moving = log.last?.hasPrefix("moved") == false && last % 5 == 0
        for (suffix, number) in newest {
            let seen = try? text(mounted("\(name)-\(suffix)"))
            var allowed = [value(number)]
            if suffix == "\((last + 1) % 7)" { allowed.append(value(last + 1)) }
            if moving, suffix == "\(last % 7)", seen == nil { continue }
            if suffix == "moved", moving { allowed.append(value(last)) }
            if suffix == "moved", (last + 1) % 5 == 0 { allowed.append(value(last + 1)) }
            #expect(
                seen.map { allowed.contains($0) } == true, "\(name)-\(suffix): not \(number) of \(last)",
                sourceLocation: place)
        }
    }

    @Test func valuesSurviveAKillUnderLoad() throws {
        for round in 1...3 {
            let writers = try ["one-\(round)", "two-\(round)"].map { (name: $0, child: try writer($0)) }
            #expect(
                eventually { writers.allSatisfy { ((try? text(work("log-" + $0.name)))?.count ?? 0) > 400 * round } })
            mounted.killServer()
            for writer in writers { #expect(try writer.child.wait().status == 0) }
            try expectClean()
            try mounted.mount()
            for writer in writers { try expectAcknowledged(writer.name) }
        }
        for name in try names(mounted.path) { expectDone(unlink(mounted(name))) }
        try mounted.unmount()
        try expectClean()
    }

    @Test func aKilledServerLeavesOldOrNewOfAValueThatIsBeingReplaced() throws {
        try put("the old value", mounted("secret"))
        let writer = try OpenFile(mounted("secret"), O_WRONLY | O_TRUNC)
        try writer.write("half of the ne")
        mounted.killServer()
        try? writer.close()
        try mounted.mount()
        #expect(try text(mounted("secret")) == "the old value")
        try mounted.unmount()
        try expectClean()
    }

    @Test func anUnlinkedOpenFileIsGoneAfterAKill() throws {
        try put(pattern(200_000), mounted("f"))
        let file = try OpenFile(mounted("f"), O_RDWR)
        try check(unlink(mounted("f")))
        mounted.killServer()
        try? file.close()
        try mounted.mount()
        #expect(try names(mounted.path) == [])
        try mounted.unmount()
        try expectClean()
    }

    @Test func umountLosesNothing() throws {
        for number in 0..<200 { try put("value \(number)", mounted("f\(number)")) }
        try mounted.remount()
        for number in 0..<200 { #expect(try text(mounted("f\(number)")) == "value \(number)") }
    }

    @Test func aGuardianThatIsGoneWithItsServerIsUnmountedAndMountedAgain() throws {
        try put("x", mounted("f"))
        // Stopped first, so that neither can act on the other's death.
        for process in [mounted.server, mounted.guardian] { kill(process, SIGSTOP) }
        for process in [mounted.guardian, mounted.server] { kill(process, SIGKILL) }
        #expect(eventually { kill(mounted.server, 0) != 0 && kill(mounted.guardian, 0) != 0 })
        expectErrno(ENOTCONN) { _ = try attributes(mounted("f")) }
        let status = try work.letterlock("status", mounted.path)
        #expect(status.status == 4, "\(status.complaint)")
        let outcome = try work.letterlock("umount", mounted.path)
        #expect(outcome.status == 0, "\(outcome.complaint)")
        try mounted.mount()
        #expect(try text(mounted("f")) == "x")
    }
}
