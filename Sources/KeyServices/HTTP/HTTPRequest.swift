internal import CCurl
internal import Glibc
internal import Keyring
internal import Sodium

/// Where a service is, and what is needed to believe it and to be believed.
struct HTTPPlace: Sendable {
    /// `https://HOST:PORT`, or `http://` for a host of this machine.
    var url: String
    /// A socket in the file system to connect to.
    var unixSocket: String?
    /// The certificates of those who vouch for it; the system's if neither is given.
    var authorityFile: String?
    var authorityDirectory: String?
    /// A certificate of the client's own, and its key.
    var certificateFile: String?
    var keyFile: String?
    var connectSeconds = 5
    /// For one request and its answer.
    var totalSeconds = 15
    /// Hosts that may be spoken to without TLS: this machine.
    var plainHosts = ["127.0.0.1", "localhost", "[::1]"]

    /// Without TLS nobody but this machine may be spoken to.
    var isLocal: Bool {
        guard unixSocket == nil else { return true }
        guard url.hasPrefix("http://") else { return false }
        let authority = url.dropFirst("http://".count).prefix { $0 != "/" }
        let host = authority.hasPrefix("[") ? authority.prefix { $0 != "]" } + "]" : authority.prefix { $0 != ":" }
        return plainHosts.contains(String(host))
    }
}

/// An answer; its body may hold a key.
final class HTTPAnswer {
    let status: Int
    private let memory: SecretBytes
    private let byteCount: Int

    init(status: Int, _ memory: consuming SecretBytes, byteCount: Int) {
        self.status = status
        self.memory = memory
        self.byteCount = byteCount
    }

    func withBody<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try memory.withUnsafeBytes { bytes throws(E) in try body(UnsafeRawBufferPointer(rebasing: bytes[..<byteCount]))
        }
    }
}

/// One request and its answer, on the calling thread.
enum HTTPRequest {
    /// No answer that is waited for is longer.
    static let answerLimit = 64 * 1024

    /// - Parameters:
    ///   - headers: `Name: value`, ASCII, each ended by a zero byte; may hold a token.
    ///   - body: May hold a key.
    static func perform(
        _ method: String, _ path: String, at place: HTTPPlace, headers: [UnsafeMutablePointer<CChar>],
        body: UnsafeRawBufferPointer, service: String
    ) throws(KeyringError) -> HTTPAnswer {
        guard place.url.hasPrefix("https://") || place.isLocal else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "\(service): without TLS a key would be told to everybody",
                    hint: "its address begins with https://"))
        }
        let answer: Answer
        do { answer = try Answer() } catch { throw .cannotLock }
        var request = ll_http()
        request.connect_seconds = place.connectSeconds
        request.total_seconds = place.totalSeconds
        request.allows_plain = place.isLocal ? 1 : 0
        request.body = body.baseAddress
        request.body_count = body.count
        request.context = Unmanaged.passUnretained(answer).toOpaque()
        request.take = { bytes, count, context in
            guard let bytes, let context else { return 0 }
            let answer = Unmanaged<Answer>.fromOpaque(context).takeUnretainedValue()
            return answer.take(UnsafeRawBufferPointer(start: bytes, count: count)) ? count : 0
        }
        var words = [CChar](repeating: 0, count: 256)
        let outcome = withStrings([
            place.url + path, method, place.unixSocket, place.authorityFile, place.authorityDirectory,
            place.certificateFile, place.keyFile,
        ]) { texts in
            request.url = texts[0]
            request.method = texts[1]
            request.unix_socket = texts[2]
            request.authority_file = texts[3]
            request.authority_directory = texts[4]
            request.certificate_file = texts[5]
            request.key_file = texts[6]
            var headers: [UnsafeMutablePointer<CChar>?] = headers
            let count = headers.count
            return headers.withUnsafeMutableBufferPointer { headers in
                request.headers = headers.baseAddress
                request.header_count = count
                return ll_http_perform(&request, &words)
            }
        }
        let why = String(decoding: words.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self).lowercased()
        if let fault = fault(outcome, service, why) { throw .service(fault) }
        return answer.finish(status: request.status)
    }

    private static func fault(_ outcome: ll_http_outcome, _ service: String, _ why: String) -> KeyServiceFault? {
        switch outcome {
        case ll_http_done: nil
        case ll_http_no_library:
            KeyServiceFault(
                .misconfigured, "\(service): libcurl is missing", hint: "install the package libcurl4")
        case ll_http_timed_out:
            KeyServiceFault(.timedOut, "\(service) does not answer", hint: "the keyring stays as it is; try again")
        case ll_http_no_trust:
            KeyServiceFault(
                .unreachable, "\(service): its certificate is not believed: \(why)",
                hint: "name the authority that vouches for it, in VAULT_CACERT for vault, in AWS_CA_BUNDLE for awskms")
        case ll_http_misconfigured: KeyServiceFault(.misconfigured, "\(service): \(why)")
        case ll_http_malformed: KeyServiceFault(.malformedAnswer, "\(service): its answer makes no sense")
        default:
            KeyServiceFault(
                .unreachable, "\(service) cannot be reached: \(why)", hint: "the keyring stays as it is; try again")
        }
    }

    private static func withStrings<R>(_ texts: [String?], _ body: ([UnsafePointer<CChar>?]) -> R) -> R {
        let copies = texts.map { $0.map { strdup($0) } ?? nil }
        defer { for copy in copies { free(copy) } }
        return body(copies.map { UnsafePointer($0) })
    }

    /// Gathers a body in locked memory.
    private final class Answer {
        private var memory: SecretBytes?
        private var count = 0

        init() throws(SodiumError) { memory = try SecretBytes(byteCount: HTTPRequest.answerLimit) }

        func take(_ bytes: UnsafeRawBufferPointer) -> Bool {
            guard bytes.count <= HTTPRequest.answerLimit - count else { return false }
            memory?.withUnsafeMutableBytes { memory in
                UnsafeMutableRawBufferPointer(rebasing: memory[count...]).copyMemory(from: bytes)
            }
            count += bytes.count
            return true
        }

        func finish(status: Int) -> HTTPAnswer {
            guard let memory = memory.take() else { preconditionFailure("an answer is taken once") }
            return HTTPAnswer(status: status, memory, byteCount: count)
        }
    }
}
