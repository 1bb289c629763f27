import Glibc
import Testing

@Suite("The commands that begin jobs", .enabled(if: !Mounted.isPlain))
struct JobCommandTests {
    let mounted: Mounted

    init() throws {
        mounted = try Mounted()
        for name in ["a", "b", "c"] { try put("value of \(name)", mounted(name)) }
    }

    private func version(_ name: String) throws -> String {
        try mounted.workspace.done(
            ["getfattr", "--only-values", "-n", "user.letterlock.kek_version", "--absolute-names", mounted(name)]
        ).text
    }

    @Test func rewrapTellsDoesAndWaits() throws {
        let workspace = mounted.workspace
        #expect(try workspace.letterlock("rotate", mounted.path).status == 0)
        let told = try workspace.letterlock("rewrap", mounted.path, "--dry-run")
        #expect(told.status == 0 && told.text.contains("3 files"))
        let counted = try workspace.letterlock("rewrap", mounted.path, "--dry-run", "--json")
        #expect(counted.text == "{\"job\":\"rewrap\",\"files\":3}\n")
        #expect(try version("a") == "1")
        let done = try workspace.letterlock("rewrap", mounted.path, "--wait")
        #expect(done.status == 0 && done.text.contains("3 files done"), "\(done.complaint)")
        #expect(try ["a", "b", "c"].map(version) == ["2", "2", "2"])
        let json = try workspace.letterlock("reencrypt", mounted("b"), "--wait", "--json")
        #expect(json.status == 0 && json.text.contains("\"state\":\"done\",\"done\":1,"), "\(json.text)")
    }

    @Test func aSecondJobIsBusyAndNonsenseIsRefused() throws {
        let workspace = mounted.workspace
        try workspace.shell("head -c 60000000 /dev/urandom >\(mounted("large"))")
        #expect(try workspace.letterlock("reencrypt", mounted.path).status == 0)
        #expect(try workspace.letterlock("reencrypt", mounted.path, "--pause").status == 0)
        #expect(try workspace.letterlock("reencrypt", mounted.path).status == 6)
        #expect(try workspace.letterlock("reencrypt", mounted.path, "--cancel").status == 0)
        #expect(try workspace.letterlock("reencrypt", mounted.path, "--resume").status == 1)
        #expect(try workspace.letterlock("reencrypt", mounted.path, "/none", "--wait").status == 1)
        #expect(try workspace.letterlock("rewrap", mounted.path, "--from", "9").status == 1)
        #expect(try workspace.letterlock("rewrap", mounted.path, "--pause", "--cancel").status == 2)
        #expect(try workspace.letterlock("revoke", mounted.path, "9", "--reason", "lost").status == 1)
        #expect(try workspace.letterlock("revoke", mounted.path, "1").status == 2)
        #expect(try workspace.letterlock("revoke", mounted.path, "--resume").status == 1)
        #expect(try workspace.letterlock("revoke", mounted.path, "--pause", "--cancel").status == 2)
        #expect(try workspace.letterlock("revoke", mounted.path, "1", "--cancel").status == 2)
    }

    @Test func revokeRefusesThenGivesBack() throws {
        let workspace = mounted.workspace
        let told = try workspace.letterlock("revoke", mounted.path, "1", "--reason", "lost", "--dry-run")
        #expect(told.status == 0 && told.text.contains("/a\n/b\n/c\n"), "\(told.text)")
        let done = try workspace.letterlock("revoke", mounted.path, "1", "--reason", "lost", "--wait")
        #expect(done.status == 0, "\(done.complaint)")
        #expect(try text(mounted.control("keys/1/state")) == "compromised\n")
        #expect(try text(mounted("a")) == "value of a")
        #expect(try version("a") == "2")
    }

    /// What is drawn on a terminal so wide while a job of a while is waited for, line by line.
    private func drawn(columns: Int, _ words: String) throws -> [String] {
        let script = """
            import os, pty, sys
            words = sys.argv[2:]
            child, terminal = pty.fork()
            if child == 0:
                os.system('stty columns ' + sys.argv[1])
                os.execv(words[0], words)
            text = b''
            while True:
                try: part = os.read(terminal, 65536)
                except OSError: break
                if not part: break
                text += part
            sys.stdout.buffer.write(text)
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            """
        let argv = [try Workspace.program()] + words.split(separator: " ").map(String.init)
        let outcome = try mounted.workspace.done(["python3", "-c", script, "\(columns)"] + argv)
        return outcome.text.unicodeScalars.split { $0 == "\r" || $0 == "\n" }.map {
            let line = String($0)
            return line.hasPrefix("\u{1B}[K") ? String(line.dropFirst(3)) : line
        }
    }

    @Test func aTerminalSeesABarWithRateAndRemainingTime() throws {
        try mounted.workspace.shell(
            "for i in $(seq 60); do head -c 3000000 /dev/zero >\(mounted("many"))$i; done; sync -f \(mounted("a"))")
        let lines = try drawn(columns: 100, "reencrypt \(mounted.path) --wait")
        let bars = lines.filter { $0.hasPrefix("reencrypt [") }
        #expect(bars.count > 2, "\(lines)")
        let full = /reencrypt \[#*-*\] +\d+ %  \d+\/63  \d+\/s  (\d+ s left|erasing what is old)?/
        for bar in bars { #expect(bar.wholeMatch(of: full) != nil, "\(bar)") }
        #expect(bars.contains { $0.hasSuffix(" s left") }, "\(bars)")
        // The bar is taken away, the outcome stays.
        #expect(lines.last == "reencrypt: 63 files done", "\(lines.suffix(3))")
        let narrow = try drawn(columns: 60, "revoke \(mounted.path) 1 --reason lost --wait")
        #expect(narrow.contains { $0.hasPrefix("revoke [") }, "\(narrow)")
        #expect(narrow.allSatisfy { $0.count < 60 || !$0.contains(" % ") }, "\(narrow)")
    }

    @Test func withoutATerminalLinesAreTold() throws {
        let workspace = mounted.workspace
        try workspace.shell("dd if=/dev/zero of=\(mounted("large")) bs=1M count=150 status=none")
        let told = try workspace.letterlock("reencrypt", mounted.path, "--wait")
        #expect(told.status == 0 && told.complaint.isEmpty)
        let lines = /(reencrypt: \d of 4 files, .*\n)*reencrypt: 4 files done\n/
        #expect(told.text.wholeMatch(of: lines) != nil, "\(told.text)")
        let json = try workspace.letterlock("rewrap", mounted.path, "--wait", "--json")
        #expect(json.text.hasPrefix("{\"state\":\"done\"") && json.text.split(separator: "\n").count == 1)
    }

    @Test func aKilledServersJobGoesOnWithTheNext() throws {
        let workspace = mounted.workspace
        try workspace.shell(
            "dd if=/dev/urandom of=\(mounted("large")) bs=1M count=80 status=none; sync -f \(mounted("large"))")
        let before = try workspace.done(["sha256sum", mounted("large")]).text
        #expect(try workspace.letterlock("reencrypt", mounted.path).status == 0)
        mounted.killServer()
        try mounted.mount()
        #expect(eventually { (try? text(mounted.control("reencrypt")))?.contains("\"state\":\"done\"") == true })
        #expect(try text(mounted.control("reencrypt")).contains("\"failed\":0"))
        #expect(try workspace.done(["sha256sum", mounted("large")]).text == before)
        for name in ["a", "b", "c"] { #expect(try text(mounted(name)) == "value of \(name)") }
        try mounted.unmount()
        let verified = try workspace.letterlock("verify", mounted.store, "--key-service", workspace.keyService)
        #expect(verified.status == 0, "\(verified.complaint)\(verified.text)")
    }

    @Test func nothingOfTheOldCiphertextIsLeft() throws {
        let workspace = mounted.workspace
        try workspace.shell("head -c 400000 /dev/urandom >\(mounted("large")); sync -f \(mounted("large"))")
        try workspace.done(["cp", mounted.store + "/blocks", workspace("old-blocks")])
        let done = try workspace.letterlock("reencrypt", mounted.path, "--wait")
        #expect(done.status == 0, "\(done.complaint)")
        try mounted.unmount()
        // 16 bytes out of each block that was there, looked for in everything that is.
        let search = """
            import glob, sys
            old = open(sys.argv[1], 'rb').read()
            marks = [old[at:at + 16] for at in range(0, len(old), 4096) if any(old[at:at + 4096])]
            now = b''.join(open(name, 'rb').read() for name in glob.glob(sys.argv[2] + '/*'))
            print(len(marks), sum(mark in now for mark in marks))
            """
        let found = try workspace.done(["python3", "-c", search, workspace("old-blocks"), mounted.store]).text
        #expect(found.hasSuffix(" 0\n") && !found.hasPrefix("0 "), "\(found)")
    }

    /// Nothing that an old key opens: not one wrap of it is left in any file of the store, though SQLite, its log, the
    /// journals and the blocks have all held some.
    @Test(arguments: ["rewrap", "reencrypt", "revoke"])
    func nothingOfTheOldWrapsIsLeft(job: String) throws {
        let workspace = mounted.workspace
        for (number, count) in [10, 900, 5000, 60_000].enumerated() {
            for copy in 0..<8 { try put(pattern(count, seed: UInt64(copy)), mounted("f\(number).\(copy)")) }
        }
        // The wraps, out of the table of envelopes.
        let wraps = """
            import sqlite3, sys
            table = sqlite3.connect('file:' + sys.argv[1] + '/records.sqlite?mode=ro', uri=True)
            for key, value in table.execute('SELECT key, value FROM record'):
                if key[0] == 8: print(value[4:108].hex())
            """
        // Pieces of 16 bytes of them, looked for in everything that the store's directory has.
        let search = """
            import os, sys
            wraps = [bytes.fromhex(line) for line in sys.stdin.read().split()]
            pieces = [wrap[at:at + 16] for wrap in wraps for at in (0, 24, 56, 88)]
            files = [os.path.join(place, name) for place, _, names in os.walk(sys.argv[1]) for name in names]
            now = b''.join(open(name, 'rb').read() for name in files)
            print(len(wraps), sum(piece in now for piece in pieces))
            """
        func found(_ wraps: String) throws -> String {
            String(try workspace.done(["python3", "-c", search, mounted.store], input: wraps).text.dropLast())
        }
        try mounted.unmount()
        let old = try workspace.done(["python3", "-c", wraps, mounted.store]).text
        try mounted.mount()
        #expect(try found(old) == "35 140")
        if job == "revoke" {
            #expect(try workspace.letterlock("revoke", mounted.path, "1", "--reason", "lost", "--wait").status == 0)
        } else {
            #expect(try workspace.letterlock("rotate", mounted.path).status == 0)
            #expect(try workspace.letterlock(job, mounted.path, "--wait").status == 0)
        }
        #expect(try found(old) == "35 0")
        try mounted.unmount()
        #expect(try found(old) == "35 0")
        let new = try workspace.done(["python3", "-c", wraps, mounted.store]).text
        #expect(try found(new) == "35 140")
    }
}
