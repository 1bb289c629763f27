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

    func removeKey(_ label: String) throws {
        try workspace.done(
            [
                "pkcs11-tool", "--module", Self.module, "--token-label", "t", "--login", "--pin", Self.pin,
                "--delete-object", "--type", "secrkey", "--label", label,
            ], environment: environment)
    }

    /// As its administrator may: CKA_DECRYPT of its keys, in the files that they are.
    func allowOpening(_ isAllowed: Bool) throws {
        // The attribute's number, that it is a truth value, and the value.
        let attribute: [UInt8] = [0, 0, 0, 0, 0, 0, 1, 5, 0, 0, 0, 0, 0, 0, 0, 1]
        var count = 0
        for token in try names(workspace("tokens")) {
            for name in try names(workspace("tokens/" + token)) where name.hasSuffix(".object") {
                let path = workspace("tokens/\(token)/\(name)")
                var bytes = try contents(path)
                guard let found = bytes.firstRange(of: attribute), found.upperBound < bytes.count else { continue }
                bytes[found.upperBound] = isAllowed ? 1 : 0
                try put(bytes, path)
                count += 1
            }
        }
        guard count > 0 else { throw HarnessError("SoftHSM's files have another format") }
    }

    /// What stands behind `pkcs11:`.
    func uri(_ object: String = "prod", pin: String = "pin") -> String {
        "token=t;object=\(object)?module-path=\(Self.module)&pin-source=file:\(workspace(pin))"
    }
}
