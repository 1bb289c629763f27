/// What goes wrong around a mount, as against within one (`Errno`). Numbers are errno's.
public enum FuseError: Error, Hashable, Sendable {
    /// /dev/fuse cannot be opened: ENOENT or ENODEV without the kernel's module, EPERM in a container without the device.
    case device(Int32)
    /// mount(2) refused.
    case mount(path: String, Int32)
    /// umount2(2) refused: EBUSY while files are open, EINVAL where nothing is mounted.
    case unmount(path: String, Int32)
    /// fusermount3 cannot be run (an errno) or ended with a failure (nil; it has said why on standard error).
    case helper(path: String, Int32?)
    /// libfuse would not make a session.
    case session(Int32)
    /// A thread cannot be started.
    case thread(Int32)
    /// The kept INIT request is not one, or libfuse refused it.
    case takeover
    /// The kernel does not send again what a dead server left (EINVAL: older than Linux 6.9).
    case resend(Int32)
}
