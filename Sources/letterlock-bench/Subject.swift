import Glibc

/// A file system that is measured. Subclasses know how to mount theirs.
class Subject {
    let name: String
    /// Where its files are.
    let path: String
    let log: String
    fileprivate(set) var server: Process?
    var isMounted = false
    /// What workloads have put there already.
    var prepared: Set<String> = []

    init(name: String, path: String, log: String) {
        (self.name, self.path, self.log) = (name, path, log)
    }

    /// Nothing can be written to it: it measures what reading costs at least.
    var isReadOnly: Bool { false }
    /// Another way to run what is measured already: takes part in few lines.
    var isVariant: Bool { false }
    /// Cold is a state that it has.
    var hasCold: Bool { true }
    /// A mount of its own, whose time can be taken.
    var hasServer: Bool { true }
    /// Everything that has to be pinned with the client.
    var serverID: pid_t? { server?.pid }

    /// Makes the place ready that `mount` mounts.
    func create() throws(Failure) {}
    func mount() throws(Failure) {}
    func unmount() {}
    /// Takes away what `create` made.
    func remove() { File.removeTree(path) }

    /// `file` small file number `index` of `count`.
    func smallFile(_ index: Int, of count: Int) -> String { "\(path)/small-\(count)/file\(index)" }
    func smallDirectory(of count: Int) -> String { "\(path)/small-\(count)" }
    func smallContents(_ index: Int, byteCount: Int) -> [UInt8] {
        var bytes = [UInt8](repeating: UInt8(truncatingIfNeeded: index &* 31 &+ 7), count: byteCount)
        withUnsafeBytes(of: UInt64(index)) { for offset in 0..<min(8, byteCount) { bytes[offset] = $0[offset] } }
        return bytes
    }
    var largeFile: String { path + "/large" }

    func prepareSmall(_ count: Int, byteCount: Int) throws(Failure) {
        guard prepared.insert("small-\(count)").inserted else { return }
        try check(mkdir(smallDirectory(of: count), 0o700), smallDirectory(of: count))
        for index in 0..<count {
            try File.write(smallFile(index, of: count), smallContents(index, byteCount: byteCount))
        }
    }

    func prepareLarge(byteCount: Int) throws(Failure) {
        guard prepared.insert("large").inserted else { return }
        _ = try LargeFile.write(largeFile, byteCount: byteCount, flags: O_CREAT | O_TRUNC)
    }
    func largeContents(_ chunk: Int) -> [UInt8] { LargeFile.contents(chunk) }

    /// Forgets everything that is cached, its server's memory too.
    func makeCold() throws(Failure) {
        unmount()
        sync()
        let descriptor = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC)
        if descriptor >= 0 {
            _ = Glibc.write(descriptor, "3\n", 2)
            close(descriptor)
        }
        try mount()
    }
}

/// A plain directory: ext4, tmpfs, or whatever is mounted there.
final class Directory: Subject {
    private let isMemory: Bool

    init(name: String, path: String, isMemory: Bool = false, log: String) {
        self.isMemory = isMemory
        super.init(name: name, path: path, log: log)
    }

    override var hasCold: Bool { !isMemory }
    override var hasServer: Bool { false }
    override func create() throws(Failure) { try check(mkdir(path, 0o700), path) }
}

/// A FUSE file system whose server runs in the foreground as a process of ours.
class Served: Subject {
    private var beneath: dev_t = 0

    /// The command line of a server that stays in the foreground.
    var serverCommand: [String] { [] }

    override func mount() throws(Failure) {
        beneath = File.device(path) ?? 0
        let process = try Process(serverCommand, log: log)
        server = process
        let patience = now() + 60
        while File.device(path) == beneath {
            guard !process.hasEnded, now() < patience else { throw Failure("\(name) did not mount, see \(log)") }
            usleep(200)
        }
        isMounted = true
    }

    override func unmount() {
        guard isMounted else { return }
        isMounted = false
        for attempt in 0..<100 {
            if umount2(path, 0) == 0 { break }
            if geteuid() != 0 { _ = try? Process(["fusermount3", "-u", path], log: log).wait() }
            if errno != EBUSY || attempt == 99 { umount2(path, Int32(MNT_DETACH)) }
            usleep(50_000)
        }
        server?.end()
        server = nil
    }
}
