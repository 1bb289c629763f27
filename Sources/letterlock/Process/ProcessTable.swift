import CLinux
import Glibc
import Synchronization
import Threads

/// Other processes, by /proc.
enum ProcessTable {
    /// How long is looked for them (seconds). What there is to see of a process that hangs within execve(2), say at a
    /// file on a mount whose server is dead, can be waited for without end.
    private static let lookingLimit = 3

    /// The processes, at most `limit`, that have a file open, a mapping or a directory at or below `path`, as far as they
    /// are found.
    static func users(of path: String, limit: Int = 5) -> [String] {
        let found = Found()
        let search = Search(path: path, limit: limit, found: found)
        guard startThread({ search.run() }) == 0 else { return [] }
        for _ in 0..<lookingLimit * 1000 where !found.isComplete { usleep(1000) }
        return found.users
    }

    private final class Found: Sendable {
        private let state = Mutex<(users: [String], isComplete: Bool)>(([], false))
        var users: [String] { state.withLock { $0.users } }
        var isComplete: Bool { state.withLock { $0.isComplete } }
        func add(_ user: String) { state.withLock { $0.users.append(user) } }
        func complete() { state.withLock { $0.isComplete = true } }
    }

    private final class Search: Sendable {
        let path: String
        let limit: Int
        let found: Found

        init(path: String, limit: Int, found: Found) { (self.path, self.limit, self.found) = (path, limit, found) }

        func run() {
            defer { found.complete() }
            guard let directory = opendir("/proc") else { return }
            defer { closedir(directory) }
            var count = 0
            while count < limit, let entry = readdir(directory) {
                let name = ProcessTable.name(of: entry)
                guard let process = Int32(name), process != getpid(), uses(process, path) else { continue }
                found.add("\(command(of: process)) (\(process))")
                count += 1
            }
        }
    }

    static func command(of process: Int32) -> String {
        var text = SmallFile.text("/proc/\(process)/comm") ?? "?"
        while text.last == "\n" { text.removeLast() }
        return text
    }

    /// Waits until the process has ended; false if it still runs after `seconds`.
    static func awaitEnd(of process: Int32, seconds: Int32) -> Bool {
        let descriptor = ll_pidfd_open(process)
        guard descriptor >= 0 else { return errno == ESRCH }
        defer { close(descriptor) }
        var waiting = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let ready = poll(&waiting, 1, seconds * 1000)
            if ready < 0, errno == EINTR { continue }
            return ready > 0
        }
    }

    /// By links alone: a stat of a file on a mount could wait for its server.
    private static func uses(_ process: Int32, _ path: String) -> Bool {
        let base = "/proc/\(process)"
        for link in ["cwd", "root", "exe"] where isBelow(path, "\(base)/\(link)") { return true }
        if let directory = opendir("\(base)/fd") {
            defer { closedir(directory) }
            while let entry = readdir(directory) {
                if isBelow(path, "\(base)/fd/\(name(of: entry))") { return true }
            }
        }
        guard let maps = SmallFile.text("\(base)/maps") else { return false }
        return maps.contains(" \(path)/")
    }

    private static func isBelow(_ path: String, _ link: String) -> Bool {
        var target = [CChar](repeating: 0, count: 4097)
        let count = readlink(link, &target, target.count - 1)
        guard count > 0 else { return false }
        return Paths.contains(
            path, String(decoding: target[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }

    static func name(of entry: UnsafeMutablePointer<dirent>) -> String {
        withUnsafePointer(to: &entry.pointee.d_name) { pointer in
            pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
    }
}
