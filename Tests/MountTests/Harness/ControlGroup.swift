import Glibc

/// A control group of one test, below systemd's hierarchy or the unified one, removed at the end of its life.
final class ControlGroup {
    let path: String
    private let directories: [String]

    /// - Parameter name: From the hierarchy's root; what of it is missing is made.
    init(_ name: String) throws {
        guard let root = ["/sys/fs/cgroup/systemd", "/sys/fs/cgroup"].first(where: { exists($0 + "/cgroup.procs") })
        else { throw HarnessError("no control groups are mounted") }
        var made: [String] = []
        var place = root
        for part in name.split(separator: "/") {
            place += "/" + part
            if mkdir(place, 0o755) == 0 { made.append(place) }
        }
        path = place
        directories = made
    }

    deinit {
        for directory in directories.reversed() {
            // A process that has ended leaves it a moment later.
            _ = eventually { rmdir(directory) == 0 || errno == ENOENT }
        }
    }

    /// A shell script that runs `command` in this group.
    func script(_ command: String) -> String { "echo $$ >'\(path)/cgroup.procs' && exec \(command)" }
}
