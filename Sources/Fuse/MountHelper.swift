import Glibc

/// fusermount3, the set-user-id helper that mounts for ordinary users and passes the descriptor back over a socket.
enum MountHelper {
    private static let program = "fusermount3"
    /// The descriptor number at which the helper finds its end of the socket.
    private static let socketNumber: Int32 = 3

    static func mount(_ path: String, _ options: Mount.Options) throws(FuseError) -> Int32 {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0
        else {
            throw .helper(path: path, errno)
        }
        defer { close(ends[0]) }
        let process: pid_t
        do throws(FuseError) {
            process = try start(["-o", words(options), "--", path], path, socket: ends[1])
            close(ends[1])
        } catch {
            close(ends[1])
            throw error
        }
        let descriptor = receiveDescriptor(ends[0])
        // The helper says why on standard error.
        guard status(of: process) == 0, let descriptor else {
            if let descriptor { close(descriptor) }
            throw .helper(path: path, nil)
        }
        return descriptor
    }

    static func unmount(_ path: String, lazily: Bool) throws(FuseError) {
        let arguments = ["-u"] + (lazily ? ["-z"] : []) + ["--", path]
        guard status(of: try start(arguments, path, socket: nil)) == 0 else { throw .helper(path: path, nil) }
    }

    /// The option string; it is the helper that adds fd, rootmode, user_id and group_id.
    static func words(_ options: Mount.Options) -> String {
        var source = ""
        for character in options.source {
            if character == "," || character == "\\" { source.append("\\") }
            source.append(character)
        }
        var words = ["fsname=\(source)", "subtype=\(options.subtype)"]
        let flagWords: [(Int, String)] = [
            (Int(MS_RDONLY), "ro"), (Int(MS_NOEXEC), "noexec"), (Int(MS_NOATIME), "noatime"),
            (Int(MS_SYNCHRONOUS), "sync"), (Int(MS_DIRSYNC), "dirsync"),
        ]
        for (flag, word) in flagWords where options.flags & UInt(flag) != 0 { words.append(word) }
        if options.checksPermissions { words.append("default_permissions") }
        if options.allowsOthers { words.append("allow_other") }
        if let count = options.maxReadByteCount { words.append("max_read=\(count)") }
        return words.joined(separator: ",")
    }

    private static func start(
        _ arguments: [String], _ path: String, socket: Int32?
    ) throws(FuseError) -> pid_t {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        var environment = ["PATH=/usr/bin:/bin:/usr/sbin:/sbin"]
        if let socket {
            // dup2 onto itself clears close-on-exec in posix_spawn.
            posix_spawn_file_actions_adddup2(&actions, socket, socketNumber)
            environment.append("_FUSE_COMMFD=\(socketNumber)")
        }
        var argv = ([program] + arguments).map { strdup($0) } + [nil]
        var envp = environment.map { strdup($0) } + [nil]
        defer {
            for word in argv { free(word) }
            for word in envp { free(word) }
        }
        var process = pid_t()
        let result = posix_spawnp(&process, program, &actions, nil, &argv, &envp)
        guard result == 0 else { throw .helper(path: path, result) }
        return process
    }

    private static func status(of process: pid_t) -> Int32 {
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0 {
            guard errno == EINTR else { return -1 }
        }
        return status
    }

    /// One byte with one descriptor beside it (SCM_RIGHTS), made close-on-exec; nil if the helper hangs up.
    private static func receiveDescriptor(_ socket: Int32) -> Int32? {
        // struct cmsghdr {size_t len; int level; int type;} and an int, padded to 24 bytes.
        var control: (length: Int, level: Int32, type: Int32, descriptor: Int32, padding: Int32) = (
            0, 0, 0, -1, 0
        )
        var byte: UInt8 = 0
        let received = withUnsafeMutablePointer(to: &byte) { byte in
            withUnsafeMutablePointer(to: &control) { control in
                var part = iovec(iov_base: byte, iov_len: 1)
                return withUnsafeMutablePointer(to: &part) { part in
                    var message = msghdr()
                    message.msg_iov = part
                    message.msg_iovlen = 1
                    message.msg_control = UnsafeMutableRawPointer(control)
                    message.msg_controllen = 24
                    var count: Int
                    repeat {
                        count = recvmsg(socket, &message, Int32(MSG_CMSG_CLOEXEC))
                    } while count < 0 && errno == EINTR
                    return count
                }
            }
        }
        guard received > 0, control.length == 20, control.level == SOL_SOCKET,
            control.type == Int32(SCM_RIGHTS), control.descriptor >= 0
        else { return nil }
        return control.descriptor
    }
}
