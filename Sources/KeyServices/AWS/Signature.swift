internal import Glibc
internal import Keyring
internal import Sodium

/// Signature version 4 of AWS: a request, its time and its body's hash, under a key for one day, region and service.
struct Signature {
    let region: String
    let service: String
    /// `20261127T015300Z`.
    let time: String

    private var day: Substring { time.prefix(8) }
    private var scope: String { "\(day)/\(region)/\(service)/aws4_request" }

    init(region: String, service: String, at seconds: Int) {
        self.region = region
        self.service = service
        var seconds = time_t(seconds)
        var parts = tm()
        gmtime_r(&seconds, &parts)
        func padded(_ value: Int32) -> String { (value < 10 ? "0" : "") + String(value) }
        let date = "\(parts.tm_year + 1900)\(padded(parts.tm_mon + 1))\(padded(parts.tm_mday))"
        time = "\(date)T\(padded(parts.tm_hour))\(padded(parts.tm_min))\(padded(parts.tm_sec))Z"
    }

    /// The headers that a `POST /` with this body needs, in the order of their names, with `Authorization` last.
    ///
    /// - Parameter headers: Those to be signed as well, in small letters; `host` is among them.
    func sign(
        _ headers: [(name: String, value: String)], _ body: UnsafeRawBufferPointer, _ credentials: AWSCredentials
    ) throws(KeyringError) -> SecretHeaders {
        var signed = headers + [("x-amz-date", time)]
        // The token is a secret: it is put in its place below.
        if credentials.sessionToken != nil { signed.append((Self.tokenName, "")) }
        signed.sort { $0.name < $1.name }
        let tokenCount = credentials.sessionToken?.byteCount ?? 0
        var canonical = try SecretText(limit: 2048 + tokenCount)
        var lines = try SecretHeaders(limit: 4096 + tokenCount)
        canonical.append("POST\n/\n\n")
        for (name, value) in signed {
            canonical.append(name + ":")
            if name == Self.tokenName {
                credentials.sessionToken?.withBytes {
                    canonical.append($0)
                    lines.add(name, $0)
                }
            } else {
                canonical.append(value)
                lines.add(name, value)
            }
            canonical.append("\n")
        }
        let names = signed.map(\.name).joined(separator: ";")
        canonical.append("\n\(names)\n\(Self.hash(body))")
        let request = canonical.withBytes { Self.hash($0) }
        let tag = tag("AWS4-HMAC-SHA256\n\(time)\n\(scope)\n\(request)", credentials.secretKey)
        credentials.accessKey.withBytes { accessKey in
            let name = String(decoding: accessKey, as: UTF8.self)
            lines.add(
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=\(name)/\(scope), SignedHeaders=\(names), Signature=\(tag)")
        }
        return lines
    }

    private static let tokenName = "x-amz-security-token"

    /// The chain of keys from the secret one to that of the request, each wiped; what comes of it is public.
    private func tag(_ text: String, _ secretKey: SecretToken) -> String {
        var tag = [UInt8](repeating: 0, count: HMAC.byteCount)
        withUnsafeTemporaryAllocation(byteCount: 4 + secretKey.byteCount, alignment: 8) { first in
            withUnsafeTemporaryAllocation(byteCount: HMAC.byteCount, alignment: 8) { key in
                defer {
                    Memory.wipe(first)
                    Memory.wipe(key)
                }
                first.copyBytes(from: "AWS4".utf8)
                secretKey.withBytes { UnsafeMutableRawBufferPointer(rebasing: first[4...]).copyMemory(from: $0) }
                Self.hmac(String(day), UnsafeRawBufferPointer(first), into: key)
                for part in [region, service, "aws4_request"] {
                    Self.hmac(part, UnsafeRawBufferPointer(key), into: key)
                }
                tag.withUnsafeMutableBytes { Self.hmac(text, UnsafeRawBufferPointer(key), into: $0) }
            }
        }
        return Self.hexadecimal(tag)
    }

    private static func hmac(_ text: String, _ key: UnsafeRawBufferPointer, into tag: UnsafeMutableRawBufferPointer) {
        var text = text
        text.withUTF8 { HMAC.sha256([UnsafeRawBufferPointer($0)], key: key, into: tag) }
    }

    private static func hash(_ bytes: UnsafeRawBufferPointer) -> String {
        var hash = SHA256()
        hash.add(bytes)
        return hexadecimal(hash.finish())
    }

    private static func hexadecimal(_ bytes: [UInt8]) -> String {
        bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
    }
}
