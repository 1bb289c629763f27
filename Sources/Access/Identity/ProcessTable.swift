internal import CLinux
internal import Glibc
internal import Synchronization

/// Tells which process a thread is of, and what runs in it.
///
/// The thread waits for our answer meanwhile, so its number is good. What was found is kept while the thread lives and
/// runs the same program: finding that out is one look at `/proc/TID/exe` through a directory that is held open.
public final class ProcessTable: Sendable {
    /// A process may be moved to another control group, or change its groups, without a sign: looked at again.
    private static let freshSeconds: Int64 = 1
    private static let shardCount = 16
    /// Each holds a descriptor.
    private static let shardLimit = 64

    private struct Known {
        var directory: ProcDirectory
        var program: FileIdentity?
        var uid: UInt32
        var gid: UInt32
        /// CLOCK_MONOTONIC, seconds.
        var looked: Int64
        var identity: ProcessIdentity
    }

    private final class Shard: Sendable { let threads = Mutex<[Int32: Known]>([:]) }
    private let shards = (0..<shardCount).map { _ in Shard() }

    /// Where programs were seen to lie while they did: a running program is still that one when its file is replaced.
    private let verified = Mutex<[ProcessKey: (file: FileIdentity, path: String)]>([:])
    private static let verifiedLimit = 4096

    public let use = CacheUse()

    public init() {}

    /// - Parameter thread: as the kernel's request has it; 0 from another pid namespace.
    public func identify(thread: Int32, uid: UInt32, gid: UInt32) -> ProcessIdentity {
        guard thread > 0 else { return .unknown }
        let shard = shards[Int(thread) % Self.shardCount]
        let now = Self.seconds
        if let known = shard.threads.withLock({ $0[thread] }), known.uid == uid, known.gid == gid,
            now - known.looked < Self.freshSeconds, let program = known.directory.program, let then = known.program,
            program.isSameFile(as: then)
        {
            use.count(hit: true)
            return known.identity
        }
        use.count(hit: false)
        guard let directory = ProcDirectory(thread) else { return .unknown }
        let program = directory.program
        let identity = look(at: directory, program)
        let known = Known(
            directory: directory, program: program, uid: uid, gid: gid, looked: now, identity: identity)
        let dropped = shard.threads.withLock { threads -> [Known] in
            var dropped: [Known] = []
            if threads.count >= Self.shardLimit, threads[thread] == nil {
                // Closed when the lock is free.
                dropped = Array(threads.values)
                threads.removeAll(keepingCapacity: true)
            }
            if let old = threads.updateValue(known, forKey: thread) { dropped.append(old) }
            return dropped
        }
        _ = consume dropped
        return identity
    }

    private static var seconds: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time)
        return Int64(time.tv_sec)
    }

    private func look(at directory: ProcDirectory, _ program: FileIdentity?) -> ProcessIdentity {
        guard let status = directory.status, let process = ProcDirectory(status.process),
            let startTime = process.startTime
        else { return .unknown }
        let key = ProcessKey(pid: status.process, startTime: startTime)
        let path = directory.programPath
        var exe = path
        var isVerified = false
        if let program, let path {
            if Self.lies(program, at: path) {
                isVerified = true
                remember(key, program, path)
            } else if let seen = verified.withLock({ $0[key] }), seen.file.isSameFile(as: program) {
                isVerified = true
                exe = seen.path
            }
        }
        let controlGroup = directory.controlGroup
        // All of it was read of one thread if that is there still.
        guard directory.startTime != nil else { return .unknown }
        return ProcessIdentity(
            pid: status.process, startTime: startTime, exe: exe, isExeVerified: isVerified, file: program,
            cgroup: controlGroup, groups: status.groups)
    }

    private func remember(_ key: ProcessKey, _ file: FileIdentity, _ path: String) {
        verified.withLock { verified in
            if verified.count >= Self.verifiedLimit, verified[key] == nil {
                verified = verified.filter { ProcDirectory($0.key.pid)?.startTime == $0.key.startTime }
                if verified.count >= Self.verifiedLimit { verified.removeAll() }
            }
            verified[key] = (file, path)
        }
    }

    /// Whether a program is what lies at a path as this process sees it: in a mount namespace of its own anybody can
    /// have what he likes at `/usr/sbin/nginx`. The program runs, so the way to it is in the kernel's cache; where it is
    /// not, the answer is no.
    private static func lies(_ program: FileIdentity, at path: String) -> Bool {
        guard path.hasPrefix("/") else { return false }
        // A rename somewhere else may disturb a walk through the cache.
        for _ in 0..<3 {
            let number = ll_open_cached(path)
            let reason = errno
            if let file = Descriptor(number) {
                return FileIdentity(at: "", in: file.number, flags: AT_EMPTY_PATH)?.isSameFile(as: program) == true
            }
            guard reason == EAGAIN else { return false }
        }
        return false
    }
}
