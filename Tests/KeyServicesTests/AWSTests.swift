import Glibc
import Keyring
import Sodium
import Synchronization
import Testing

@testable import KeyServices

/// What is asked of AWS KMS, what it is signed with, and what is made of answers.
@Suite struct AWSTests {
    private let context = SlotContext(store: .random(), keyring: "k\"\\é", purpose: .slotKey)
    private static let arn = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"

    private func settings(_ variables: [String: String]) -> AWSSettings {
        var settings = AWSSettings(variables: variables)
        settings.patienceSeconds = 2
        return settings
    }

    private func service(_ server: FakeServer, _ more: [String: String] = [:]) throws -> KMSService {
        let variables = [
            "AWS_ENDPOINT_URL": "http://127.0.0.1:\(server.port)", "AWS_ACCESS_KEY_ID": "AKID",
            "AWS_SECRET_ACCESS_KEY": "top/secret", "AWS_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
        ]
        return try KMSService("alias/prod", settings: settings(variables.merging(more) { $1 }))
    }

    private func answer(_ body: String, _ status: String = "200 OK") -> String {
        "HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
    }

    private static let sealed = #"{"CiphertextBlob":"AAAA","KeyId":"\#(arn)"}"#

    // MARK: Names

    @Test(arguments: [
        "alias/prod", "alias/aws/ebs", arn, "1234abcd-12ab-34cd-56ef-1234567890ab", "mrk-1234",
        "arn:aws-us-gov:kms:us-gov-west-1:1:alias/a",
    ])
    func `a key's name is read`(text: String) throws {
        let name = try KMSKeyName(text)
        #expect(name.text == text && name.isKeyARN == (text == Self.arn))
    }

    @Test(arguments: [
        "", "alias/", "a/b", "arn:aws:kms:us-east-1:1:key/", "arn:aws:s3:us-east-1:1:key/a",
        "arn:aws:kms:us.evil:1:key/a",
        "arn:aws:kms::1:key/a", "a b", "a\"b", "alias/a\n", "a:b", "arn:aws:kms:us-east-1:1:key/a:b",
    ])
    func `what is no name is refused`(text: String) { #expect(throws: KeyringError.self) { try KMSKeyName(text) } }

    @Test func `a slot is opened by the key that was named, or its replica in another region`() throws {
        func can(_ text: String, _ arn: String) throws -> Bool { try KMSKeyName(text).canBe(Array(arn.utf8)) }
        let replica = "arn:aws:kms:REGION:1:key/mrk-1"
        let here = replica.replacing("REGION", with: "a-1")
        let there = replica.replacing("REGION", with: "b-1")
        #expect(try can(Self.arn, Self.arn) && can("alias/x", Self.arn) && can(here, there))
        #expect(try !can(Self.arn, Self.arn.replacing("us-east-1", with: "us-east-2")))
        #expect(try !can(here, there.replacing(":1:", with: ":2:")) && !can(here, "mrk-1"))
    }

    // MARK: Signatures

    /// Of AWS' own suite of tests ("post-vanilla", "post-sts-header-before"); the third is botocore's.
    @Test(
        arguments: [
            (
                "service", "", "", [],
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b"
            ),
            (
                "service", "",
                "AQoDYXdzEPT//////////wEXAMPLEtc764bNrC9SAPBSM22wDOk4x4HIZ8j4FZTwdQWLWsKWHGBuFqwAeMicRXmxfpSPfIeoIYRqTflfKD8YUuwthAx7mSEI/qkPpKPi/kMcGdQrmGdeehM4IC1NtBmUpp2wUE8phUZampKsburEDy0KPkyQDYwT7WZ0wq5VSXDvp75YU9HFvlRd8Tx6q6fE8YQcHNVXAkiY9q6d+xo0rKwT38xVqr7ZD0u0iPPkUL64lIZbqBAz+scqKmlzm8FDrypNC9Yjc8fPOLn9FX9KSYvKTr4rvx3iSIlTJabIQwj2ICCR/oLxBA==",
                [], "85d96828115b5dc0cfc3bd16ad9e210dd772bbebba041836c64533a82be05ead"
            ),
            (
                "kms", #"{"KeyId":"alias/prod"}"#, "",
                [("x-amz-target", "TrentService.DescribeKey"), ("content-type", "application/x-amz-json-1.1")],
                "41561b71be3c75cb17f4136f4f3d66f2094c642f08c5eb71033fdd28e4a42d1f"
            ),
        ] as [(String, String, String, [(String, String)], String)])
    func `signatures are AWS'`(
        service: String, body: String, token: String, headers: [(String, String)], expected: String
    ) throws {
        func secret(_ text: String) throws -> SecretToken? {
            try Array(text.utf8).withUnsafeBytes { bytes in
                try Result { () throws(KeyringError) in try SecretToken(bytes) }.get()
            }
        }
        let credentials = AWSCredentials(
            accessKey: try #require(try secret("AKIDEXAMPLE")),
            secretKey: try #require(try secret("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")),
            sessionToken: try secret(token))
        let signature = Signature(region: "us-east-1", service: service, at: 1_440_938_160)
        #expect(signature.time == "20150830T123600Z")
        let bytes = Array(body.utf8)
        let lines = try bytes.withUnsafeBytes { bytes in
            try signature.sign(headers + [("host", "example.amazonaws.com")], bytes, credentials)
                .withLines { $0.map { String(cString: $0) } }
        }
        #expect(lines.last?.hasSuffix("Signature=" + expected) == true, "\(lines)")
        #expect(lines.contains("x-amz-security-token: " + token) == !token.isEmpty)
    }

    // MARK: Requests and answers

    @Test func `a request names its key and context, and is signed`() throws {
        let server = try FakeServer(answer(Self.sealed))
        defer { server.stop() }
        let slot = try service(server).seal(try SecretKey.random(), for: context)
        let request = server.request.withLock { $0 }
        #expect(request.hasPrefix("POST / HTTP/1.1\r\n"), "\(request)")
        #expect(request.contains("x-amz-target: TrentService.Encrypt\r\n") && !request.contains("top/secret"))
        #expect(
            request.contains("\r\nhost: 127.0.0.1:\(server.port)\r\n")
                || request.contains("Host: 127.0.0.1:\(server.port)\r\n"))
        #expect(request.contains(#""letterlock:keyring":"k\"\\é""#), "\(request)")
        #expect(slot.parameters == Array(Self.arn.utf8))
        let cut = KeySlot(kind: .awskms, parameters: slot.parameters, sealedKey: Array(slot.sealedKey.dropLast()))
        #expect(throws: KeyringError.damaged("a key slot is malformed")) {
            try service(server).unseal(cut, for: context)
        }
    }

    @Test(arguments: [
        "", "{", "{}", "[]", #"{"CiphertextBlob":"AAAA"}"#, #"{"CiphertextBlob":"!","KeyId":"\#(arn)"}"#,
        #"{"CiphertextBlob":"","KeyId":"\#(arn)"}"#, #"{"CiphertextBlob":"AAAA","KeyId":"alias/prod"}"#,
        #"{"CiphertextBlob":"AAAA","KeyId":"arn\u001b"}"#,
        #"{"CiphertextBlob":""# + String(repeating: "A", count: 4000) + #"","KeyId":"\#(arn)"}"#,
    ])
    func `an answer that is none is malformed`(body: String) throws {
        try expect(.malformedAnswer, answer(body))
    }

    @Test(
        arguments: [
            ("AccessDeniedException", "400 Bad", .denied), ("UnrecognizedClientException", "400 Bad", .denied),
            ("InvalidSignatureException", "403 No", .denied), ("ExpiredTokenException", "400 Bad", .denied),
            ("com.amazonaws.kms#DisabledException", "400 Bad", .keyDisabled),
            ("KMSInvalidStateException", "400 Bad", .keyDisabled), ("NotFoundException", "400 Bad", .keyMissing),
            ("InvalidKeyUsageException", "400 Bad", .misconfigured), ("", "403 No", .denied),
            ("ThrottlingException", "400 Bad", .unreachable), ("KMSInternalException", "500 Oh", .unreachable),
            ("DependencyTimeoutException", "503 Oh", .unreachable),
        ] as [(String, String, KeyServiceFault.Reason)])
    func `an error is told for what it means`(type: String, status: String, reason: KeyServiceFault.Reason) throws {
        try expect(reason, answer(#"{"__type":"\#(type)","message":"top/secret"}"#, status))
    }

    @Test func `what may pass is tried again, so often and no more; what will not is not`() throws {
        for (type, status, count) in [
            ("Throttling", "400 Bad", 3), ("X", "503 Oh", 3), ("DisabledException", "400 Bad", 1),
        ] {
            let server = try FakeServer(answer(#"{"__type":"\#(type)"}"#, status))
            defer { server.stop() }
            #expect(throws: KeyringError.self) { try service(server).seal(try SecretKey.random(), for: context) }
            #expect(server.requestCount == count, "\(type)")
        }
        let server = try FakeServer(answer("{}", "503 Oh"), answer("{}", "503 Oh"), answer(Self.sealed))
        defer { server.stop() }
        _ = try service(server).seal(try SecretKey.random(), for: context)
        #expect(server.requestCount == 3)
    }

    @Test func `a service that says nothing is waited for and no longer`() throws { try expect(.timedOut, nil) }

    private func expect(_ reason: KeyServiceFault.Reason, _ text: String?, at place: SourceLocation = #_sourceLocation)
        throws
    {
        let server = try FakeServer(text)
        defer { server.stop() }
        try expectFault(
            reason, of: try service(server, ["AWS_MAX_ATTEMPTS": "1"]), for: context, hiding: "top/secret", at: place)
    }

    // MARK: Where things are

    @Test(
        arguments: [
            ([:], "us-east-1", "https://kms.us-east-1.amazonaws.com"),
            (["AWS_USE_FIPS_ENDPOINT": "true"], "us-east-1", "https://kms-fips.us-east-1.amazonaws.com"),
            ([:], "cn-north-1", "https://kms.cn-north-1.amazonaws.com.cn"),
            (["AWS_ENDPOINT_URL": "https://a:1/", "AWS_ENDPOINT_URL_KMS": "https://b/"], "x", "https://b"),
        ] as [([String: String], String, String)])
    func `an endpoint is the region's or the one that is named`(
        variables: [String: String], region: String, url: String
    ) throws {
        #expect(try settings(variables).place(of: .kms, region: region).url == url)
    }

    @Test(arguments: ["ftp://a", "https://", "https://a/b", "https://u@a", "a", "https://a?b", "http://a b"])
    func `what is no endpoint is refused`(url: String) {
        #expect(throws: KeyringError.self) { try settings(["AWS_ENDPOINT_URL": url]).place(of: .kms, region: "x") }
    }

    @Test func `the region is the key's, the environment's or the profile's`() throws {
        let scratch = Profiles()
        scratch.write("config", "[default]\nregion = eu-west-1\n[profile b]\nregion=eu-west-2\n")
        func region(_ key: String, _ variables: [String: String]) throws -> String {
            try settings(variables.merging(["HOME": scratch.home]) { $1 }).region(of: try KMSKeyName(key))
        }
        #expect(try region(Self.arn, ["AWS_REGION": "x"]) == "us-east-1")
        #expect(try region("alias/a", ["AWS_REGION": "x"]) == "x")
        #expect(try region("alias/a", [:]) == "eu-west-1")
        #expect(try region("alias/a", ["AWS_PROFILE": "b"]) == "eu-west-2")
        #expect(throws: KeyringError.self) { try region("alias/a", ["AWS_PROFILE": "c"]) }
        #expect(throws: KeyringError.self) { try region("alias/a", ["AWS_REGION": "x.evil.example/"]) }
    }
}
