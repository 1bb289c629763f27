import Glibc

/// How secrets lie outside of a keyring.
enum ExchangeFormat: String, CaseIterable {
    case directory, dotenv, json, kubernetes, sops, pass

    /// What a source looks like.
    init(ofSource path: String) {
        var status = stat()
        if stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFDIR {
            self = access("\(path)/\(PassStore.recipientsFile)", F_OK) == 0 ? .pass : .directory
        } else {
            self.init(ofTarget: path)
        }
    }

    /// What the name of a file asks for.
    init(ofTarget path: String) {
        if path.hasSuffix(".json") {
            self = .json
        } else {
            self = path.hasSuffix(".yaml") || path.hasSuffix(".yml") ? .kubernetes : .dotenv
        }
    }

    static func parse(_ text: String?) throws(Failure) -> ExchangeFormat? {
        guard let text else { return nil }
        guard let format = ExchangeFormat(rawValue: text) else {
            throw Failure("'\(text)' is no format", hint: names, code: .usage)
        }
        return format
    }

    /// Whether what is written of it only its recipients can read.
    var isSealed: Bool { self == .sops || self == .pass }

    /// As help and hints say them.
    static let names = allCases.dropLast().map(\.rawValue).joined(separator: ", ") + " or \(allCases.last!.rawValue)"
}
