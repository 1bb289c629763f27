import Glibc
import Keyring
import Sodium
import Synchronization
import Testing

@testable import KeyServices

/// A home directory with files of profiles.
final class Profiles {
    let home: String

    init() {
        var template = Array("/tmp/letterlock-aws.XXXXXX".utf8CString)
        precondition(mkdtemp(&template) != nil)
        home = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        mkdir(home + "/.aws", 0o700)
    }

    deinit {
        for name in ["credentials", "config", "other"] { unlink("\(home)/.aws/\(name)") }
        rmdir(home + "/.aws")
        rmdir(home)
    }

    @discardableResult
    func write(_ name: String, _ text: String, mode: mode_t = 0o600) -> String {
        let path = "\(home)/.aws/\(name)"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        precondition(descriptor >= 0 && Glibc.write(descriptor, text, text.utf8.count) == text.utf8.count)
        fchmod(descriptor, mode)
        close(descriptor)
        return path
    }
}

/// The chain of places where credentials are looked for.
@Suite struct AWSCredentialsTests {
    private let profiles = Profiles()

    private func find(_ variables: [String: String]) throws -> String {
        let variables = ["HOME": profiles.home, "AWS_EC2_METADATA_DISABLED": "true"].merging(variables) { $1 }
        let settings = AWSSettings(variables: variables)
        let found = try AWSCredentials.find(settings, region: "eu-central-1", "awskms:x")
        func text(_ token: SecretToken?) -> String {
            token.map { $0.withBytes { String(decoding: $0, as: UTF8.self) } } ?? "-"
        }
        return "\(text(found.accessKey)) \(text(found.secretKey)) \(text(found.sessionToken))"
    }

    private func complaint(_ variables: [String: String]) throws -> String {
        do {
            return "found " + (try find(variables))
        } catch KeyringError.service(let fault) { return fault.message }
    }

    @Test func `the environment comes first`() throws {
        profiles.write("credentials", "[default]\naws_access_key_id=P\naws_secret_access_key=Q\n")
        let both = ["AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B"]
        #expect(try find(both) == "A B -")
        #expect(try find(both.merging(["AWS_SESSION_TOKEN": "C"]) { $1 }) == "A B C")
        #expect(try complaint(["AWS_ACCESS_KEY_ID": "A"]).contains("belong together"))
        #expect(
            try complaint(["AWS_ACCESS_KEY_ID": "A", "AWS_SECRET_ACCESS_KEY": "B\nX: y"]).contains("belong together"))
        #expect(try find([:]) == "P Q -")
    }

    @Test func `a profile is a section of a file`() throws {
        let text = """
            # a comment
            [default]
            aws_access_key_id = A
              aws_secret_access_key\t=\tB/+=
            ; aws_session_token = X
            [ other ]\r
            aws_access_key_id=C\r
            aws_secret_access_key=D\r
            aws_session_token=E\r
            [empty]
            [role]
            role_arn = arn:aws:iam::1:role/x
            """
        let path = profiles.write("credentials", text)
        #expect(try find([:]) == "A B/+= -")
        #expect(try find(["AWS_PROFILE": "other"]) == "C D E")
        #expect(try complaint(["AWS_PROFILE": "absent"]).contains("no profile absent"))
        #expect(try complaint(["AWS_PROFILE": "empty"]).contains("no credentials"))
        #expect(try complaint(["AWS_PROFILE": "role"]).contains("role_arn"))
        profiles.write(
            "config", "[profile more]\naws_access_key_id=F\naws_secret_access_key=G\n[fake]\na=b\n", mode: 0o644)
        #expect(try find(["AWS_PROFILE": "more"]) == "F G -")
        profiles.write("credentials", text, mode: 0o644)
        #expect(throws: KeyringError.insecureFile(path: path, mode: 0o644)) { try find([:]) }
        #expect(throws: KeyringError.self) { try find(["AWS_SHARED_CREDENTIALS_FILE": "/nowhere"]) }
        #expect(
            try find([
                "AWS_SHARED_CREDENTIALS_FILE": profiles.write(
                    "other", "[default]\naws_access_key_id=1\naws_secret_access_key=2")
            ]) == "1 2 -")
    }

    @Test func `whatever a file of profiles holds, it does not trap`() throws {
        var state: UInt64 = 3
        let alphabet = Array("[]=#; \t\r\nadefult\0\u{1b}".utf8)
        for _ in 0..<500 {
            let bytes = (0..<60).map { _ -> UInt8 in
                state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                return alphabet[Int(state >> 33) % alphabet.count]
            }
            profiles.write("credentials", "[default]\n" + String(decoding: bytes, as: UTF8.self))
            _ = try? find([:])
        }
    }

    private func answer(_ body: String, _ status: String = "200 OK") -> String {
        "HTTP/1.1 \(status)\r\nContent-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n\(body)"
    }

    private static let given =
        #"{"AccessKeyId":"A","SecretAccessKey":"B","Token":"C","Expiration":"2030-01-01T00:00:00Z"}"#

    @Test func `a container's endpoint is asked with its token`() throws {
        let server = try FakeServer(answer(Self.given))
        defer { server.stop() }
        let token = profiles.write("other", "let-me-in\n")
        let variables = [
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:\(server.port)/v1/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE": token,
        ]
        #expect(try find(variables) == "A B C")
        let request = server.request.withLock { $0 }
        #expect(
            request.hasPrefix("GET /v1/credentials HTTP/1.1\r\n") && request.contains("Authorization: let-me-in\r\n"))
        // Nobody else is told anything without TLS.
        #expect(try complaint(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://example.invalid/x"]).contains("TLS"))
        #expect(try complaint(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "nonsense"]).contains("no address"))
        let refusing = try FakeServer(answer("no", "403 No"))
        defer { refusing.stop() }
        #expect(
            try complaint(["AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1:\(refusing.port)/x"]).contains("403")
        )
    }

    private static let assumed = """
        <AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
          <AssumeRoleWithWebIdentityResult><Credentials>
            <AccessKeyId>A</AccessKeyId><SecretAccessKey>B/+=</SecretAccessKey><SessionToken>C==</SessionToken>
          </Credentials></AssumeRoleWithWebIdentityResult>
        </AssumeRoleWithWebIdentityResponse>
        """

    @Test func `a web identity is shown to STS`() throws {
        let server = try FakeServer(answer(Self.assumed))
        defer { server.stop() }
        let token = profiles.write("other", "header.pay+load/x.signature_-~\n")
        let variables = [
            "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/letterlock",
            "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:\(server.port)",
        ]
        // Before any profile's keys, behind the environment's.
        profiles.write("credentials", "[default]\naws_access_key_id=P\naws_secret_access_key=Q\n")
        #expect(try find(variables) == "A B/+= C==")
        let request = server.request.withLock { $0 }
        #expect(request.hasPrefix("POST / HTTP/1.1\r\n"))
        #expect(request.contains("Content-Type: application/x-www-form-urlencoded\r\n"))
        #expect(!request.contains("Authorization"))
        let body =
            "Action=AssumeRoleWithWebIdentity&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fletterlock"
        #expect(
            request.hasSuffix(body + "&RoleSessionName=letterlock&WebIdentityToken=header.pay%2Bload%2Fx.signature_-~"))
        #expect(try find(variables.merging(["AWS_ROLE_SESSION_NAME": "host-1@x"]) { $1 }) == "A B/+= C==")
        #expect(server.request.withLock { $0 }.contains("RoleSessionName=host-1%40x&"))
        #expect(
            try find(variables.merging(["AWS_ACCESS_KEY_ID": "X", "AWS_SECRET_ACCESS_KEY": "Y"]) { $1 }) == "X Y -")
        // A profile may say so, too.
        profiles.write("credentials", "")
        let profile =
            "[profile web]\nrole_arn=arn:aws:iam::1:role/r\nweb_identity_token_file=\(token)\nrole_session_name=me\n"
        profiles.write("config", profile)
        let ofProfile = ["AWS_PROFILE": "web", "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:\(server.port)"]
        #expect(try find(ofProfile) == "A B/+= C==")
        #expect(server.request.withLock { $0 }.contains("RoleSessionName=me&"))
    }

    @Test func `what STS refuses, or says amiss, gives no credentials`() throws {
        let token = profiles.write("other", "t0ken\n")
        func complaint(_ body: String, _ status: String = "200 OK") throws -> String {
            let server = try FakeServer(answer(body, status))
            defer { server.stop() }
            let found = try self.complaint([
                "AWS_WEB_IDENTITY_TOKEN_FILE": token, "AWS_ROLE_ARN": "arn:aws:iam::1:role/r",
                "AWS_ENDPOINT_URL_STS": "http://127.0.0.1:\(server.port)",
            ])
            #expect(!found.contains("t0ken"))
            return found
        }
        for body in [
            "", "{}", "<Credentials>", Self.assumed.replacing("<SessionToken>", with: "<Token>"),
            Self.assumed.replacing("B/+=", with: "B\r\nX: y"), Self.assumed.replacing("</Credentials>", with: ""),
            Self.assumed.replacing(">A<", with: "><"),
        ] { #expect(try complaint(body).contains("makes no sense"), "\(body)") }
        func error(_ code: String) -> String {
            "<ErrorResponse><Error><Type>Sender</Type><Code>\(code)</Code><Message>t0ken</Message></Error></ErrorResponse>"
        }
        #expect(try complaint(error("ExpiredTokenException"), "400 No").contains("does not take the token"))
        #expect(try complaint(error("IDPCommunicationError"), "400 No").contains("cannot ask"))
        #expect(try complaint(error("AccessDenied"), "403 No").contains("403"))
        #expect(try complaint("oops", "503 No").contains("503"))
        func misconfigured(_ variables: [String: String]) throws -> String {
            try self.complaint(["AWS_WEB_IDENTITY_TOKEN_FILE": token].merging(variables) { $1 })
        }
        #expect(try misconfigured([:]).contains("belong together"))
        #expect(try misconfigured(["AWS_ROLE_ARN": "role"]).contains("no role"))
        #expect(try misconfigured(["AWS_ROLE_ARN": "arn:x", "AWS_ROLE_SESSION_NAME": "a b"]).contains("no name"))
        profiles.write("other", "two\nlines\n")
        #expect(try misconfigured(["AWS_ROLE_ARN": "arn:x"]).contains("no token"))
        #expect(throws: KeyringError.self) {
            try find(["AWS_WEB_IDENTITY_TOKEN_FILE": "/nowhere", "AWS_ROLE_ARN": "arn:x"])
        }
    }

    @Test func `a machine's endpoint is asked with a token of its own`() throws {
        let server = try FakeServer(answer("tok=="), answer("role-1\nrole-2"), answer(Self.given))
        defer { server.stop() }
        let variables = [
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:\(server.port)",
        ]
        #expect(try find(variables) == "A B C")
        let request = server.request.withLock { $0 }
        #expect(request.hasPrefix("GET /latest/meta-data/iam/security-credentials/role-1 HTTP/1.1\r\n"))
        #expect(request.contains("X-aws-ec2-metadata-token: tok==\r\n"))
        for answers in [
            [answer("no", "403 No")], [answer("a b\r\nc")], [answer("t"), answer("")],
            [answer("t"), answer("r"), answer("{}")],
        ] {
            let odd = try FakeServer(answers)
            defer { odd.stop() }
            #expect(throws: KeyringError.self) {
                try find(
                    variables.merging(["AWS_EC2_METADATA_SERVICE_ENDPOINT": "http://127.0.0.1:\(odd.port)"]) { $1 })
            }
        }
    }
}
