import Glibc

/// The program that this package is about, with one of its two ways to cache.
final class Letterlock: Subject {
    private let program: String
    private let workspace: String
    private let cache: String
    private var serverProcess: pid_t?

    init(program: String, cache: String, workspace: String, log: String) {
        (self.program, self.workspace, self.cache) = (program, workspace, cache)
        super.init(
            name: cache == "kernel" ? "letterlock" : "letterlock cache=\(cache)", path: workspace + "/mount", log: log)
    }

    override var serverID: pid_t? { serverProcess }
    private var keyService: String { "keyfile:\(workspace)/key" }
    private var environment: [String: String] { ["LETTERLOCK_STATE_DIRECTORY": workspace + "/state"] }
    private var store: String { workspace + "/store" }

    override func create() throws(Failure) {
        for name in ["", "/mount"] { try check(mkdir(workspace + name, 0o700), workspace + name) }
        var key = [UInt8](repeating: 0, count: 32)
        try check(getentropy(&key, 32), "getentropy")
        try File.write(workspace + "/key", key)
        try run(["init", store, "--name", "bench", "--key-service", keyService])
    }

    override func remove() { File.removeTree(workspace) }

    override func mount() throws(Failure) {
        try run(["mount", store, path, "--key-service", keyService, "-o", "cache=\(cache)"])
        isMounted = true
        serverProcess = try serverFromStatus()
    }

    override func unmount() {
        guard isMounted else { return }
        isMounted = false
        if (try? run(["umount", path])) == nil { umount2(path, Int32(MNT_DETACH)) }
        serverProcess = nil
    }

    func rotate() throws(Failure) {
        try File.write(path + "/.letterlock/keys/rotate", Array("1\n".utf8), flags: O_WRONLY)
    }

    private func run(_ words: [String]) throws(Failure) {
        try Process.run([program] + words, environment: environment, log: log)
    }

    private func serverFromStatus() throws(Failure) -> pid_t {
        let status = String(decoding: try File.contents(path + "/.letterlock/status"), as: UTF8.self)
        guard let server = status.firstRange(of: "\"server\""),
            let field = status[server.upperBound...].firstRange(of: "\"pid\":"),
            let pid = pid_t(status[field.upperBound...].drop { !$0.isNumber }.prefix { $0.isNumber })
        else { throw Failure("status names no server") }
        return pid
    }
}
