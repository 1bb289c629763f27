import Fuse
import Glibc

extension MountRequest {
    /// What the mount itself is made with. The kernel checks modes; devices and set-id bits have no effect unless asked.
    func mountOptions(_ name: String) -> Fuse.Mount.Options {
        var mount = Fuse.Mount.Options(source: name)
        mount.allowsOthers = options.allowOther ?? (geteuid() == 0)
        if options.isReadOnly { mount.flags |= UInt(MS_RDONLY) }
        let flags: [(word: String, flag: Int)] = [
            ("suid", Int(MS_NOSUID)), ("dev", Int(MS_NODEV)), ("exec", Int(MS_NOEXEC)),
            ("atime", Int(MS_NOATIME)),
        ]
        // The last word holds.
        for word in options.kernelOptions {
            for (name, flag) in flags {
                if word == name { mount.flags &= ~UInt(flag) }
                if word == "no" + name { mount.flags |= UInt(flag) }
            }
            if word == "sync" { mount.flags |= UInt(MS_SYNCHRONOUS) }
            if word == "async" { mount.flags &= ~UInt(MS_SYNCHRONOUS) }
            if word == "dirsync" { mount.flags |= UInt(MS_DIRSYNC) }
        }
        return mount
    }
}
