internal import Keyring

/// What stands behind `awskms:`: a key's ARN, an alias' ARN, `alias/NAME` or a key's id.
struct KMSKeyName: Sendable, Equatable {
    /// As AWS is told it.
    let text: String
    /// Of an ARN; nil where the environment has to say it.
    let region: String?
    /// An ARN names the key itself, and not an alias that may come to mean another.
    let isKeyARN: Bool

    init(_ text: String) throws(KeyringError) {
        let isPlain = text.utf8.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "/"),
                UInt8(ascii: ":"):
                true
            default: false
            }
        }
        guard isPlain, !text.isEmpty, text.utf8.count <= 512 else { throw Self.malformed(text) }
        self.text = text
        guard text.hasPrefix("arn:") else {
            guard !text.contains(":"), text != "alias/", text.hasPrefix("alias/") || !text.contains("/") else {
                throw Self.malformed(text)
            }
            region = nil
            isKeyARN = false
            return
        }
        let parts = Self.parts(text)
        guard parts.count == 6, parts[2] == "kms", Self.isRegion(parts[3]),
            parts[5].hasPrefix("key/") && parts[5] != "key/" || parts[5].hasPrefix("alias/") && parts[5] != "alias/"
        else { throw Self.malformed(text) }
        region = parts[3]
        isKeyARN = parts[5].hasPrefix("key/")
    }

    /// Whether a key's ARN, as a slot names it, can be what is named here. An alias can be any.
    func canBe(_ arn: [UInt8]) -> Bool {
        guard isKeyARN else { return true }
        if arn == Array(text.utf8) { return true }
        // A multi-Region key is the same one in every region, its id as well.
        let one = Self.parts(text)
        let other = Self.parts(String(decoding: arn, as: UTF8.self))
        return other.count == 6 && one[5].hasPrefix("key/mrk-")
            && [0, 1, 2, 4, 5].allSatisfy { one[$0] == other[$0] }
    }

    /// `arn : partition : kms : region : account : key/ID`.
    private static func parts(_ arn: String) -> [String] {
        arn.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    }

    /// It becomes part of a host's name.
    static func isRegion(_ text: String) -> Bool {
        !text.isEmpty && text.utf8.count <= 32
            && text.utf8.allSatisfy {
                (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0)
                    || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || $0 == UInt8(ascii: "-")
            }
    }

    private static func malformed(_ text: String) -> KeyringError {
        .service(
            KeyServiceFault(
                .malformedAddress, "'\(text)' is no key of AWS KMS",
                hint: "write awskms:arn:aws:kms:REGION:ACCOUNT:key/ID, or awskms:alias/NAME"))
    }
}
