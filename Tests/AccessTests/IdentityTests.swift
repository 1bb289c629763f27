import Glibc
import Testing

@testable import Access

/// Who a thread is.
struct IdentityTests {
    @Test func `this process is told with its program, and the same object comes again`() {
        let table = ProcessTable()
        let identity = table.identify(thread: getpid(), uid: getuid(), gid: getgid())
        #expect(identity.pid == getpid() && identity.startTime > 0)
        var path = [CChar](repeating: 0, count: 4096)
        let count = readlink("/proc/self/exe", &path, path.count)
        #expect(identity.exe == String(decoding: path[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self))
        #expect(identity.isExeVerified)
        #expect(table.identify(thread: getpid(), uid: getuid(), gid: getgid()) === identity)
    }

    @Test func `a number that nobody has, and none, are unknown`() {
        let table = ProcessTable()
        #expect(table.identify(thread: 0, uid: 0, gid: 0).pid == 0)
        #expect(table.identify(thread: 0x3FFF_FFFF, uid: 0, gid: 0).pid == 0)
        #expect(Requester(uid: 0, gid: 0, process: .unknown).isForeign)
    }

    @Test func `a thread's process is told by the process`() {
        let table = ProcessTable()
        // The kernel thread's parent of all has no program.
        let kernel = table.identify(thread: 2, uid: 0, gid: 0)
        #expect(kernel.exe == nil && !kernel.isExeVerified)
    }

    @Test(
        "units",
        arguments: [
            ("/system.slice/nginx.service", "nginx.service"),
            ("/system.slice/system-postgresql.slice/postgresql@15-main.service", "postgresql@15-main.service"),
            ("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service", "user@1000.service"),
            ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"), ("/", nil), ("", nil),
            ("/docker/0123", nil), ("/system.slice", nil), ("/system.slice/_cgroup.service", "cgroup.service"),
            ("/foo/nginx.service", nil), ("/system.slice/.service", nil),
        ] as [(String, String?)])
    func units(cgroup: String, unit: String?) {
        #expect(ProcessIdentity(supposedPID: 1, exe: nil, cgroup: cgroup).unit == unit)
    }

    @Test(
        "control groups",
        arguments: [
            ("0::/system.slice/a.service\n", "/system.slice/a.service"), ("0::/\n", "/"), ("", nil), ("x\n", nil),
            ("9:name=systemd:/system.slice/a.service\n0::/b\n", "/system.slice/a.service"),
            ("0::/b:c\n9:name=systemd:/\n", "/b:c"),
            ("9:name=systemd:/\n8:pids:/\n4:memory:/docker/0123\n1:cpu,cpuacct:/x\n0::/\n", "/docker/0123"),
            ("4:memory:/x\n0::/y\n", "/y"),
        ] as [(String, String?)])
    func controlGroups(table: String, group: String?) { #expect(ProcDirectory.controlGroup(table) == group) }
}
