internal import Glibc
internal import Keyring
internal import Sodium

/// Credentials of a role that AWS STS gives for a token which somebody else vouches with, as Kubernetes does for a service account
/// (AssumeRoleWithWebIdentity).
struct WebIdentity {
    /// The token is read each time: whoever gives it replaces it.
    let tokenFile: String
    let role: String
    let session: String

    private static let tokenLimit = 32 * 1024

    /// What AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN say; nil without a file.
    init?(ofEnvironment settings: AWSSettings, _ service: String) throws(KeyringError) {
        guard let file = settings.variable("AWS_WEB_IDENTITY_TOKEN_FILE") else { return nil }
        guard let role = settings.variable("AWS_ROLE_ARN") else {
            throw Self.misconfigured(service, "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN belong together")
        }
        try self.init(
            tokenFile: file, role: role, session: settings.variable("AWS_ROLE_SESSION_NAME") ?? "letterlock", service)
    }

    init(tokenFile: String, role: String, session: String, _ service: String) throws(KeyringError) {
        guard role.hasPrefix("arn:"), role.utf8.count <= 2048, role.utf8.allSatisfy({ (0x21...0x7E).contains($0) })
        else { throw Self.misconfigured(service, "'\(role)' is no role of AWS") }
        let isName = (2...64).contains(session.utf8.count) && session.utf8.allSatisfy(Self.isOfName)
        guard isName else { throw Self.misconfigured(service, "'\(session)' is no name of a session") }
        self.tokenFile = tokenFile
        self.role = role
        self.session = session
    }

    private static func isOfName(_ byte: UInt8) -> Bool {
        isUnreserved(byte) && byte != 0x7E || "+=,@".utf8.contains(byte)
    }

    private static func misconfigured(_ service: String, _ text: String) -> KeyringError {
        .service(KeyServiceFault(.misconfigured, "\(service): \(text)"))
    }

    // MARK: Asking

    func credentials(_ settings: AWSSettings, region: String, _ service: String) throws(KeyringError) -> AWSCredentials
    {
        let text = try SecretFile.read(tokenFile, limit: Self.tokenLimit, forbiddenMode: 0)
        let token = try text.withUnsafeBytes { text throws(KeyringError) in
            try SecretToken(UnsafeRawBufferPointer(rebasing: text[..<SecretFile.lineByteCount(text)]))
        }
        guard let token else { throw Self.misconfigured(service, "\(tokenFile) is no token") }
        // Three characters for each, at most.
        var body = try SecretText(limit: 3 * (token.byteCount + role.utf8.count + session.utf8.count) + 256)
        body.append("Action=AssumeRoleWithWebIdentity&Version=2011-06-15")
        for (name, value) in [("RoleArn", role), ("RoleSessionName", session)] {
            body.append("&\(name)=")
            Array(value.utf8).withUnsafeBytes { Self.append($0, to: &body) }
        }
        body.append("&WebIdentityToken=")
        token.withBytes { Self.append($0, to: &body) }
        var headers = try SecretHeaders(limit: 128)
        headers.add("Content-Type", "application/x-www-form-urlencoded")
        let place = try settings.place(of: .sts, region: region)
        let answer = try body.withBytes { (body: UnsafeRawBufferPointer) throws(KeyringError) -> HTTPAnswer in
            try headers.withLines { (lines: [UnsafeMutablePointer<CChar>]) throws(KeyringError) -> HTTPAnswer in
                try HTTPRequest.perform("POST", "/", at: place, headers: lines, body: body, service: service)
            }
        }
        return try answer.withBody { (body: UnsafeRawBufferPointer) throws(KeyringError) -> AWSCredentials in
            guard answer.status == 200 else { throw Self.error(answer.status, XMLText(body), service) }
            guard let found = try Self.credentials(in: XMLText(body)) else {
                throw .service(
                    KeyServiceFault(.malformedAnswer, "\(service): what AWS STS answers makes no sense"))
            }
            return found
        }
    }

    private static func credentials(in answer: XMLText) throws(KeyringError) -> AWSCredentials? {
        guard let given = answer.element("Credentials"), let id = given.element("AccessKeyId"),
            let key = given.element("SecretAccessKey"), let token = given.element("SessionToken"),
            let accessKey = try SecretToken(id.bytes), let secretKey = try SecretToken(key.bytes),
            let sessionToken = try SecretToken(token.bytes)
        else { return nil }
        return AWSCredentials(accessKey: accessKey, secretKey: secretKey, sessionToken: sessionToken)
    }

    /// Its message is not shown: it may repeat the token.
    private static func error(_ status: Int, _ answer: XMLText, _ service: String) -> KeyringError {
        let code = answer.element("Error")?.element("Code").map { String(decoding: $0.bytes, as: UTF8.self) }
        switch code {
        case "ExpiredTokenException", "InvalidIdentityToken", "InvalidIdentityTokenException":
            return .service(
                KeyServiceFault(.denied, "\(service): AWS STS does not take the token", hint: "is it still valid?"))
        case "IDPCommunicationError":
            return .service(
                KeyServiceFault(
                    .unreachable, "\(service): AWS STS cannot ask who vouches for the token", hint: "try again"))
        default: break
        }
        guard (400..<500).contains(status), status != 429 else {
            return .service(
                KeyServiceFault(.unreachable, "\(service): AWS STS answers with status \(status)", hint: "try again"))
        }
        return .service(
            KeyServiceFault(
                .denied, "\(service): AWS STS gives no credentials (status \(status))",
                hint: "does the role trust who has given the token?"))
    }

    // MARK: Forms

    /// Percent-encoded, as a form is.
    private static func append(_ bytes: UnsafeRawBufferPointer, to body: inout SecretText) {
        let digits: StaticString = "0123456789ABCDEF"
        for byte in bytes {
            var text = (byte, UInt8(0), UInt8(0))
            var count = 1
            if !isUnreserved(byte) {
                text = (0x25, digits.utf8Start[Int(byte >> 4)], digits.utf8Start[Int(byte & 15)])
                count = 3
            }
            withUnsafeMutableBytes(of: &text) { text in
                body.append(UnsafeRawBufferPointer(rebasing: text[..<count]))
                Memory.wipe(text)
            }
        }
    }

    private static func isUnreserved(_ byte: UInt8) -> Bool {
        switch byte {
        case 0x30...0x39, 0x41...0x5A, 0x61...0x7A: true
        default: "-._~".utf8.contains(byte)
        }
    }
}
