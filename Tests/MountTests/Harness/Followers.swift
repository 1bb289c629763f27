import Glibc

/// Follows the stream of events: every line comes once and in order, and every rotation is told of once.
final class StreamFollower: Application {
    private var stream: OpenFile?
    private var heard: [UInt8] = []
    private var tail: Child?

    private var tailPath: String { path + ".tail" }

    override func prepare() throws {
        stream = try OpenFile(path + "/.letterlock/events", O_RDONLY | O_NONBLOCK)
        // Started before the first kill: a process with files on the mount cannot fork while nobody serves it.
        let script = "exec tail -n +1 -s 0.1 -f '\(path)/.letterlock/events' >'\(tailPath)'"
        tail = try Child(["sh", "-c", script], environment: ["PATH": "/usr/bin:/bin"])
    }

    override func act(_ round: Int) throws {
        guard let stream else { return }
        var waiting = pollfd(fd: stream.descriptor, events: Int16(POLLIN), revents: 0)
        guard try check(poll(&waiting, 1, 20)) == 1 else { return }
        var bytes = [UInt8](repeating: 0, count: 65536)
        let count = try check(read(stream.descriptor, &bytes, bytes.count))
        try require(count > 0, "the stream has ended")
        heard += bytes[..<count]
    }

    override func finish() throws {
        // Others may be at their last act: one more value, which is told last, comes when they are through.
        let mark = "\"path\":\"/the last of \(getpid())\""
        usleep(300_000)
        try put("x", "\(path)/the last of \(getpid())")
        let isThere = try eventually {
            try self.act(0)
            return String(decoding: self.heard, as: UTF8.self).contains(mark)
        }
        try require(isThere, "the stream goes no further")
        try judge(String(decoding: heard, as: UTF8.self), "poll(2)")
        let hasFollowed = eventually { (try? text(self.tailPath))?.contains(mark) ?? false }
        try require(hasFollowed, "tail -f goes no further")
        try judge(try text(tailPath), "tail -f")
        tail = nil
        try stream?.close()
    }

    private func judge(_ said: String, _ who: String) throws {
        var rotated = 1
        var last = 0
        for line in said.split(separator: "\n") {
            let number = Int(line.dropFirst("{\"seq\":".count).prefix { $0.isNumber })
            try require(number == last + 1, "\(who): after line \(last) comes \(line)")
            last += 1
            guard let place = line.firstRange(of: "\"event\":\"rotated\",\"version\":") else { continue }
            let version = Int(line[place.upperBound...].prefix { $0.isNumber })
            try require(version == rotated + 1, "\(who): after version \(rotated) comes \(line)")
            rotated += 1
        }
        let latest = try text(path + "/.letterlock/keys/rotate")
        try require("\(rotated)\n" == latest, "\(who): \(rotated) rotations and not \(latest)")
    }
}
