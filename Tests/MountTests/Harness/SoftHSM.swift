import Glibc

/// A token in software of one test, with an AES key that cannot leave it.
final class SoftHSM {
    let workspace: Workspace
    static let module = "/usr/lib/softhsm/libsofthsm2.so"
    private static let pin = "1234-of-the-test"

    /// Its configuration is the process's own: one at a time.
    init(_ workspace: Workspace) throws {
        self.workspace = workspace
        try check(mkdir(workspace("tokens"), 0o700))
        try put("directories.tokendir = \(workspace("tokens"))\nlog.level = ERROR\n", workspace("softhsm.conf"))
        setenv("SOFTHSM2_CONF", workspace("softhsm.conf"), 1)
        try put(Self.pin + "\n", workspace("pin"), mode: 0o600)
        try workspace.done(
            [
                "softhsm2-util", "--init-token", "--free", "--label", "t", "--pin", Self.pin, "--so-pin",
                "so-" + Self.pin,
            ],
            environment: environment)
        try makeKey("prod", "01")
    }

    deinit { unsetenv("SOFTHSM2_CONF") }

    var environment: [String: String] { ["SOFTHSM2_CONF": workspace("softhsm.conf")] }

    func makeKey(_ label: String, _ id: String, _ more: [String] = ["--sensitive", "--private"]) throws {
        try workspace.done(
            [
                "pkcs11-tool", "--module", Self.module, "--token-label", "t", "--login", "--pin", Self.pin, "--keygen",
                "--key-type", "AES:32", "--label", label, "--id", id,
            ] + more, environment: environment)
    }

    /// What stands behind `pkcs11:`.
    func uri(_ object: String = "prod", pin: String = "pin") -> String {
        "token=t;object=\(object)?module-path=\(Self.module)&pin-source=file:\(workspace(pin))"
    }
}
