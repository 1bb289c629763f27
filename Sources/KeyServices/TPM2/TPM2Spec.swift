internal import Keyring

/// What stands behind `tpm2:`: `pcrs=0+7;bank=sha256;pin-source=file:/PATH;tcti=NAME`, each part of it at will. As in the URIs of
/// PKCS#11, what is no policy may stand behind `?`, with `&` in between.
struct TPM2Spec: Equatable, Sendable {
    /// Bit n: PCR n has to be as it was.
    private(set) var pcrs: UInt32 = 0
    /// 256 or 384, of SHA-2.
    private(set) var bank: UInt32 = 256
    /// A file's path; nil without a PIN.
    private(set) var pinFile: String?
    /// Which TPM, as tss2's loader calls it; nil for this machine's.
    private(set) var tcti: String?

    static let pcrCount = 24

    /// - Parameters:
    ///   - variable: Of the environment.
    ///   - exists: Whether a file is there.
    init(_ text: String, _ variable: (String) -> String?, exists: (String) -> Bool) throws(KeyringError) {
        var names: [Substring] = []
        for part in text.split(whereSeparator: { ";?&".contains($0) }) {
            let (name, value) = try Self.attribute(part, of: text, &names)
            switch name {
            case "pcrs": pcrs = try Self.pcrs(value, of: text)
            case "bank":
                guard let known = ["sha256": 256, "sha384": 384][value] else {
                    throw Self.malformed(text, "'bank' is sha256 or sha384")
                }
                bank = UInt32(known)
            case "pin-value":
                throw Self.malformed("…", "a PIN has no place in it: put it into a file, pin-source=file:/PATH")
            case "pin-source":
                let path = value.hasPrefix("file:") ? String(value.dropFirst("file:".count)) : value
                guard path.hasPrefix("/") else { throw Self.malformed(text, "'pin-source' is a path from the root on") }
                pinFile = path
            case "tcti": tcti = value
            default: throw Self.malformed(text, "'\(name)' is not known")
            }
        }
        guard pcrs != 0 || !names.contains("bank") else { throw Self.malformed(text, "'bank' is for 'pcrs'") }
        tcti = tcti ?? variable("TPM2TOOLS_TCTI")
        if pinFile == nil, let credential = variable("CREDENTIALS_DIRECTORY").map({ $0 + "/tpm2-pin" }) {
            pinFile = exists(credential) ? credential : nil
        }
    }

    /// What a slot is known by: its policy, in one spelling.
    var policy: String {
        let numbers = (0..<Self.pcrCount).filter { pcrs & 1 << UInt32($0) != 0 }.map(String.init)
        var parts = numbers.isEmpty ? [] : ["pcrs=\(numbers.joined(separator: "+"))", "bank=sha\(bank)"]
        if pinFile != nil { parts.append("pin") }
        return parts.joined(separator: ";")
    }

    private static func attribute(
        _ part: Substring, of text: String, _ names: inout [Substring]
    ) throws(KeyringError) -> (Substring, String) {
        let words = part.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        guard words.count == 2, !words[1].isEmpty, !words[1].utf8.contains(0) else {
            throw malformed(text, "'\(words[0])' has no value")
        }
        guard !names.contains(words[0]) else { throw malformed(text, "'\(words[0])' twice") }
        names.append(words[0])
        return (words[0], String(words[1]))
    }

    private static func pcrs(_ value: String, of text: String) throws(KeyringError) -> UInt32 {
        var mask: UInt32 = 0
        for word in value.split(separator: "+", omittingEmptySubsequences: false) {
            guard let number = UInt32(word), number < pcrCount, mask & 1 << number == 0 else {
                throw malformed(text, "'pcrs' are numbers from 0 to \(pcrCount - 1), as in pcrs=0+7")
            }
            mask |= 1 << number
        }
        return mask
    }

    private static func malformed(_ text: String, _ why: String) -> KeyringError {
        .service(
            KeyServiceFault(
                .malformedAddress, "'tpm2:\(text)' names no TPM: \(why)",
                hint: "write tpm2, or tpm2:pcrs=7;pin-source=file:/PATH"))
    }
}
