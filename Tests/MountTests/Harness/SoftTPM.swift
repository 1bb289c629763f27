import Glibc

/// A TPM in software of one test, on two ports of its own, ended with its owner.
final class SoftTPM {
    let workspace: Workspace
    private let name: String
    private(set) var port = 0
    private var server: Child?

    /// - Parameter name: Of its state's directory: another one is another TPM.
    init(_ workspace: Workspace, _ name: String = "tpm") throws {
        self.workspace = workspace
        self.name = name
        try check(mkdir(workspace(name), 0o700))
        try start()
    }

    var tcti: String { "swtpm:host=127.0.0.1,port=\(port)" }
    var environment: [String: String] { ["TPM2TOOLS_TCTI": tcti] }

    /// Its second port is the one behind the first, which somebody else may have.
    func start() throws {
        for _ in 0..<10 {
            port = try SilentPort.free()
            let child = try workspace.start([
                "swtpm", "socket", "--tpm2", "--tpmstate", "dir=\(workspace(name))", "--server",
                "type=tcp,bindaddr=127.0.0.1,port=\(port)", "--ctrl", "type=tcp,bindaddr=127.0.0.1,port=\(port + 1)",
                "--flags", "not-need-init,startup-clear",
            ])
            let answers = eventually { child.hasEnded || (try? self.ask("tpm2_getrandom", "--hex", "4").status) == 0 }
            guard answers, !child.hasEnded else { continue }
            server = child
            return
        }
        throw HarnessError("swtpm does not start")
    }

    /// As when the machine is switched off.
    func end() { server = nil }

    /// As one that is busy with something else.
    func pause(_ isPaused: Bool) { if let server { kill(server.pid, isPaused ? SIGSTOP : SIGCONT) } }

    @discardableResult
    func ask(_ words: String...) throws -> Outcome { try workspace.run(words, environment: environment) }

    /// As a firmware may, or somebody who has the platform's password.
    func enableOwnerHierarchy(_ isEnabled: Bool) throws {
        try workspace.done(
            ["tpm2_hierarchycontrol", "-C", "p", "shEnable", isEnabled ? "set" : "clear"], environment: environment)
    }

    /// Has a PCR count something that was not there before.
    func extend(_ pcr: Int) throws {
        try workspace.done(
            ["tpm2_pcrextend", "\(pcr):sha256=" + String(repeating: "ab", count: 32)], environment: environment)
    }
}
