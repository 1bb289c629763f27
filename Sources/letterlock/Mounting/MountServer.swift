import Fuse
import Glibc
import Keyring
import SecretFS

/// Serves a mount in this process until it is unmounted.
struct MountServer {
    let request: MountRequest

    func run() throws(Failure) {
        let log = ServerLog(isDetached: request.ready != nil)
        let options = request.options
        let opened = try StoreOpening.open(
            request.store, request.keys, readOnly: options.isReadOnly,
            purpose: "mounted at \(request.mountpoint)",
            acceptsRollback: options.acceptsRollback, holdsSignals: true)
        let keeper = EpochKeeper(opened, log: log)
        do {
            try serve(opened, keeper, log)
        } catch {
            try? keeper.close()
            throw error
        }
        try keeper.close()
    }

    private func serve(_ opened: OpenKeyring, _ keeper: EpochKeeper, _ log: ServerLog) throws(Failure) {
        let (ready, mountpoint, name) = (request.ready, request.mountpoint, opened.keyring.name)
        for warning in opened.warnings { ready.map { $0.warn(warning) } ?? log.warn(warning) }
        keeper.remember()
        let end: Server.End
        do {
            let mount = try Fuse.Mount(at: mountpoint, mountOptions(name))
            // The connection ends with its last descriptor; that of the server is a duplicate.
            defer { close(mount.descriptor) }
            end = try serve(opened, mount, keeper, log) {
                ready?.ready()
                ServiceNotification.ready(status: "keyring \(name) is mounted on \(mountpoint)")
            }
        } catch {
            throw Messages.failure(for: error)
        }
        if case .failed(let number) = end {
            throw Failure("the connection to the kernel broke", errno: number)
        }
    }

    private func serve(
        _ opened: OpenKeyring, _ mount: Fuse.Mount, _ keeper: EpochKeeper, _ log: ServerLog,
        announce: @escaping @Sendable () -> Void
    ) throws -> Server.End {
        do {
            let fileSystem = SecretFS(opened.tree, options: fileSystemOptions)
            let server = try Server(serving: fileSystem, descriptor: mount.descriptor)
            fileSystem.connect(server.notifier)
            try server.start()
            try Caretaker(
                mountpoint: mount.path, keeper: keeper, log: log, announce: announce,
                abandon: { server.stop() }
            ).start()
            let end = server.wait()
            fileSystem.drain()
            return end
        } catch {
            try? mount.unmount(lazily: true)
            throw error
        }
    }

    private var fileSystemOptions: SecretFSOptions {
        var options = SecretFSOptions(ownerUID: getuid(), ownerGID: getgid())
        options.uid = request.options.uid
        options.gid = request.options.gid
        options.umask = request.options.umask ?? 0
        options.cacheMode = request.options.cache == .kernel ? .kernel : .none
        options.isReadOnly = request.options.isReadOnly
        options.mountpoint = request.mountpoint
        options.programVersion = Program.version
        return options
    }

    /// What the mount itself is made with. The kernel checks modes; devices and set-id bits have no effect unless asked.
    private func mountOptions(_ name: String) -> Fuse.Mount.Options {
        var options = Fuse.Mount.Options(source: name)
        options.allowsOthers = request.options.allowOther ?? (geteuid() == 0)
        if request.options.isReadOnly { options.flags |= UInt(MS_RDONLY) }
        let flags: [(word: String, flag: Int)] = [
            ("suid", Int(MS_NOSUID)), ("dev", Int(MS_NODEV)), ("exec", Int(MS_NOEXEC)),
            ("atime", Int(MS_NOATIME)),
        ]
        // The last word holds.
        for word in request.options.kernelOptions {
            for (name, flag) in flags {
                if word == name { options.flags &= ~UInt(flag) }
                if word == "no" + name { options.flags |= UInt(flag) }
            }
            if word == "sync" { options.flags |= UInt(MS_SYNCHRONOUS) }
            if word == "async" { options.flags &= ~UInt(MS_SYNCHRONOUS) }
            if word == "dirsync" { options.flags |= UInt(MS_DIRSYNC) }
        }
        return options
    }
}
