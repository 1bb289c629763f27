import Glibc

extension Mount {
    /// Has the kernel read `byteCount` bytes ahead of a sequential reader, instead of 128 KiB: a request each MiB.
    ///
    /// Call it when a server runs, for it waits for the server's first answer: INIT would lower the figure again.
    /// False where it cannot be set, as in a container with a read-only /sys; nothing but speed depends on it.
    @discardableResult
    public func raiseReadahead(to byteCount: Int = 1 << 20) -> Bool {
        var attributes = stat()
        guard stat(path, &attributes) == 0 else { return false }
        let device = UInt64(attributes.st_dev)
        let major = (device >> 8 & 0xfff) | (device >> 32 & 0xffff_f000)
        let minor = (device & 0xff) | (device >> 12 & 0xffff_ff00)
        let setting = Glibc.open(
            "/sys/class/bdi/\(major):\(minor)/read_ahead_kb", O_WRONLY | O_CLOEXEC | O_NOFOLLOW)
        guard setting >= 0 else { return false }
        defer { close(setting) }
        let text = Array(String(byteCount >> 10).utf8)
        return write(setting, text, text.count) == text.count
    }
}
