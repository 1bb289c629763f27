import Glibc
import KeyServices
import Storage

/// A mount as it was asked for: checks what can be checked without the key, then serves it, here or in the background.
struct MountRequest {
    var store: String
    var mountpoint: String
    var options = MountOptions()
    var keys = KeySource()
    var staysInForeground = false
    /// systemd keeps the mount while the service is restarted.
    var usesDescriptorStore = false
    /// The pipe to the command that started this process as a server in the background.
    var ready: ReadyPipe?
    /// `mount -a` shall find a mounted keyring mounted.
    var toleratesSameMount = false

    init(store: String, mountpoint: String) {
        self.store = store
        self.mountpoint = mountpoint
    }

    func run() throws(Failure) {
        if let ready {
            do {
                try serve()
            } catch {
                ready.fail(error)
                throw error
            }
        } else {
            try serve()
        }
    }

    private func serve() throws(Failure) {
        var request = self
        request.keys.take(options)
        if options.lease != nil, try request.keys.takesTyped() {
            throw Failure(
                "a lease needs a key service that can be asked again", hint: "nobody is there to type a passphrase",
                code: .usage)
        }
        if options.lease != nil, options.unlockCache != nil {
            throw Failure(
                "a lease and an unlock cache exclude each other",
                hint: "a lease is there so that the key service is asked", code: .usage)
        }
        EpochMemory.pinDirectory()
        for name in RemoteKeyServices.fileVariables { Paths.pinVariable(name) }
        request.store = try StoreDescription.directory(store)
        request.decideOnHooks()
        let descriptors = DescriptorStore(isWanted: usesDescriptorStore)
        if let kept = descriptors.takeUp(), let place = placeOfKept(kept) {
            // Nobody serves it yet: whoever looks at the mount point waits, so this process must not.
            request.mountpoint = place
            return try Guardian(request, descriptors, kept).run()
        }
        request.mountpoint = try Self.mountDirectory(mountpoint)
        try Self.checkFuse()
        if request.isMountedAlready() { return }
        try request.checkFree()
        guard staysInForeground else { return try request.startGuardian() }
        // Whoever asked for a server in the background has asked for the passphrase as well.
        let passphrase =
            ready != nil
            ? keys.passphraseDescriptor
            : request.isUnlockCached ? nil : try request.keys.passphrasePipe(for: request.store)
        try Guardian(request, descriptors, passphrase: passphrase).run()
    }

    /// Hooks run with the rights of who mounts, so they have to be his own: a store that belongs to somebody else, or a
    /// control directory that does, runs none unless it is asked for.
    private mutating func decideOnHooks() {
        guard options.runsHooks == nil else { return }
        var attributes = stat()
        let owner = stat(store, &attributes) == 0 ? attributes.st_uid : .max
        options.runsHooks = owner == geteuid() && (options.uid ?? geteuid()) == geteuid()
    }

    /// Where the mount is that systemd has kept for this service; nil if somebody has unmounted it meanwhile.
    private func placeOfKept(_ kept: DescriptorStore.Kept) -> String? {
        let place = Paths.resolvedParent(mountpoint)
        if MountTable().entry(at: place)?.isLetterlock == true { return place }
        kept.close()
        return nil
    }

    // MARK: - Before anything is opened

    private static func mountDirectory(_ path: String) throws(Failure) -> String {
        if isDead(path) { try clearDeadMount(path) }
        var attributes = stat()
        let directory: String
        switch Paths.resolved(path) {
        case .success(let path): directory = path
        case .failure(let number) where number.value == ENOENT:
            throw Failure("mount point \(path) does not exist", hint: "mkdir -p \(path)")
        case .failure(let number): throw Failure("mount point \(path)", errno: number.value)
        }
        guard stat(directory, &attributes) == 0 else { throw Failure("mount point \(path)", errno: errno) }
        guard attributes.st_mode & S_IFMT == S_IFDIR else {
            throw Failure("mount point \(path) is not a directory", hint: "name one; what is in it is hidden meanwhile")
        }
        return directory
    }

    /// True for a mount whose server is gone.
    private static func isDead(_ path: String) -> Bool {
        var attributes = stat()
        guard stat(path, &attributes) == 0 else { return errno == ENOTCONN }
        // The kernel may know the attributes of its root yet; how full it is, it asks for each time.
        guard MountTable().entry(at: Paths.resolvedParent(path))?.isLetterlock == true else { return false }
        var statistics = statvfs()
        return statvfs(path, &statistics) != 0 && errno == ENOTCONN
    }

    /// Takes away what a guardian that was killed has left behind.
    private static func clearDeadMount(_ path: String) throws(Failure) {
        let place = Paths.resolvedParent(path)
        guard MountTable().entry(at: place)?.isLetterlock == true else {
            throw Failure(
                "\(path): the server of what is mounted here is gone", hint: "unmount it first", code: .busy)
        }
        try Unmounting.remove(place, detaches: true)
        Output.warn("\(path): the server of an earlier mount was gone; that mount was taken away")
    }

    private static func checkFuse() throws(Failure) {
        let device = open("/dev/fuse", O_RDWR | O_CLOEXEC)
        let number = errno
        guard device < 0 else {
            close(device)
            return
        }
        switch number {
        case ENOENT, ENODEV, ENXIO:
            throw Failure(
                "fuse is missing: /dev/fuse: \(SystemError.text(number))",
                hint:
                    "load the kernel's module with 'modprobe fuse', and give a container the device /dev/fuse"
            )
        // fusermount3 opens it as who runs it.
        case EACCES, EPERM:
            throw Failure(
                "/dev/fuse", errno: number,
                hint: "mount as root, or let others use it, as most systems do: chmod 666 /dev/fuse")
        default: return
        }
    }

    /// True if this very store is mounted on this very place, and that is fine.
    private func isMountedAlready() -> Bool {
        guard toleratesSameMount, let holder = StoreHolder(of: store), holder.mountpoint == mountpoint else {
            return false
        }
        return MountTable().entry(at: mountpoint)?.isLetterlock == true
    }

    private func checkFree() throws(Failure) {
        if Paths.contains(store, mountpoint) {
            throw Failure("the mount point \(mountpoint) lies in the store", hint: "mount it elsewhere")
        }
        if Paths.contains(mountpoint, store) {
            throw Failure(
                "a mount on \(mountpoint) would hide the store \(store)", hint: "mount it elsewhere")
        }
        if let log = options.auditLog, log != "none", Paths.contains(mountpoint, Paths.resolvedParent(log)) {
            throw Failure("the audit log \(log) would lie on the mount that it is about", hint: "put it elsewhere")
        }
        if let holder = StoreHolder.staying(in: store) {
            throw Messages.failure(.busy(holder: holder.text), store: store)
        }
        if let entry = MountTable().entry(at: mountpoint), entry.isLetterlock {
            throw Failure(
                "keyring '\(entry.source)' is mounted on \(mountpoint) already",
                hint: "run 'letterlock umount \(mountpoint)' first", code: .busy)
        }
    }

    // MARK: - In the background

    private func startGuardian() throws(Failure) {
        let answer = try Spawning.pipe()
        defer { close(answer.reading) }
        // The passphrase is asked for here, where the terminal is, and goes through a pipe: its buffers are the
        // kernel's and never reach swap.
        let passphrase = isUnlockCached ? nil : try keys.passphrasePipe(for: store)
        var spawning = Spawning(
            Spawning.ownProgram, try guardianArguments(readsPassphrase: passphrase != nil))
        spawning.isDetached = true
        spawning.descriptors = [(answer.writing, Self.readyDescriptor)]
        if let passphrase { spawning.descriptors.append((passphrase, Self.passphraseDescriptor)) }
        spawning.closesFrom = passphrase == nil ? Self.passphraseDescriptor : Self.passphraseDescriptor + 1
        let process = try spawning.start()
        close(answer.writing)
        if let passphrase { close(passphrase) }
        do {
            try ReadyPipe.await(answer.reading)
        } catch {
            // The guardian ends by itself; its end is awaited so that the store is free when this command returns.
            waitpid(process, nil, 0)
            throw error
        }
        var statistics = statvfs()
        guard statvfs(mountpoint, &statistics) == 0 else {
            throw Failure("the mount on \(mountpoint) does not answer", errno: errno)
        }
    }

    /// Descriptor numbers that a guardian in the background finds its two pipes at.
    private static let readyDescriptor: Int32 = 3
    private static let passphraseDescriptor: Int32 = 4

    private func guardianArguments(readsPassphrase: Bool) throws(Failure) -> [String] {
        var arguments = ["mount", "-f", "--ready-fd", String(Self.readyDescriptor)]
        arguments += ["--key-service", try keys.absoluteSpec()]
        if readsPassphrase { arguments += ["--passphrase-fd", String(Self.passphraseDescriptor)] }
        for option in options.texts { arguments += ["-o", option] }
        return arguments + ["--", store, mountpoint]
    }
}
