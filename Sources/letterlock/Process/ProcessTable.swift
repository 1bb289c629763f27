import CLinux
import Glibc

/// Other processes, by /proc.
enum ProcessTable {
    /// The processes, at most `limit`, that have a file open, a mapping or a directory at or below `path`.
    static func users(of path: String, limit: Int = 5) -> [String] {
        guard let directory = opendir("/proc") else { return [] }
        defer { closedir(directory) }
        var users: [String] = []
        while users.count < limit, let entry = readdir(directory) {
            let name = self.name(of: entry)
            guard let process = Int32(name), process != getpid(), uses(process, path) else { continue }
            users.append("\(command(of: process)) (\(process))")
        }
        return users
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
