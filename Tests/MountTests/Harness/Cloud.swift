import Glibc

/// AWS' KMS and IAM of one test, on a port of their own, ended with their owner: played by one of two programs, each of which does
/// what the other does not.
final class Cloud {
    enum Player: String, CaseIterable {
        /// Seals for real, and verifies signatures and policies; knows no state of a key.
        case moto = "moto_server"
        /// Knows the states; believes every signature.
        case ministack

        var program: String { "\(TestTools.directory)/bin/\(rawValue)" }
    }

    let workspace: Workspace
    let port: Int
    /// The ARN of the key that `alias/prod` means.
    private(set) var key = ""
    private var server: Child?
    private var administrator = (id: "AKIATEST", secret: "secret")
    private(set) var user = (id: "AKIAUSER", secret: "not-verified")

    static let isInstalled = Player.allCases.allSatisfy { access($0.program, X_OK) == 0 }
    static let isTested = isInstalled || TestTools.mustBeThere
    static let installing: StaticString = "moto and MiniStack are not installed: run .ci/install-packages test"

    /// - Parameter policy: What the user may do; nil for everything.
    init(_ workspace: Workspace, _ player: Player, policy: String? = nil) throws {
        self.workspace = workspace
        port = try SilentPort.free()
        switch player {
        case .moto: server = try workspace.start([player.program, "-H", "127.0.0.1", "-p", String(port)])
        case .ministack:
            server = try workspace.start(
                [player.program],
                environment: [
                    "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": String(port), "SERVICES": "kms", "IOT_MTLS_ENABLED": "0",
                ])
        }
        guard eventually({ (try? self.ask("ListKeys", "{}")) != nil }) else {
            throw HarnessError("\(player.rawValue) does not start: \(try server!.wait(seconds: 1).complaint)")
        }
        key = try makeKey(alias: "alias/prod")
        guard player == .moto else { return }
        let everything = #"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}"#
        let made = try makeUser("administrator", everything)
        user = try makeUser("letterlock", policy ?? everything)
        administrator = made
        // From now on signatures are verified.
        try letThrough(0)
    }

    /// Only so many requests from now on are not verified.
    func letThrough(_ count: Int) throws {
        try workspace.done([
            "curl", "--silent", "--fail", "--header", "Content-Type: text/plain", "--data", String(count),
            "\(address)/moto-api/reset-auth",
        ])
    }

    var address: String { "http://127.0.0.1:\(port)" }

    /// What Letterlock is told besides its key.
    var environment: [String: String] {
        [
            "AWS_ENDPOINT_URL_KMS": address, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": user.id,
            "AWS_SECRET_ACCESS_KEY": user.secret, "AWS_EC2_METADATA_DISABLED": "true",
        ]
    }

    func end() { server = nil }

    // MARK: Administration

    /// A request to KMS; its answer's body.
    @discardableResult
    func ask(_ operation: String, _ body: String) throws -> String {
        try request(
            "kms",
            [
                "--header", "Content-Type: application/x-amz-json-1.1", "--header",
                "X-Amz-Target: TrentService.\(operation)",
            ],
            body)
    }

    func makeKey(alias: String) throws -> String {
        let made = try ask("CreateKey", "{}")
        let arn = try Self.piece(of: made, after: #""Arn": ""#)
        try ask("CreateAlias", #"{"AliasName":"\#(alias)","TargetKeyId":"\#(arn)"}"#)
        return arn
    }

    private func makeUser(_ name: String, _ policy: String) throws -> (id: String, secret: String) {
        func iam(_ action: String, _ more: [String] = []) throws -> String {
            try request(
                "iam", more.flatMap { ["--data-urlencode", $0] }, "Action=\(action)&UserName=\(name)&Version=2010-05-08"
            )
        }
        _ = try iam("CreateUser")
        _ = try iam("PutUserPolicy", ["PolicyName=letterlock", "PolicyDocument=\(policy)"])
        let made = try iam("CreateAccessKey")
        return (
            try Self.piece(of: made, after: "<AccessKeyId>", until: "<"),
            try Self.piece(of: made, after: "<SecretAccessKey>", until: "<")
        )
    }

    /// A role that anybody may assume; its ARN.
    func makeRole(_ name: String, _ policy: String) throws -> String {
        let trust =
            #"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"sts:AssumeRoleWithWebIdentity","Principal":"*"}]}"#
        let form = ["--data-urlencode", "AssumeRolePolicyDocument=\(trust)"]
        let made = try request("iam", form, "Action=CreateRole&RoleName=\(name)&Version=2010-05-08")
        _ = try request(
            "iam", ["--data-urlencode", "PolicyName=letterlock", "--data-urlencode", "PolicyDocument=\(policy)"],
            "Action=PutRolePolicy&RoleName=\(name)&Version=2010-05-08")
        return try Self.piece(of: made, after: "<Arn>", until: "<")
    }

    private func request(_ service: String, _ more: [String], _ body: String) throws -> String {
        try workspace.done(
            [
                "curl", "--silent", "--show-error", "--fail-with-body", "--max-time", "10", "--aws-sigv4",
                "aws:amz:us-east-1:\(service)", "--user", "\(administrator.id):\(administrator.secret)", "--data", body,
            ] + more + [address + "/"]
        ).text
    }

    private static func piece(of text: String, after: String, until: Character = "\"") throws -> String {
        guard let start = text.firstRange(of: after)?.upperBound else { throw HarnessError("no \(after) in \(text)") }
        return String(text[start...].prefix { $0 != until })
    }
}
