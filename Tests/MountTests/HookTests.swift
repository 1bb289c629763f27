import CLinux
import Glibc
import Testing

/// Commands that are run, and units that are signalled, after values have changed.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class HookTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }
    /// What the hook's command says, a line a run.
    private var marker: String { work("marker") }

    init() throws {
        mounted = try Mounted()
        try check(mkdir(mounted("web"), 0o755))
        try put("one", mounted("web/key"))
    }

    private func script(_ body: String) throws -> String {
        let path = work("hook.sh")
        try put("#!/bin/bash\n\(body)\n", path, mode: 0o700)
        try check(chmod(path, 0o700))
        return path
    }

    private func hook(_ program: String, _ more: String = "debounce = \"200ms\"", name: String = "web") -> String {
        "[[hook]]\nname = \"\(name)\"\npaths = [\"/web/**\"]\ncommand = [\"\(program)\"]\n\(more)\n"
    }

    private func set(_ text: String) throws {
        try put(text, work("hooks.toml"))
        try work.done([try Workspace.program(), "hooks", "set", mounted.path, work("hooks.toml")])
    }

    /// A hook that says what it reads, and of which paths it was told.
    private func setReader(_ more: String = "debounce = \"200ms\"") throws {
        try set(
            hook(
                try script("echo \"$(cat '\(mounted("web/key"))') $(tr '\\0' ' ')\" >>'\(marker)'"), more))
    }

    private var runs: [String] { ((try? text(marker)) ?? "").split(separator: "\n").map(String.init) }
    private func become(_ wanted: [String]) -> Bool { eventually { self.runs == wanted } }

    /// The events so far.
    private var told: String {
        get throws {
            let file = try OpenFile(mounted.control("events"), O_RDONLY | O_NONBLOCK)
            var bytes = [UInt8](repeating: 0, count: 1 << 16)
            return String(decoding: bytes[..<(try check(read(file.descriptor, &bytes, bytes.count)))], as: UTF8.self)
        }
    }

    private func status(_ part: String) -> Bool {
        eventually { (try? self.mounted.answer("status"))?.contains(part) == true }
    }

    private func killServer() throws {
        let old = try mounted.process("server")
        kill(old, SIGKILL)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    @Test func aCommandReadsWhatHasChanged() throws {
        try setReader()
        #expect(runs.isEmpty)
        // As a shell, an editor, and one who writes in place change a value.
        try put("two", mounted("web/key"))
        #expect(become(["two /web/key "]))
        try put("three", mounted("web/new"))
        try check(rename(mounted("web/new"), mounted("web/key")))
        #expect(
            eventually { self.runs.last?.hasPrefix("three ") == true && self.runs.last?.contains("/web/key") == true })
        let file = try OpenFile(mounted("web/key"), O_RDWR)
        try file.write("T", at: 0)
        usleep(500_000)
        let before = runs.count
        // Not before the writer has closed.
        #expect(runs.last?.hasPrefix("Three") == false)
        try file.close()
        #expect(eventually { self.runs.count == before + 1 && self.runs.last == "Three /web/key " })
        #expect(try told.contains("\"event\":\"hook_done\",\"hook\":\"web\",\"outcome\":\"ended with exit code 0\""))
        #expect(try mounted.answer("metrics").contains("letterlock_hook_runs_total{hook=\"web\",result=\"ok\"}"))
        // What is elsewhere, and what keys go through, is none of its business.
        let count = runs.count
        try put("x", mounted("other"))
        try mounted.command("1", "keys/rotate")
        try work.done([try Workspace.program(), "rewrap", mounted.path, "--wait"])
        try work.done([try Workspace.program(), "reencrypt", mounted.path, "--wait"])
        usleep(800_000)
        #expect(runs.count == count)
    }

    @Test func manyChangesAreOneRun() throws {
        try setReader("debounce = \"1s\"")
        for number in 0..<20 {
            try put("value \(number)", mounted("web/key"))
            usleep(20_000)
        }
        #expect(become(["value 19 /web/key "]))
        usleep(1_500_000)
        #expect(runs.count == 1)
    }

    @Test func fsyncIsNotTheEndOfWriting() throws {
        try setReader()
        let file = try OpenFile(mounted("web/key"), O_WRONLY | O_TRUNC)
        try file.write("half")
        try check(fsync(file.descriptor))
        usleep(700_000)
        #expect(runs.isEmpty)
        try file.write(" and whole")
        try file.close()
        #expect(become(["half and whole /web/key "]))
    }

    @Test func nothingIsLostWithAServer() throws {
        try setReader("debounce = \"1s\"")
        // It waits when the server dies.
        try put("first", mounted("web/key"))
        try killServer()
        #expect(become(["first /web/key "]))
        // It runs when the server dies, and is not run again.
        try set(
            hook(try script("cat >/dev/null; echo begin >>'\(marker)'; sleep 2; echo end >>'\(marker)'")))
        unlink(marker)
        try put("second", mounted("web/key"))
        #expect(become(["begin"]))
        try killServer()
        #expect(status("\"state\":\"running\""))
        #expect(become(["begin", "end"]))
        #expect(status("\"state\":\"idle\""))
        #expect(runs == ["begin", "end"])
    }

    @Test func hooksAreSealedWithTheKeyring() throws {
        try setReader()
        let document = try mounted.answer("hooks")
        try mounted.remount()
        #expect(try mounted.answer("hooks") == document)
        expectErrno(EINVAL) { try mounted.command("[[hook]]\nname = \"x\"", "hooks") }
        #expect(try mounted.answer("hooks") == document)
        try mounted.command("1", "lock")
        try work.done([try Workspace.program(), "unlock", mounted.path])
        try put("after", mounted("web/key"))
        #expect(become(["after /web/key "]))
        // A longer one than a command.
        let long = (0..<60).map { hook("/bin/true", "debounce = \"1h\"", name: "hook \($0)") }.joined()
        #expect(long.utf8.count > 4096)
        try set(long)
        #expect(try mounted.answer("hooks") + "\n" == long)
        try mounted.remount("hooks=off")
        try set(hook(try script("echo ran >>'\(marker)'")))
        try put("unheard", mounted("web/key"))
        usleep(800_000)
        #expect(runs.count == 1)
    }

    @Test func aCommandThatTakesTooLongIsEndedWithAllItStarted() throws {
        let pids = work("pids")
        try set(
            hook(
                try script("trap '' TERM; sleep 600 & echo $! $$ >'\(pids)'; sleep 600"),
                "debounce = \"0s\"\ntimeout = \"1s\""))
        try put("two", mounted("web/key"))
        #expect(status("\"last\":\"took too long\""))
        let processes = try text(pids).split(whereSeparator: \.isWhitespace).compactMap { pid_t($0) }
        #expect(processes.count == 2)
        for process in processes { #expect(eventually { kill(process, 0) != 0 }) }
        #expect(try told.contains("\"event\":\"hook_failed\",\"hook\":\"web\""))
    }

    @Test func aCommandInheritsNothing() throws {
        let said = work("said/marker")
        var runs: [String] { ((try? text(said)) ?? "").split(separator: "\n").map(String.init) }
        try set(
            hook(
                try script(
                    "{ id -un; env | cut -d= -f1 | sort | tr '\\n' ' '; echo; for f in /proc/self/fd/*; do "
                        + "readlink $f; done | grep -c 'letterlock\\|fuse\\|memfd\\|socket'; pwd; } >'\(said).new'; "
                        + "mv '\(said).new' '\(said)'"),
                "debounce = \"0s\"\nuser = \"nobody\""))
        try check(chmod(work.path, 0o755))
        try check(chmod(work("hook.sh"), 0o755))
        try check(mkdir(work("said"), 0o777))
        try check(chmod(work("said"), 0o777))
        try put("two", mounted("web/key"))
        #expect(eventually { runs.count == 4 }, "\(runs)")
        #expect(runs.first == "nobody" && runs.suffix(2) == ["0", "/"], "\(runs)")
        let names = runs.count > 1 ? runs[1].split(separator: " ") : []
        let allowed: Set<Substring> = [
            "HOME", "LANG", "LETTERLOCK_HOOK", "LETTERLOCK_KEYRING", "LETTERLOCK_MOUNTPOINT", "LOGNAME", "PATH", "PWD",
            "SHLVL", "USER", "_", "OLDPWD",
        ]
        #expect(Set(names).isSubset(of: allowed), "\(names)")
    }

    @Test func aProgramThatOthersMayChangeIsNotRun() throws {
        try set(hook(try script("echo ran >'\(marker)'"), "debounce = \"0s\""))
        try check(chmod(work("hook.sh"), 0o777))
        try put("two", mounted("web/key"))
        #expect(status("could not be started"))
        #expect(runs.isEmpty)
    }

    /// Who may write a directory on the way puts another program in the place of this one.
    @Test(arguments: ["writable", "owned", "link", "sticky", "fine"])
    func aProgramIsAsSafeAsTheWayToIt(_ way: String) throws {
        try check(mkdir(work("bin"), 0o755))
        try check(mkdir(work("bin/below"), 0o755))
        try check(rename(try script("echo ran >>'\(marker)'"), work("bin/below/hook.sh")))
        var program = work("bin/below/hook.sh")
        switch way {
        case "writable": try check(chmod(work("bin"), 0o775))
        case "owned": try check(chown(work("bin"), 65534, 0))
        case "link":
            // The link lies well, what it leads to does not.
            try check(symlink("bin/below", work("link")))
            try check(chmod(work("bin"), 0o777))
            program = work("link/hook.sh")
        case "sticky": try check(chmod(work("bin"), 0o1777))
        default:
            try check(symlink("./bin/../bin/below/hook.sh", work("link")))
            program = work("link")
        }
        try set(hook(program, "debounce = \"0s\""))
        try put("two", mounted("web/key"))
        if ["sticky", "fine"].contains(way) {
            #expect(become(["ran"]))
        } else {
            #expect(status("could not be started: Operation not permitted"))
            #expect(runs.isEmpty)
        }
    }

    @Test func aCommandEndsWithItsRunnerAndIsBegunAgain() throws {
        try set(
            hook(
                try script("sleep 600 & echo $$ $! >>'\(marker)'; wait"), "debounce = \"0s\"\ntimeout = \"1h\""))
        try put("two", mounted("web/key"))
        #expect(eventually { self.runs.count == 1 })
        let first = runs[0].split(separator: " ").compactMap { pid_t($0) }
        try #require(first.count == 2)
        let parent = try text("/proc/\(first[0])/status").split(separator: "\n").first { $0.hasPrefix("PPid:") }
        let runner = try #require(parent?.split(separator: "\t").last.flatMap { pid_t($0) })
        try #require(try text("/proc/\(runner)/cmdline").contains("run-hook"))
        kill(runner, SIGKILL)
        // With all that it has started, before another one begins.
        #expect(eventually { self.runs.count == 2 })
        for process in first { #expect(kill(process, 0) != 0 || isZombie(process)) }
        let second = runs[1].split(separator: " ").compactMap { pid_t($0) }
        for process in second { #expect(kill(process, 0) == 0) }
        kill(-second[0], SIGKILL)
        #expect(status("was killed by signal 9"))
    }

    private func isZombie(_ process: pid_t) -> Bool {
        (try? text("/proc/\(process)/stat"))?.contains(") Z ") == true
    }

    /// They would run with the rights of who mounts it.
    @Test func hooksOfSomebodyElseAreNotRunUnlessAskedFor() throws {
        try set(hook(try script("echo ran >>'\(marker)'"), "debounce = \"0s\""))
        func change() throws -> Bool {
            unlink(marker)
            try put("\(UInt32.random(in: 0 ... .max))", mounted("web/key"))
            usleep(600_000)
            return !runs.isEmpty
        }
        #expect(try change())
        try mounted.remount("uid=65534")
        #expect(try !change())
        let told = try work.letterlock("hooks", "set", mounted.path, work("hooks.toml"))
        #expect(told.status == 0 && told.complaint.contains("this mount runs none of them"), "\(told.complaint)")
        try check(chown(work.store, 65534, 65534))
        try mounted.remount()
        #expect(try !change())
        try mounted.remount("hooks=on")
        #expect(try change())
        try check(chown(work.store, 0, 0))
    }

    @Test func whatWasNotFinishedIsNoChange() throws {
        try setReader()
        let writer = try work.start([
            "python3", "-c",
            "import os,sys,time\nf=os.open(sys.argv[1],os.O_WRONLY|os.O_TRUNC)\nos.write(f,b'half')\nprint(1,flush=True)\n"
                + "time.sleep(60)", mounted("web/key"),
        ])
        usleep(600_000)
        kill(writer.pid, SIGKILL)
        _ = try writer.wait()
        #expect(eventually { (try? text(self.mounted("web/key"))) == "one" })
        usleep(700_000)
        #expect(runs.isEmpty)
    }

    @Test func aDirectoryThatIsSwappedChangesWhatIsBelow() throws {
        try setReader()
        try check(mkdir(mounted("next"), 0o755))
        try put("swapped", mounted("next/key"))
        let exchange: UInt32 = 2
        try check(ll_renameat2(AT_FDCWD, mounted("next"), AT_FDCWD, mounted("web"), exchange))
        #expect(eventually { self.runs.last?.hasPrefix("swapped ") == true })
    }

    @Test func aUnitsMainProcessIsSignalled() throws {
        let group = try ControlGroup("system.slice/letterlock-hook-test-\(getpid()).service")
        let name = "letterlock-hook-test-\(getpid()).service"
        // The tests' threads have signals blocked, which programs inherit.
        let program = """
            import os, signal, sys, time
            open(sys.argv[1] + "/cgroup.procs", "w").write(str(os.getpid()))
            name = "main" if os.fork() else "child"
            def say(word): open(sys.argv[2], "a").write(word + "\\n")
            signal.signal(signal.SIGHUP, lambda *_: say(name))
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            say("ready")
            while True: time.sleep(0.05)
            """
        let service = try work.start(["python3", "-c", program, group.path, marker])
        defer { kill(-service.pid, SIGKILL) }
        #expect(become(["ready", "ready"]))
        try set("[[hook]]\nname = \"u\"\npaths = \"/web/*\"\nunit = \"\(name)\"\ndebounce = \"0s\"\n")
        try put("two", mounted("web/key"))
        #expect(become(["ready", "ready", "main"]), "\(runs)")
        usleep(300_000)
        #expect(runs.count == 3)
        kill(-service.pid, SIGKILL)
        _ = try service.wait()
        try put("three", mounted("web/key"))
        #expect(status("could not be started"))
    }
}

/// What an administrator begins with.
struct HookExampleTests {
    @Test func theExampleIsTaken() throws {
        let work = try Workspace()
        let checked = try work.letterlock("hooks", "check", ExampleTests.examples + "/hooks/hooks.toml")
        #expect(checked.status == 0 && checked.text.hasSuffix(": 3 hooks\n"), "\(checked.complaint)")
        try put("[[hook]]\nname = \"x\"\n", work("bad.toml"))
        let bad = try work.letterlock("hooks", "check", work("bad.toml"))
        #expect(bad.status == 1 && bad.complaint.contains("bad.toml:1: a hook has no paths"), "\(bad.complaint)")
    }
}
