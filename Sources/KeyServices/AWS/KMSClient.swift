internal import Glibc
internal import Keyring
internal import Sodium

/// Signed requests to AWS KMS, tried again where that may help.
struct KMSClient: Sendable {
    let settings: AWSSettings
    let key: KMSKeyName

    /// As messages call it: `awskms:alias/prod`.
    var service: String { "awskms:" + key.text }

    /// One request, its answer's body for `take`.
    ///
    /// - Parameter body: A JSON document.
    func post<R>(
        _ operation: String, _ body: borrowing SecretText, _ take: (JSONText) throws(KeyringError) -> R
    ) throws(KeyringError) -> R {
        let region = try settings.region(of: key)
        var place = try settings.place(of: .kms, region: region)
        let credentials = try AWSCredentials.find(settings, region: region, service)
        let deadline = Self.milliseconds + settings.patienceSeconds * 1000
        for attempt in 1... {
            let left = deadline - Self.milliseconds
            place.totalSeconds = max(1, left / 1000)
            do throws(KeyringError) {
                let answer = try send(operation, body, to: place, region, credentials)
                return try answer.withBody { (bytes: UnsafeRawBufferPointer) throws(KeyringError) -> R in
                    let json = JSONText(bytes)
                    guard answer.status == 200 else { throw error(answer.status, json) }
                    return try take(json)
                }
            } catch {
                let pause = Self.pause(after: attempt)
                guard case .service(let fault) = error, fault.reason == .unreachable, attempt < settings.attempts,
                    pause < deadline - Self.milliseconds
                else { throw error }
                usleep(UInt32(pause * 1000))
            }
        }
        preconditionFailure("an attempt ends in an answer or an error")
    }

    func malformed() -> KeyringError {
        .service(KeyServiceFault(.malformedAnswer, "\(service): its answer makes no sense"))
    }

    private func send(
        _ operation: String, _ body: borrowing SecretText, to place: HTTPPlace, _ region: String,
        _ credentials: AWSCredentials
    ) throws(KeyringError) -> HTTPAnswer {
        let signature = Signature(region: region, service: "kms", at: time(nil))
        return try body.withBytes { (body: UnsafeRawBufferPointer) throws(KeyringError) -> HTTPAnswer in
            let headers = try signature.sign(
                [
                    ("content-type", "application/x-amz-json-1.1"), ("host", Self.host(of: place.url)),
                    ("x-amz-target", "TrentService." + operation),
                ], body, credentials)
            return try headers.withLines { (lines: [UnsafeMutablePointer<CChar>]) throws(KeyringError) -> HTTPAnswer in
                try HTTPRequest.perform("POST", "/", at: place, headers: lines, body: body, service: service)
            }
        }
    }

    private static func host(of url: String) -> String {
        String(url.drop { $0 != "/" }.dropFirst(2))
    }

    // MARK: Trying again

    /// Milliseconds: twice as long each time, up to a second, by chance shorter, so that many do not ask at once.
    private static func pause(after attempt: Int) -> Int {
        let longest = min(1000, 50 << min(attempt, 10))
        return Int.random(in: longest / 2...longest)
    }

    private static var milliseconds: Int {
        var now = timespec()
        clock_gettime(CLOCK_MONOTONIC, &now)
        return now.tv_sec * 1000 + now.tv_nsec / 1_000_000
    }

    // MARK: Errors

    /// What an answer that is an error means. Its message is not shown: it may repeat what it was asked.
    private func error(_ status: Int, _ json: JSONText) -> KeyringError {
        let type = json.string("__type") ?? json.string("code")
        let name = type.map { type in
            // `com.amazonaws.kms#DisabledException`, or only what is behind the '#'.
            String(decoding: type.split(separator: UInt8(ascii: "#")).last ?? [], as: UTF8.self)
        }
        func fault(_ reason: KeyServiceFault.Reason, _ what: String, _ hint: String? = nil) -> KeyringError {
            .service(KeyServiceFault(reason, "\(service): \(what)", hint: hint))
        }
        switch name {
        case "InvalidCiphertextException", "IncorrectKeyException": return .wrongSecret
        case "DisabledException": return fault(.keyDisabled, "its key is disabled", "enable it there")
        case "KMSInvalidStateException":
            return fault(.keyDisabled, "its key waits for its deletion, or is not ready", "cancel its deletion there")
        case "NotFoundException": return fault(.keyMissing, "there is no such key", "is it another region's?")
        case "InvalidKeyUsageException", "InvalidArnException", "ValidationException", "InvalidGrantTokenException":
            return fault(.misconfigured, "it does not take the request", "is it a symmetric key for encryption?")
        case "AccessDeniedException", "AccessDenied":
            return fault(
                .denied, "its credentials may not use the key", "see the example of a policy in mount-examples/awskms")
        case "UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException",
            "SignatureDoesNotMatch", "IncompleteSignature", "MissingAuthenticationToken",
            "MissingAuthenticationTokenException", "ExpiredTokenException", "ExpiredToken",
            "RequestExpired", "OptInRequired", "NotAuthorized", "IncompleteSignatureException":
            return fault(
                .denied, "its credentials are wrong or expired", "or this machine's clock is: it is part of a signature"
            )
        default: break
        }
        switch status {
        case 401, 403: return fault(.denied, "its credentials are wrong, or may not use the key")
        case 400 where ["ThrottlingException", "Throttling", "LimitExceededException"].contains(name), 429:
            return fault(.unreachable, "it has too many requests", "try again")
        case 400: return fault(.misconfigured, "it does not take the request")
        default: return fault(.unreachable, "it answers with status \(status)", "try again")
        }
    }
}
