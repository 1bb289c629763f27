import Glibc

/// A FUSE mount: the connection to the kernel and the place it is seen at. Making it serves nothing yet.
public struct Mount: Sendable {
    public struct Options: Sendable {
        /// What /proc/mounts shows as the source.
        public var source: String
        /// The file system type is `fuse.` and this.
        public var subtype = "letterlock"
        /// MS_… flags.
        public var flags = UInt(MS_NOSUID) | UInt(MS_NODEV)
        /// Others than the mounting user may enter; of an ordinary user, /etc/fuse.conf must allow it.
        public var allowsOthers = true
        /// The kernel checks modes and owners.
        public var checksPermissions = true
        /// The longest READ in bytes; nil leaves it to the kernel.
        public var maxReadByteCount: Int?

        public init(source: String) { self.source = source }
    }

    /// The absolute path of the mount point.
    public let path: String
    /// The open /dev/fuse, close-on-exec. Owned by whoever made the mount: close it, or pass it on.
    public let descriptor: Int32

    /// Mounts at `path`, an existing directory: with mount(2) as root, through fusermount3 otherwise.
    ///
    /// The mount answers nobody until a `Server` runs on `descriptor`.
    public init(at path: String, _ options: Options) throws(FuseError) {
        self.path = path
        descriptor =
            geteuid() == 0
            ? try Self.mountDirectly(path, options) : try MountHelper.mount(path, options)
    }

    /// Unmounts what is mounted at `path`. With `lazily`, at once out of sight and in truth when the last file is closed.
    public static func unmount(_ path: String, lazily: Bool = false) throws(FuseError) {
        guard geteuid() == 0 else { return try MountHelper.unmount(path, lazily: lazily) }
        guard umount2(path, noFollow | (lazily ? Int32(MNT_DETACH) : 0)) == 0 else {
            throw .unmount(path: path, errno)
        }
    }

    public func unmount(lazily: Bool = false) throws(FuseError) {
        try Self.unmount(path, lazily: lazily)
    }

    /// UMOUNT_NOFOLLOW.
    private static let noFollow: Int32 = 8

    private static func mountDirectly(_ path: String, _ options: Options) throws(FuseError) -> Int32 {
        var attributes = stat()
        guard stat(path, &attributes) == 0 else { throw .mount(path: path, errno) }
        let device = open("/dev/fuse", O_RDWR | O_CLOEXEC)
        guard device >= 0 else { throw .device(errno) }
        var data = "fd=\(device),rootmode=\(String(attributes.st_mode & S_IFMT, radix: 8))"
        data += ",user_id=\(getuid()),group_id=\(getgid())"
        if options.checksPermissions { data += ",default_permissions" }
        if options.allowsOthers { data += ",allow_other" }
        if let count = options.maxReadByteCount { data += ",max_read=\(count)" }
        let result = data.withCString {
            mount(options.source, path, "fuse.\(options.subtype)", options.flags, $0)
        }
        guard result == 0 else {
            let number = errno
            close(device)
            throw number == ENODEV ? .device(number) : .mount(path: path, number)
        }
        return device
    }
}
