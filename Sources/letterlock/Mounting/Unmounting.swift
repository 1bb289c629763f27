import CLinux
import Glibc

/// Takes a mount away and sees its server off.
enum Unmounting {
    /// How long a server may take to bring everything to disk.
    private static let patienceSeconds: Int32 = 300

    /// - Parameter detaches: Leave at once, even if in use, and let the server end by itself (`umount -l`).
    static func unmount(_ path: String, detaches: Bool = false) throws(Failure) {
        let mountpoint = try place(path)
        // While it still answers: who serves it. Only the owner and root may ask; for others nothing is waited for.
        let server = serverProcess(of: mountpoint)
        try remove(mountpoint, detaches: detaches)
        guard let server, !detaches else { return }
        guard ProcessTable.awaitEnd(of: server, seconds: patienceSeconds) else {
            throw Failure(
                "\(path) is unmounted, but its server (process \(server)) still writes to disk",
                hint: "wait for that process to end before you move the store")
        }
    }

    /// Takes the mount away and waits for nobody. `.busy` if it is in use.
    static func remove(_ mountpoint: String, detaches: Bool) throws(Failure) {
        if geteuid() == 0 {
            try unmountAsRoot(mountpoint, detaches: detaches)
        } else {
            try unmountAsUser(mountpoint, detaches: detaches)
        }
    }

    /// The mount point as the kernel names it, also if its server is dead.
    private static func place(_ path: String) throws(Failure) -> String {
        let named = Paths.resolvedParent(path)
        if MountTable().entry(at: named)?.isLetterlock == true { return named }
        return try Control(at: path).mountpoint
    }

    private static func serverProcess(of mountpoint: String) -> Int32? {
        guard let control = Control.ifMounted(at: mountpoint), let status = try? control.json("status"),
            let pid = status["guardian"]["pid"].integer ?? status["server"]["pid"].integer
        else { return nil }
        return Int32(exactly: pid)
    }

    private static func unmountAsRoot(_ mountpoint: String, detaches: Bool) throws(Failure) {
        let directory = open(mountpoint, O_RDONLY | O_DIRECTORY | O_CLOEXEC)
        if directory >= 0 {
            syncfs(directory)
            close(directory)
        }
        let flags = Int32(detaches ? MNT_DETACH : 0) | 8  // UMOUNT_NOFOLLOW
        // A request that is being answered makes the mount busy for an instant.
        for attempt in 0..<20 {
            if umount2(mountpoint, flags) == 0 { return }
            let number = errno
            guard number == EBUSY else { throw Failure("cannot unmount \(mountpoint)", errno: number) }
            guard attempt < 19, attempt < 3 || ProcessTable.users(of: mountpoint, limit: 1).isEmpty else {
                break
            }
            usleep(50_000)
        }
        throw busy(mountpoint)
    }

    private static func unmountAsUser(_ mountpoint: String, detaches: Bool) throws(Failure) {
        var process: pid_t = 0
        let words = ["fusermount3", "-u"] + (detaches ? ["-z"] : []) + ["-q", "--", mountpoint]
        var argv: [UnsafeMutablePointer<CChar>?] = words.map { strdup($0) }
        argv.append(nil)
        defer { for argument in argv { free(argument) } }
        let number = posix_spawnp(&process, "fusermount3", nil, nil, argv, environ)
        guard number == 0 else {
            throw Failure("cannot run fusermount3", errno: number, hint: "install the package fuse3")
        }
        var status: Int32 = 0
        while waitpid(process, &status, 0) < 0, errno == EINTR {}
        guard status != 0 else { return }
        guard ProcessTable.users(of: mountpoint, limit: 1).isEmpty else { throw busy(mountpoint) }
        throw Failure("cannot unmount \(mountpoint)", hint: "only root and the one who mounted it may")
    }

    private static func busy(_ mountpoint: String) -> Failure {
        let users = ProcessTable.users(of: mountpoint)
        return Failure(
            "\(mountpoint) is in use" + (users.isEmpty ? "" : " by \(users.joined(separator: ", "))"),
            hint: "end what uses it, or see 'fuser --mount \(mountpoint)'", code: .busy)
    }
}
