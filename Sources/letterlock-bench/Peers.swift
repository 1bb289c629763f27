import Glibc

/// The do-nothing libfuse file system of this package: the least that FUSE costs.
final class Limit: Served {
    private let program: String
    private var options = ["--files", "10000", "--size", "4096"]

    init(program: String, path: String, log: String) {
        self.program = program
        super.init(name: "fuse-limit", path: path, log: log)
    }

    override var isReadOnly: Bool { true }
    override var serverCommand: [String] { [program, path, "-f"] + options }
    override func create() throws(Failure) { try check(mkdir(path, 0o700), path) }

    override func smallFile(_ index: Int, of count: Int) -> String { "\(path)/file\(index)" }
    override func smallDirectory(of count: Int) -> String { path }
    override func smallContents(_ index: Int, byteCount: Int) -> [UInt8] { [UInt8](repeating: 0x78, count: byteCount) }
    override var largeFile: String { path + "/file0" }
    override func largeContents(_ chunk: Int) -> [UInt8] { [UInt8](repeating: 0x78, count: LargeFile.chunkByteCount) }

    override func prepareSmall(_ count: Int, byteCount: Int) throws(Failure) {
        try remount(["--files", "\(count)", "--size", "\(byteCount)"])
    }
    override func prepareLarge(byteCount: Int) throws(Failure) {
        try remount(["--files", "1", "--size", "\(byteCount)"])
    }

    private func remount(_ options: [String]) throws(Failure) {
        guard options != self.options else { return }
        unmount()
        self.options = options
        try mount()
    }
}

final class GoCryptFS: Served {
    let workspace: String

    init(workspace: String, log: String) {
        self.workspace = workspace
        super.init(name: "gocryptfs", path: workspace + "/mount", log: log)
    }

    private var passFile: String { workspace + "/password" }
    override var serverCommand: [String] {
        ["gocryptfs", "-q", "-fg", "-nosyslog", "-passfile", passFile, workspace + "/store", path]
    }

    override func create() throws(Failure) {
        for name in ["", "/mount", "/store"] { try check(mkdir(workspace + name, 0o700), workspace + name) }
        try File.write(passFile, Array("a password of this measurement\n".utf8))
        try Process.run(["gocryptfs", "-q", "-init", "-passfile", passFile, workspace + "/store"], log: log)
    }
    override func remove() { File.removeTree(workspace) }
}

final class SecureFS: Served {
    private let workspace: String

    init(workspace: String, log: String) {
        self.workspace = workspace
        super.init(name: "securefs", path: workspace + "/mount", log: log)
    }

    override var serverCommand: [String] {
        ["securefs", "mount", "--keyfile", workspace + "/key", workspace + "/store", path]
    }

    override func create() throws(Failure) {
        for name in ["", "/mount", "/store"] { try check(mkdir(workspace + name, 0o700), workspace + name) }
        try File.write(workspace + "/key", Array("a key file of this measurement, long enough for all\n".utf8))
        // Times are stored, as the others store them.
        try Process.run(
            ["securefs", "create", "--store_time", "--keyfile", workspace + "/key", workspace + "/store"], log: log)
    }
    override func remove() { File.removeTree(workspace) }
}
