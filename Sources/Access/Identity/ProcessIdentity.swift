/// A process, as far as it can be told safely. What could not be told is nil.
public final class ProcessIdentity: Sendable {
    /// The process that a thread belongs to; 0 if it lives in a pid namespace that is not seen from here.
    public let pid: Int32
    /// When it was started, in clock ticks since boot: with the pid it names one process for ever.
    public let startTime: UInt64
    /// Where its program lies, without symbolic links: what /proc/PID/exe says.
    public let exe: String?
    /// The program that runs is the one that lies there as this server sees files. If not, in a mount namespace of its
    /// own or after the file was replaced, no rule may believe the path.
    public let isExeVerified: Bool
    /// The program's file; nil if it cannot be told.
    let file: FileIdentity?
    /// The control group's path, as systemd's hierarchy has it.
    public let cgroup: String?
    /// Groups beside the one that it works with.
    public let groups: [UInt32]
    /// SHA-256 of a program that is made up.
    let supposedHash: [UInt8]?

    /// The systemd unit: `nginx.service`.
    public let unit: String?
    /// Its part of the audit log's records.
    let auditText: [UInt8]

    init(
        pid: Int32, startTime: UInt64, exe: String?, isExeVerified: Bool, file: FileIdentity?, cgroup: String?,
        groups: [UInt32]
    ) {
        self.pid = pid
        self.startTime = startTime
        self.exe = exe
        self.isExeVerified = isExeVerified
        self.file = file
        self.cgroup = cgroup
        self.groups = groups
        unit = cgroup.flatMap(SystemdUnit.name(ofControlGroup:))
        auditText = Self.auditText(pid: pid, exe: exe, isExeVerified: isExeVerified, unit: unit)
        supposedHash = nil
    }

    /// Nobody knows which.
    public static let unknown = ProcessIdentity(
        pid: 0, startTime: 0, exe: nil, isExeVerified: false, file: nil, cgroup: nil, groups: [])

    /// Made up, for `policy test` and for tests.
    ///
    /// - Parameter hash: SHA-256 of its program.
    public init(
        supposedPID pid: Int32, exe: String?, cgroup: String?, groups: [UInt32] = [], hash: [UInt8]? = nil
    ) {
        self.pid = pid
        supposedHash = hash
        startTime = 0
        self.exe = exe
        isExeVerified = exe != nil
        file = nil
        self.cgroup = cgroup
        self.groups = groups
        unit = cgroup.flatMap(SystemdUnit.name(ofControlGroup:))
        auditText = Self.auditText(pid: pid, exe: exe, isExeVerified: exe != nil, unit: unit)
    }

    /// When a process was started, in clock ticks since boot; nil if there is none. Never of one that waits for an answer of
    /// this process's.
    public static func startTime(of process: Int32) -> UInt64? { ProcDirectory(process)?.startTime }

    var key: ProcessKey { ProcessKey(pid: pid, startTime: startTime) }
}

/// One process and no later one with its number.
struct ProcessKey: Hashable, Sendable {
    var pid: Int32
    var startTime: UInt64
}

/// Who asks for something.
public struct Requester: Sendable {
    public var uid: UInt32
    public var gid: UInt32
    public var process: ProcessIdentity

    public init(uid: UInt32, gid: UInt32, process: ProcessIdentity) {
        self.uid = uid
        self.gid = gid
        self.process = process
    }

    /// True for callers of whom the kernel tells no process: they live in another pid namespace.
    public var isForeign: Bool { process.pid == 0 }
}

/// Which unit a control group belongs to (systemd's cg_path_get_unit).
enum SystemdUnit {
    private static let kinds = [".service", ".scope", ".socket", ".mount", ".swap"]

    /// The first part behind the slices. What lies deeper may be made by users in what was delegated to them.
    static func name(ofControlGroup path: String) -> String? {
        for part in path.split(separator: "/") where !part.hasSuffix(".slice") {
            // A name that could be taken for a kernel's own file is marked with an underscore.
            let name = part.hasPrefix("_") ? part.dropFirst() : part
            return kinds.contains { name.hasSuffix($0) && name.utf8.count > $0.utf8.count } ? String(name) : nil
        }
        return nil
    }
}
