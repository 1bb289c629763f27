import CLinux
import Glibc

/// What a process that will hold keys does to itself before anything else.
enum ProcessHygiene {
    /// As /proc/PID/comm and `ps` show it.
    static let processName = "letterlock"

    static func apply() {
        // Swift's runtime prints registers, and the bytes they point to, when it crashes: a key may be among them.
        for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT, SIGQUIT] { set(number, SIG_DFL) }
        // A reader of our output that goes away is an error of write(2), not the death of a server.
        set(SIGPIPE, SIG_IGN)
        // Started through a descriptor, it would be called by that one's number.
        processName.withCString { _ = ll_prctl(15, UInt(bitPattern: $0)) }  // PR_SET_NAME
        // No core file, no ptrace by the same user, no /proc/PID/mem.
        _ = ll_prctl(4, 0)  // PR_SET_DUMPABLE
        var none = rlimit(rlim_cur: 0, rlim_max: 0)
        setrlimit(__rlimit_resource_t(RLIMIT_CORE.rawValue), &none)
        givenUmask = umask(0o077)
        raise(RLIMIT_NOFILE)
        raise(__RLIMIT_MEMLOCK)
        openStandardDescriptors()
        // tss2's libraries write what they think of an answer to standard error.
        hasQuietedTPM = getenv(tpmLog) == nil && setenv(tpmLog, "all+NONE", 0) == 0
    }

    private static let tpmLog = "TSS2_LOG"

    private static func set(_ number: Int32, _ handler: __sighandler_t?) {
        givenSignals.append((number, signal(number, handler)))
    }

    // Written by `apply`, before there is a second thread.
    nonisolated(unsafe) private static var givenSignals: [(Int32, __sighandler_t?)] = []
    nonisolated(unsafe) private static var givenUmask: mode_t = 0o022
    nonisolated(unsafe) private static var givenLimits: [(__rlimit_resource, rlimit)] = []
    nonisolated(unsafe) private static var hasQuietedTPM = false

    /// Gives back what this process was started with, for a program that takes its place. That it dumps no core stays.
    static func restoreForOthers() {
        umask(givenUmask)
        for (resource, limit) in givenLimits {
            var limit = limit
            setrlimit(resource, &limit)
        }
        for (number, handler) in givenSignals { signal(number, handler) }
        if hasQuietedTPM { unsetenv(tpmLog) }
    }

    /// Gives back the pages of programs and libraries that starting took: what is still used comes back from the page cache
    /// when it is.
    static func forgetStart() {
        dl_iterate_phdr(
            { object, _, _ in
                guard let object = object?.pointee, let headers = object.dlpi_phdr else { return 0 }
                for header in UnsafeBufferPointer(start: headers, count: Int(object.dlpi_phnum))
                where header.p_type == 1 && header.p_flags & 2 == 0 {  // PT_LOAD without PF_W: nobody has written there
                    let start = (UInt(object.dlpi_addr) + UInt(header.p_vaddr)) & ~4095
                    let end = UInt(object.dlpi_addr) + UInt(header.p_vaddr) + UInt(header.p_memsz)
                    madvise(UnsafeMutableRawPointer(bitPattern: start), Int(end - start), Int32(MADV_DONTNEED))
                }
                return 0
            }, nil)
    }

    /// Lifts the soft limit to the hard one.
    private static func raise(_ resource: __rlimit_resource) {
        var limit = rlimit()
        guard getrlimit(resource, &limit) == 0, limit.rlim_cur < limit.rlim_max else { return }
        givenLimits.append((resource, limit))
        limit.rlim_cur = limit.rlim_max
        setrlimit(resource, &limit)
    }

    /// A file opened where 0, 1 or 2 was closed would receive what is meant for a terminal.
    private static func openStandardDescriptors() {
        while true {
            let descriptor = open("/dev/null", O_RDWR)
            guard descriptor >= 0 else { return }
            if descriptor > 2 {
                close(descriptor)
                return
            }
        }
    }
}
