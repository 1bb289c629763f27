import Glibc
import Testing

/// The control file `events`, followed by real programs.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class EventTests {
    private let mounted: Mounted
    private var work: Workspace { mounted.workspace }
    private var stream: String { mounted.control("events") }

    init() throws { mounted = try Mounted() }

    /// Programs that follow the stream, and what they have said so far.
    private final class Follower {
        let child: Child
        let output: String
        /// The tests' threads have signals blocked, which programs inherit.
        private static let script = """
            import os, signal, sys
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            for number in (signal.SIGINT, signal.SIGTERM): signal.signal(number, signal.SIG_DFL)
            os.dup2(os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT, 0o600), 1)
            os.execvp(sys.argv[2], sys.argv[2:])
            """
        init(_ words: [String], _ work: Workspace, _ name: String) throws {
            output = work(name)
            child = try Child(
                ["python3", "-c", Self.script, output] + words, environment: ["PATH": "/usr/bin:/bin"])
        }
        var lines: [Substring] { ((try? text(output)) ?? "").split(separator: "\n") }
        var numbers: [Int] { lines.map { Int($0.dropFirst(7).prefix { $0.isNumber }) ?? -1 } }
        func has(_ part: String) -> Bool { eventually { self.lines.contains { $0.contains(part) } } }
        /// Ends by a signal, also while it waits.
        func end(_ signal: Int32 = SIGKILL) throws -> Int32 {
            kill(child.pid, signal)
            return try child.wait(seconds: 20).status
        }
    }

    private func killServer(_ signal: Int32 = SIGKILL) throws {
        let old = try mounted.process("server")
        kill(old, signal)
        #expect(eventually { (try? self.mounted.process("server")).map { $0 != old } ?? false })
    }

    @Test func everyKindOfReaderFollows() throws {
        try put("v", mounted("early"))
        let commands = [
            ["cat", stream], ["tail", "-f", stream], ["tail", "-n", "+1", "-f", stream],
            ["tail", "-n", "0", "-F", stream],
        ]
        let followers = try commands.enumerated().map { try Follower($1, work, "out\($0)") }
        for follower in followers[..<3] { #expect(follower.has("\"event\":\"value_changed\",\"path\":\"/early\"")) }
        // The last one begins at the end: it has begun when it tells of something.
        #expect(
            eventually {
                try? put("v", self.mounted("late"))
                return !followers[3].lines.isEmpty
            })
        try mounted.command("1", "keys/rotate")
        try killServer()
        try mounted.command("1", "keys/rotate")
        try put("v", mounted("last"))
        for follower in followers {
            #expect(follower.has("\"path\":\"/last\""), "\(follower.lines)")
            let numbers = follower.numbers
            #expect(numbers == Array(numbers[0]..<numbers[0] + numbers.count), "lost or doubled: \(numbers)")
            #expect(follower.lines.count { $0.contains("\"event\":\"server_restarted\"") } == 1)
            for version in [2, 3] {
                #expect(follower.lines.count { $0.contains("\"event\":\"rotated\",\"version\":\(version),") } == 1)
            }
        }
        // Whoever just wants to see what there is does not wait.
        let last = try work.done(["tail", "-n", "1", stream]).line
        #expect(last.contains("/last"))
        #expect(try followers[0].end(SIGINT) == 128 + SIGINT)
        for follower in followers[1...] { #expect(try follower.end() == 128 + SIGKILL) }
    }

    @Test func whoWaitsIsWokenByOneReadOrByPoll() throws {
        let file = try OpenFile(stream, O_RDONLY | O_NONBLOCK)
        func ready(_ milliseconds: Int32) -> Bool {
            var waiting = pollfd(fd: file.descriptor, events: Int16(POLLIN), revents: 0)
            return poll(&waiting, 1, milliseconds) == 1 && waiting.revents & Int16(POLLIN) != 0
        }
        func news() throws -> String {
            var bytes = [UInt8](repeating: 0, count: 65536)
            let count = try check(read(file.descriptor, &bytes, bytes.count))
            return String(decoding: bytes[..<count], as: UTF8.self)
        }
        #expect(ready(0))
        #expect(try news().contains("server_started"))
        expectErrno(EAGAIN) { _ = try news() }
        #expect(!ready(0))
        // A change that comes from elsewhere while this process waits.
        for (script, sign) in [
            ("sleep 0.3; echo v >'\(mounted("f"))'", "\"path\":\"/f\""),
            ("sleep 0.3; kill -9 \(try mounted.process("server"))", "server_restarted"),
            ("sleep 0.3; echo v >'\(mounted("g"))'", "\"path\":\"/g\""),
        ] {
            let child = try Child(["bash", "-c", script], environment: ["PATH": "/usr/bin:/bin"])
            #expect(ready(20_000), "\(sign)")
            #expect(try news().contains(sign))
            #expect(try child.wait().status == 0)
            #expect(!ready(0))
        }
        // Files of other kinds are always ready.
        let other = try OpenFile(mounted("f"), O_RDONLY)
        var waiting = pollfd(fd: other.descriptor, events: Int16(POLLIN | POLLOUT), revents: 0)
        #expect(poll(&waiting, 1, 0) == 1 && waiting.revents == Int16(POLLIN | POLLOUT))
    }

    @Test func readersThatAreSlowOrManyHoldNobodyUp() throws {
        let slow = try OpenFile(stream, O_RDONLY | O_NONBLOCK)
        let waiting = try (0..<40).map { try Follower(["cat", stream], work, "cat\($0)") }
        for follower in waiting { #expect(follower.has("server_started")) }
        // Forty reads wait, more than there are workers; a file is read and written all the same.
        for round in 0..<3000 {
            let path = mounted("a file with a rather long name, \(String(repeating: "x", count: 180)), \(round % 10)")
            try put("v", path)
        }
        try put("v", mounted("last"))
        for follower in waiting { #expect(follower.has("\"path\":\"/last\"") && follower.numbers.count == 3002) }
        for follower in waiting { #expect(try follower.end() == 128 + SIGKILL) }
        #expect(try slow.read(200, at: 0).count == 200)
        for round in 0..<2500 {
            let path = mounted("a file with a rather long name, \(String(repeating: "y", count: 180)), \(round % 10)")
            try put("v", path)
        }
        var found: [UInt8] = []
        try expectEnd(EAGAIN) {
            while true {
                var bytes = [UInt8](repeating: 0, count: 5000)
                let count = try check(pread(slow.descriptor, &bytes, bytes.count, off_t(200 + found.count)))
                found += bytes[..<count]
            }
        }
        let lines = String(decoding: found, as: UTF8.self).split(separator: "\n")
        #expect(lines.contains { $0.hasPrefix("{\"event\":\"lost\",\"lines\":") })
        #expect(lines.last?.contains("yyyy") == true)
    }

    private func expectEnd(_ number: Int32, _ body: () throws -> Void) throws {
        do { try body() } catch let error as Errno { #expect(error.value == number) }
    }

    @Test func itTellsWhatHappens() throws {
        let follower = try Follower(["cat", stream], work, "out")
        try put("v", mounted("a"))
        let file = try OpenFile(mounted("a"), O_RDWR)
        try file.write("in place", at: 0)
        try file.close()
        try check(rename(mounted("a"), mounted("b")))
        #expect(follower.has("\"path\":\"/b\",\"moved_from\":\"/a\""))
        #expect(follower.lines.count { $0.contains("\"value_changed\",\"path\":\"/a\"") } == 2)
        try mounted.command(
            "[[rule]]\nname = \"no\"\neffect = \"deny\"\npaths = [\"/b\"]\noperations = [\"read\"]", "policy")
        #expect(follower.has("\"event\":\"policy_replaced\",\"rules\":1"))
        expectErrno(EACCES) { _ = try contents(mounted("b")) }
        #expect(follower.has("\"event\":\"denied\",\"path\":\"/b\""))
        #expect(follower.has("\"operation\":\"read\",\"rule\":\"no\""))
        try mounted.command("1", "keys/rotate")
        try mounted.command("start", "rewrap")
        #expect(follower.has("\"event\":\"job_done\",\"job\":\"rewrap\""))
        try mounted.command("1 it was seen", "revoke")
        #expect(follower.has("\"event\":\"revoked\",\"version\":1,\"reason\":\"it was seen\""))
        #expect(follower.has("\"event\":\"job_done\",\"job\":\"revoke\",\"version\":1"))
        try mounted.command("1", "keys/rotate")
        try mounted.command("disable", "keys/2/state")
        #expect(follower.has("\"event\":\"key_state\",\"version\":2,\"state\":\"disabled\""))
        // No value is changed by what keys go through.
        #expect(follower.lines.count { $0.contains("value_changed") } == 3)
        expectDone(unlink(mounted("b")))
        #expect(follower.has("\"event\":\"removed\",\"path\":\"/b\""))
        // It is there while everything else is locked.
        try mounted.command("1", "lock")
        #expect(follower.has("\"event\":\"locked\""))
        expectErrno(ENOKEY) { _ = try contents(mounted("b")) }
        #expect(try work.done(["tail", "-n", "1", stream]).line.contains("\"locked\""))
        #expect(try work.letterlock("unlock", mounted.path).status == 0)
        #expect(follower.has("\"event\":\"unlocked\""))
        try put("v", mounted("after"))
        #expect(follower.has("\"path\":\"/after\""))
        #expect(follower.numbers == Array(1...follower.numbers.count))
        #expect(
            try work.run(
                ["python3", "-c", "import json,sys\nfor l in sys.stdin: json.loads(l)"], input: text(follower.output)
            ).status == 0)
        #expect(try follower.end(SIGTERM) == 128 + SIGTERM)
        // It is the owner's alone.
        #expect(try attributes(stream).permissions == 0o400)
        asUser(nobody, nobody) { expectErrno(EACCES) { _ = try OpenFile(self.stream, O_RDONLY) } }
    }
}
