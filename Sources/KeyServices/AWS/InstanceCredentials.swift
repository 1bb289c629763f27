internal import Glibc
internal import Keyring
internal import Sodium

/// Credentials of the role that a container or a machine has, which its surroundings tell: no secret lies on its disk.
struct InstanceCredentials {
    private let settings: AWSSettings
    private let service: String

    init(_ settings: AWSSettings, _ service: String) {
        self.settings = settings
        self.service = service
    }

    /// The container's, if the environment says that there is one; else the machine's. Nil if this is neither.
    func find() throws(KeyringError) -> AWSCredentials? {
        if let path = settings.variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
            return try ofContainer(settings.containerEndpoint + path)
        }
        if let url = settings.variable("AWS_CONTAINER_CREDENTIALS_FULL_URI") { return try ofContainer(url) }
        guard settings.variable("AWS_EC2_METADATA_DISABLED") != "true" else { return nil }
        return try ofMachine()
    }

    // MARK: The container's endpoint (ECS, EKS Pod Identity)

    private func ofContainer(_ url: String) throws(KeyringError) -> AWSCredentials {
        guard let scheme = ["https://", "http://"].first(where: { url.hasPrefix($0) }),
            let slash = url.dropFirst(scheme.count).firstIndex(of: "/"), isPlain(url)
        else { throw misconfigured("'\(url)' is no address of credentials") }
        var headers = try SecretHeaders(limit: Self.tokenLimit + 64)
        if let token = try authorization() { token.withBytes { headers.add("Authorization", $0) } }
        let answer = try ask("GET", String(url[slash...]), at: place(String(url[..<slash])), headers)
        guard answer.status == 200 else { throw denied("the container's endpoint", answer.status) }
        return try credentials(in: answer)
    }

    private func authorization() throws(KeyringError) -> SecretToken? {
        guard let path = settings.variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE") else {
            return try settings.secretVariable("AWS_CONTAINER_AUTHORIZATION_TOKEN")
        }
        let text = try SecretFile.read(path, limit: Self.tokenLimit, forbiddenMode: 0)
        let token = try text.withUnsafeBytes { text throws(KeyringError) in
            try SecretToken(UnsafeRawBufferPointer(rebasing: text[..<SecretFile.lineByteCount(text)]))
        }
        guard let token else { throw misconfigured("\(path) is no token") }
        return token
    }

    // MARK: The machine's (IMDSv2: nothing is told without a token, so that no proxy can be made to ask)

    private func ofMachine() throws(KeyringError) -> AWSCredentials? {
        let place = place(settings.instanceEndpoint)
        var headers = try SecretHeaders(limit: 128)
        headers.add("X-aws-ec2-metadata-token-ttl-seconds", "60")
        let granted: HTTPAnswer
        do { granted = try ask("PUT", "/latest/api/token", at: place, headers) } catch {
            // Nobody is there: this is no such machine.
            guard case .service(let fault) = error, [.unreachable, .timedOut].contains(fault.reason) else {
                throw error
            }
            return nil
        }
        guard granted.status == 200 else { return nil }
        var asking = try SecretHeaders(limit: Self.tokenLimit + 64)
        let isToken = try granted.withBody { (token: UnsafeRawBufferPointer) throws(KeyringError) -> Bool in
            guard token.count <= Self.tokenLimit, let token = try SecretToken(token) else { return false }
            token.withBytes { asking.add("X-aws-ec2-metadata-token", $0) }
            return true
        }
        guard isToken else { throw malformed() }
        let list = "/latest/meta-data/iam/security-credentials/"
        let roles = try ask("GET", list, at: place, asking)
        guard roles.status == 200 else { return nil }
        let role = roles.withBody { String(decoding: $0.prefix { $0 != UInt8(ascii: "\n") }, as: UTF8.self) }
        guard !role.isEmpty, role.utf8.count <= 256, isPlain(role) else { return nil }
        let answer = try ask("GET", list + role, at: place, asking)
        guard answer.status == 200 else { throw denied("the machine's endpoint", answer.status) }
        return try credentials(in: answer)
    }

    // MARK: Both

    private static let tokenLimit = 16 * 1024

    private func place(_ url: String) -> HTTPPlace {
        var place = HTTPPlace(url: url)
        place.plainHosts += ["169.254.169.254", "[fd00:ec2::254]", "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"]
        // On this machine, or not at all.
        place.connectSeconds = 1
        place.totalSeconds = min(5, settings.patienceSeconds)
        return place
    }

    private func ask(_ method: String, _ path: String, at place: HTTPPlace, _ headers: borrowing SecretHeaders)
        throws(KeyringError) -> HTTPAnswer
    {
        let nothing: [UInt8] = [0]
        return try headers.withLines { (lines: [UnsafeMutablePointer<CChar>]) throws(KeyringError) -> HTTPAnswer in
            let result = nothing.withUnsafeBytes { bytes in
                Result { () throws(KeyringError) -> HTTPAnswer in
                    try HTTPRequest.perform(
                        method, path, at: place, headers: lines,
                        body: method == "GET"
                            ? UnsafeRawBufferPointer(start: nil, count: 0)
                            : UnsafeRawBufferPointer(rebasing: bytes[..<0]), service: service)
                }
            }
            return try result.get()
        }
    }

    private func credentials(in answer: HTTPAnswer) throws(KeyringError) -> AWSCredentials {
        let found = try answer.withBody { (body: UnsafeRawBufferPointer) throws(KeyringError) -> AWSCredentials? in
            let json = JSONText(body)
            guard let id = json.string("AccessKeyId"), let accessKey = try SecretToken(id),
                let key = json.string("SecretAccessKey"), let secretKey = try SecretToken(key)
            else { return nil }
            let token = try json.string("Token").flatMap { (token) throws(KeyringError) in try SecretToken(token) }
            return AWSCredentials(accessKey: accessKey, secretKey: secretKey, sessionToken: token)
        }
        guard let found else { throw malformed() }
        return found
    }

    private func isPlain(_ text: String) -> Bool { text.utf8.allSatisfy { (0x21...0x7E).contains($0) } }

    private func malformed() -> KeyringError {
        .service(KeyServiceFault(.malformedAnswer, "\(service): what tells its credentials makes no sense"))
    }

    private func misconfigured(_ text: String) -> KeyringError {
        .service(KeyServiceFault(.misconfigured, "\(service): \(text)"))
    }

    private func denied(_ who: String, _ status: Int) -> KeyringError {
        .service(KeyServiceFault(.denied, "\(service): \(who) gives no credentials (status \(status))"))
    }
}
