internal import Keyring

/// What a request is signed with.
struct AWSCredentials {
    /// Names the secret key; stands in every request, in clear.
    let accessKey: SecretToken
    let secretKey: SecretToken
    /// Of what is given for a time.
    let sessionToken: SecretToken?

    /// The first that there is: the environment, a web identity, the profile's files, the container's endpoint, the machine's.
    static func find(_ settings: AWSSettings, region: String, _ service: String) throws(KeyringError) -> AWSCredentials
    {
        if let found = try ofEnvironment(settings, service) { return found }
        if let identity = try WebIdentity(ofEnvironment: settings, service) {
            return try identity.credentials(settings, region: region, service)
        }
        if let found = try ofProfile(settings, region: region, service) { return found }
        if let found = try InstanceCredentials(settings, service).find() { return found }
        throw .service(
            KeyServiceFault(
                .misconfigured, "\(service): there are no credentials",
                hint:
                    "in the environment, a web identity, in ~/.aws/credentials, or a role of the container's or machine's"
            ))
    }

    private static func ofEnvironment(_ settings: AWSSettings, _ service: String) throws(KeyringError)
        -> AWSCredentials?
    {
        guard settings.variable("AWS_ACCESS_KEY_ID") != nil || settings.variable("AWS_SECRET_ACCESS_KEY") != nil else {
            return nil
        }
        guard let accessKey = try settings.secretVariable("AWS_ACCESS_KEY_ID"),
            let secretKey = try settings.secretVariable("AWS_SECRET_ACCESS_KEY")
        else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "\(service): AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY belong together"))
        }
        return AWSCredentials(
            accessKey: accessKey, secretKey: secretKey, sessionToken: try settings.secretVariable("AWS_SESSION_TOKEN"))
    }

    private static func ofProfile(_ settings: AWSSettings, region: String, _ service: String) throws(KeyringError)
        -> AWSCredentials?
    {
        var isThere = false
        for file in settings.profileFiles {
            guard let section = try file.section(settings.profile) else { continue }
            isThere = true
            if let accessKey = try section.value("aws_access_key_id"),
                let secretKey = try section.value("aws_secret_access_key")
            {
                return AWSCredentials(
                    accessKey: accessKey, secretKey: secretKey,
                    sessionToken: try section.value("aws_session_token"))
            }
            if let file = try section.text("web_identity_token_file"), let role = try section.text("role_arn") {
                let session = try section.text("role_session_name") ?? "letterlock"
                return try WebIdentity(tokenFile: file, role: role, session: session, service)
                    .credentials(settings, region: region, service)
            }
            for name in ["role_arn", "sso_session", "sso_start_url", "credential_process"]
            where try section.value(name) != nil {
                throw .service(
                    KeyServiceFault(
                        .misconfigured, "\(service): profile \(settings.profile) has '\(name)', which is not followed",
                        hint: "use the role of the container or machine, or a profile with keys"))
            }
        }
        guard !isThere, settings.variable("AWS_PROFILE") != nil else { return nil }
        throw .service(KeyServiceFault(.misconfigured, "\(service): there is no profile \(settings.profile)"))
    }
}
