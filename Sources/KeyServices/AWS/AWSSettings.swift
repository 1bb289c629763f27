internal import Glibc
internal import Keyring

/// How AWS' own programs are told what to do, as far as it makes sense for a server.
public struct AWSSettings: Sendable {
    /// What the environment says, where it is not secret.
    let variable: @Sendable (String) -> String?
    /// And where it is.
    let secretVariable: @Sendable (String) throws(KeyringError) -> SecretToken?
    /// How long an answer may take, with all that is tried again.
    var patienceSeconds = 15
    /// Where a machine of EC2 and a container of ECS ask for what they may do.
    var instanceEndpoint: String
    var containerEndpoint = "http://169.254.170.2"

    /// What the environment says. Where it names files they are read when the service is used.
    public static func ofEnvironment() -> AWSSettings {
        AWSSettings(
            Environment.variable,
            { name throws(KeyringError) in
                guard let value = getenv(name), value.pointee != 0 else { return nil }
                return try SecretToken(UnsafeRawBufferPointer(start: value, count: strlen(value)))
            })
    }

    init(
        _ variable: @escaping @Sendable (String) -> String?,
        _ secretVariable: @escaping @Sendable (String) throws(KeyringError) -> SecretToken?
    ) {
        self.variable = variable
        self.secretVariable = secretVariable
        instanceEndpoint = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT") ?? "http://169.254.169.254"
    }

    /// Environment variables that name a file: a server in the background has another working directory.
    static let fileVariables = [
        "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CA_BUNDLE", "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    ]

    /// How often something is asked for that might come to pass: AWS_MAX_ATTEMPTS, by default 3.
    var attempts: Int { max(1, min(10, variable("AWS_MAX_ATTEMPTS").flatMap { Int($0) } ?? 3)) }

    var profile: String { variable("AWS_PROFILE") ?? variable("AWS_DEFAULT_PROFILE") ?? "default" }

    /// Files with profiles, the first that says something wins; what was named has to be there.
    var profileFiles: [ProfileFile] {
        var files: [ProfileFile] = []
        let home = variable("HOME").map { $0 + "/.aws/" }
        if let path = variable("AWS_SHARED_CREDENTIALS_FILE") {
            files.append(ProfileFile(path: path, isNamed: true, isConfiguration: false))
        } else {
            if let directory = variable("CREDENTIALS_DIRECTORY") {
                files.append(
                    ProfileFile(path: directory + "/aws-credentials", isNamed: false, isConfiguration: false))
            }
            if let home {
                files.append(ProfileFile(path: home + "credentials", isNamed: false, isConfiguration: false))
            }
        }
        if let path = variable("AWS_CONFIG_FILE") {
            files.append(ProfileFile(path: path, isNamed: true, isConfiguration: true))
        } else if let home {
            files.append(ProfileFile(path: home + "config", isNamed: false, isConfiguration: true))
        }
        return files
    }

    /// A setting of the profile's that is no secret; nil if none of the files has it.
    func setting(_ name: String) throws(KeyringError) -> String? {
        for file in profileFiles {
            guard let section = try file.section(profile), let value = try section.text(name) else { continue }
            return value
        }
        return nil
    }

    func region(of key: KMSKeyName) throws(KeyringError) -> String {
        let region =
            if let region = key.region ?? variable("AWS_REGION") ?? variable("AWS_DEFAULT_REGION") { region } else {
                try setting("region")
            }
        guard let region else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "awskms:\(key.text): no region is named",
                    hint: "give the key's ARN, or set AWS_REGION"))
        }
        guard KMSKeyName.isRegion(region) else {
            throw .service(KeyServiceFault(.misconfigured, "'\(region)' is no region of AWS"))
        }
        return region
    }

    /// What is asked of AWS, by its name in an endpoint's.
    enum Service: String {
        case kms
        case sts
    }

    /// Where a service is: AWS_ENDPOINT_URL_KMS or _STS, AWS_ENDPOINT_URL, the profile's `endpoint_url`, or the region's own.
    func place(of service: Service, region: String) throws(KeyringError) -> HTTPPlace {
        let named =
            if let url = variable("AWS_ENDPOINT_URL_" + service.rawValue.uppercased()) ?? variable("AWS_ENDPOINT_URL") {
                url
            } else {
                try setting("endpoint_url")
            }
        let suffix = variable("AWS_USE_FIPS_ENDPOINT") == "true" ? "-fips" : ""
        var url = named ?? "https://\(service.rawValue)\(suffix).\(region).\(Self.domain(of: region))"
        while url.hasSuffix("/") { url.removeLast() }
        guard let scheme = ["https://", "http://"].first(where: { url.hasPrefix($0) }),
            !url.dropFirst(scheme.count).contains(where: { "/@?# ".contains($0) }), url.count > scheme.count
        else { throw .service(KeyServiceFault(.misconfigured, "'\(url)' is no endpoint", hint: "https://HOST:PORT")) }
        var place = HTTPPlace(url: url)
        place.authorityFile = variable("AWS_CA_BUNDLE")
        place.totalSeconds = patienceSeconds
        return place
    }

    private static func domain(of region: String) -> String {
        if region.hasPrefix("cn-") { return "amazonaws.com.cn" }
        if region.hasPrefix("us-iso-") { return "c2s.ic.gov" }
        if region.hasPrefix("us-isob-") { return "sc2s.sgov.gov" }
        return region.hasPrefix("eusc-") ? "amazonaws.eu" : "amazonaws.com"
    }
}
