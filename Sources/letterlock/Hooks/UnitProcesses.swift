import CLinux
import Glibc

/// The processes of a systemd unit, as the control groups tell: without asking systemd, which is not everywhere.
enum UnitProcesses {
    static let notFound = ESRCH
    private static let depthLimit = 8

    /// Signals the unit's main process: each of its processes whose parent is none of them.
    ///
    /// - Returns: how many got it.
    static func signal(_ unit: String, _ number: Int32) -> Int {
        let roots = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"]
        guard let root = roots.first(where: { access($0 + "/cgroup.procs", F_OK) == 0 }),
            let group = find(unit, below: root, depth: 0)
        else { return 0 }
        let all = Set(processes(of: group, depth: 0))
        return all.count { process in
            guard let parent = parent(of: process), !all.contains(parent) else { return false }
            let descriptor = ll_pidfd_open(process)
            guard descriptor >= 0 else { return false }
            defer { close(descriptor) }
            // Another process may have got its number meanwhile.
            guard SmallFile.text("/proc/\(process)/cgroup")?.contains("/" + unit) == true else { return false }
            return ll_pidfd_send_signal(descriptor, number) == 0
        }
    }

    private static func find(_ unit: String, below directory: String, depth: Int) -> String? {
        guard depth < depthLimit else { return nil }
        let names = directories(in: directory)
        if names.contains(unit) { return directory + "/" + unit }
        return names.lazy.compactMap { find(unit, below: directory + "/" + $0, depth: depth + 1) }.first
    }

    private static func directories(in directory: String) -> [String] {
        guard let stream = opendir(directory) else { return [] }
        defer { closedir(stream) }
        var names: [String] = []
        while let entry = readdir(stream) {
            guard entry.pointee.d_type == 4 else { continue }  // DT_DIR
            let name = withUnsafeBytes(of: &entry.pointee.d_name) {
                String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != ".", name != ".." { names.append(name) }
        }
        return names
    }

    private static func processes(of group: String, depth: Int) -> [pid_t] {
        guard depth < depthLimit else { return [] }
        let own = (SmallFile.text(group + "/cgroup.procs") ?? "").split(separator: "\n").compactMap { pid_t($0) }
        return own + directories(in: group).flatMap { processes(of: group + "/" + $0, depth: depth + 1) }
    }

    private static func parent(of process: pid_t) -> pid_t? {
        guard let status = SmallFile.text("/proc/\(process)/status"),
            let line = status.split(separator: "\n").first(where: { $0.hasPrefix("PPid:") })
        else { return nil }
        return pid_t(line.dropFirst(5).trimmingPrefix(while: \.isWhitespace))
    }
}
