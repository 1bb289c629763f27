import Glibc
import Testing

/// Keyrings that AWS KMS opens, played by moto (seals, verifies signatures and policies) and MiniStack (a key's states).
@Suite("AWS KMS", .enabled(if: !Mounted.isPlain), .enabled(if: Cloud.isTested, "\(Cloud.installing)"))
struct AWSTests {
    let work: Workspace

    init() throws { work = try Workspace() }

    private func run(_ words: [String], _ environment: [String: String]) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: environment)
    }

    private func expect(
        _ outcome: Outcome, _ status: Int32, _ words: String = "", at place: SourceLocation = #_sourceLocation
    ) {
        #expect(outcome.status == status, "\(outcome.complaint)", sourceLocation: place)
        #expect(outcome.complaint.contains(words), "\(outcome.complaint)", sourceLocation: place)
    }

    @Test func itOpensAKeyringAndIsNotAskedForFiles() throws {
        let cloud = try Cloud(work, .moto)
        let key = ["--key-service", "awskms:alias/prod"]
        expect(try run(["init", work.store, "--name", "prod"] + key, cloud.environment), 0)
        try #require(try run(["mount", work.store, work("mnt")] + key, cloud.environment).status == 0)
        defer { _ = try? run(["umount", work("mnt")], [:]) }
        #expect(try run(["unlock-with", "list", work("mnt")], [:]).text.contains("awskms:" + cloud.key))
        try put("value", work("mnt/secret"))
        cloud.end()
        try put("newer", work("mnt/secret"))
        #expect(try text(work("mnt/secret")) == "newer")
        #expect(try run(["lock", work("mnt")], [:]).status == 0)
        expect(try run(["unlock", work("mnt")], [:]), 4)
        expectErrno(EHOSTUNREACH) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
    }

    /// The policy of the example, for the key and the keyring of this test.
    private func policy(_ key: String) throws -> String {
        try text(ExampleTests.examples + "/awskms/policy.json")
            .replacing("arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab", with: key)
    }

    @Test func theExamplesPolicySufficesAndSignaturesCount() throws {
        // moto looks at actions, of which it calls two by another name; keys and conditions of a policy are AWS' to look at.
        let cloud = try Cloud(
            work, .moto, policy: try policy("*").replacing("kms:ReEncryptFrom", with: "kms:ReEncrypt"))
        let environment = cloud.environment
        let key = ["--key-service", "awskms:alias/prod"]
        expect(try run(["init", work.store, "--name", "prod"] + key, environment), 0)
        let verify = ["verify", work.store]
        for name in ["awskms:alias/prod", "awskms:" + cloud.key] {
            expect(try run(verify + ["--key-service", name], environment), 0)
            expect(try run(["unlock-with", "renew", work.store, name], environment), 0)
        }
        expect(try run(verify + key, environment), 0)
        // Who is somebody else, or may do nothing.
        var wrong = environment
        wrong["AWS_SECRET_ACCESS_KEY"] = "wrong"
        expect(try run(verify + key, wrong), 3, "credentials are wrong")
        wrong["AWS_ACCESS_KEY_ID"] = "AKIANOBODY"
        expect(try run(verify + key, wrong), 3)
        wrong["AWS_ACCESS_KEY_ID"] = nil
        wrong["AWS_SECRET_ACCESS_KEY"] = nil
        expect(try run(verify + key, wrong), 4, "no credentials")
        // Credentials in the usual file.
        try check(mkdir(work("home/.aws"), 0o700))
        try put(
            "[x]\naws_access_key_id = \(cloud.user.id)\naws_secret_access_key = \(cloud.user.secret)\n",
            work("home/.aws/credentials"), mode: 0o600)
        wrong["AWS_PROFILE"] = "x"
        expect(try run(verify + key, wrong), 0)
        // One key, one environment.
        expect(try run(["init", work("other"), "--key-service", "awskms:" + cloud.key], environment), 1, "--shared")
        expect(try run(["init", work("other"), "--name", "prod", "--shared"] + key, environment), 0)
        expect(try run(verify + ["--key-service", "awskms:alias/none"], environment), 4, "no such key")
        expect(try run(["init", work("new"), "--key-service", "awskms:a b"], environment), 2, "no key of AWS KMS")
    }

    /// As Kubernetes has it. moto wants a signature from STS's callers as well, which AWS does not: so many requests are let through
    /// without.
    @Test func aWebIdentityOpensAKeyring() throws {
        let cloud = try Cloud(work, .moto)
        let role = try cloud.makeRole("pod", try policy("*").replacing("kms:ReEncryptFrom", with: "kms:ReEncrypt"))
        let idle = try cloud.makeRole("idle", policy("*").replacing("kms:", with: "sqs:"))
        try put("header.payload.signature\n", work("token"), mode: 0o644)
        var environment = [
            "AWS_ENDPOINT_URL": cloud.address, "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_WEB_IDENTITY_TOKEN_FILE": "token", "AWS_ROLE_ARN": role,
        ]
        let key = ["--key-service", "awskms:" + cloud.key]
        expect(try run(["init", work.store, "--key-service", "awskms:" + cloud.key], cloud.environment), 0)
        try cloud.letThrough(1)
        expect(try run(["verify", work.store] + key, environment), 0)
        // A mount has another working directory.
        try cloud.letThrough(2)
        try #require(try run(["mount", work.store, work("mnt")] + key, environment).status == 0)
        defer { _ = try? run(["umount", work("mnt")], [:]) }
        try put("value", work("mnt/secret"))
        expect(try run(["lock", work("mnt")], [:]), 0)
        try cloud.letThrough(1)
        expect(try run(["unlock", work("mnt")], [:]), 0)
        #expect(try text(work("mnt/secret")) == "value")
        expect(try run(["umount", work("mnt")], [:]), 0)
        environment["AWS_ROLE_ARN"] = idle
        try cloud.letThrough(1)
        expect(try run(["verify", work.store] + key, environment), 3, "may not use the key")
        environment["AWS_WEB_IDENTITY_TOKEN_FILE"] = "nowhere"
        expect(try run(["verify", work.store] + key, environment), 4, "nowhere")
    }

    @Test func aKeyThatIsDisabledOrWaitsForItsDeletionOpensNothing() throws {
        let cloud = try Cloud(work, .ministack)
        let key = ["--key-service", "awskms:" + cloud.key]
        expect(try run(["init", work.store] + key, cloud.environment), 0)
        let verify = ["verify", work.store] + key
        expect(try run(verify, cloud.environment), 0)
        try cloud.ask("DisableKey", #"{"KeyId":"\#(cloud.key)"}"#)
        expect(try run(verify, cloud.environment), 4, "disabled")
        try cloud.ask("EnableKey", #"{"KeyId":"\#(cloud.key)"}"#)
        expect(try run(verify, cloud.environment), 0)
        try cloud.ask("ScheduleKeyDeletion", #"{"KeyId":"\#(cloud.key)","PendingWindowInDays":7}"#)
        expect(try run(verify, cloud.environment), 4, "deletion")
    }
}
