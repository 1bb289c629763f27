import Fuse
import Glibc
import SecretFS
import Testing

struct ControlDirectoryTests {
    @Test(
        "periods are seconds, or have a unit",
        arguments: [("0", "0\n"), ("3600", "3600\n"), ("720h\n", "2592000\n"), ("30d", "2592000\n"), ("90m", "5400\n")])
    func periods(command: String, reads: String) throws {
        let mounted = try MountedTree()
        try mounted.command(command, "keys/auto_rotate_period")
        #expect(try mounted.value(try mounted.control("keys/auto_rotate_period")) == reads)
        #expect((try mounted.value(try mounted.control("keys/next_rotation")) == "never\n") == (reads == "0\n"))
    }

    @Test(
        "commands that make no sense are refused, each with its errno",
        arguments: [
            ("keys/auto_rotate_period", "3599", ERANGE), ("keys/auto_rotate_period", "1w", EINVAL),
            ("keys/auto_rotate_period", "h", EINVAL), ("keys/auto_rotate_period", "-1", EINVAL),
            ("keys/auto_rotate_period", "99999999999", ERANGE), ("keys/min_decryption_version", "2", ERANGE),
            ("keys/min_decryption_version", "0", ERANGE), ("keys/min_encryption_version", "2", ERANGE),
            ("keys/deletion_allowed", "2", EINVAL), ("keys/1/destroy", "7", EBUSY), ("keys/1/destroy", "6", ERANGE),
            ("keys/1/destroy", "7 please", EINVAL), ("keys/1/cancel_destroy", "1", EPERM),
            ("keys/1/cancel_destroy", "yes", EINVAL), ("keys/1/state", "disable", EBUSY),
            ("keys/1/state", "compromise", EINVAL), ("keys/1/state", "\n", EINVAL), ("keys/primary", "2", ENOENT),
            ("keys/rotate", "if-latest=2", ESTALE), ("keys/rotate", String(repeating: "1", count: 4097), E2BIG),
            ("status", "1", EACCES), ("keys/list", "1", EACCES),
        ])
    func refusals(path: String, command: String, errno: Int32) throws {
        let mounted = try MountedTree()
        #expect(failure { () throws(Errno) in try mounted.command(command, path) } == errno)
        #expect(try mounted.value(try mounted.control("keys/rotate")) == "1\n")
    }

    @Test("one that reads a control file reads one value, however often it reads")
    func oneValue() throws {
        let mounted = try MountedTree()
        let node = try mounted.control("keys/rotate")
        let opened = try mounted.fileSystem.open(node, flags: O_RDONLY, mounted.caller)
        try mounted.command("1", "keys/rotate")
        #expect(try mounted.read(node, opened.handle) == "1\n")
        #expect(try mounted.value(node) == "2\n")
    }

    @Test("its name is taken in the root, and free elsewhere")
    func theName() throws {
        let mounted = try MountedTree()
        let (fileSystem, caller) = (mounted.fileSystem, mounted.caller)
        let directory = try mounted.named("d") { name throws(Errno) in
            try fileSystem.makeDirectory(name, in: 1, mode: 0o755, caller).node
        }
        try mounted.named(".letterlock") { name throws(Errno) in
            #expect(
                failure { () throws(Errno) in
                    _ = try fileSystem.makeNode(name, in: 1, mode: S_IFREG | 0o644, device: 0, caller)
                } == EEXIST)
            _ = try fileSystem.makeNode(name, in: directory, mode: S_IFREG | 0o644, device: 0, caller)
            let control = try fileSystem.lookup(name, in: 1, caller).node
            #expect(
                failure { () throws(Errno) in
                    _ = try fileSystem.makeNode(name, in: control, mode: S_IFREG | 0o644, device: 0, caller)
                } == EPERM)
        }
    }
}
