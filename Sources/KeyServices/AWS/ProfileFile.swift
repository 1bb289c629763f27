internal import Glibc
internal import Keyring
internal import Sodium

/// `~/.aws/credentials` or `~/.aws/config`: sections of `name = value`, read into locked memory.
struct ProfileFile {
    let path: String
    /// It was named and has to be there.
    let isNamed: Bool
    /// Its sections are called `profile NAME`, but for `default`.
    let isConfiguration: Bool

    static let byteLimit = 256 * 1024

    /// The section of a profile; nil if there is none, or no such file.
    ///
    /// - Throws: `.insecureFile` if others can read it.
    func section(_ profile: String) throws(KeyringError) -> ProfileSection? {
        guard isNamed || access(path, F_OK) == 0 else { return nil }
        let text: SecretBytes
        do { text = try SecretFile.read(path, limit: Self.byteLimit, forbiddenMode: isConfiguration ? 0 : 0o006) } catch
        {
            guard case .malformedKeyFile = error else { throw error }
            throw .service(KeyServiceFault(.misconfigured, "\(path) is no file with profiles"))
        }
        let names =
            isConfiguration && profile != "default"
            ? ["profile " + profile]
            : isConfiguration ? ["default", "profile default"] : [profile]
        return ProfileSection(text, names)
    }
}

/// The lines of one profile.
final class ProfileSection {
    private let text: SecretBytes
    private var lines: [Range<Int>] = []

    init?(_ text: consuming SecretBytes, _ names: [String]) {
        var lines: [Range<Int>] = []
        var isThere = false
        var isInside = false
        text.withUnsafeBytes { text in
            for line in Self.lines(of: text) {
                guard let first = line.first.map({ text[$0] }) else { continue }
                if first == UInt8(ascii: "["), text[line.upperBound - 1] == UInt8(ascii: "]") {
                    let name = String(decoding: text[line].dropFirst().dropLast(), as: UTF8.self)
                    isInside = names.contains(Self.squeezed(name))
                    isThere = isThere || isInside
                } else if isInside, first != UInt8(ascii: "#"), first != UInt8(ascii: ";") {
                    lines.append(line)
                }
            }
        }
        guard isThere else { return nil }
        self.text = text
        self.lines = lines
    }

    /// The value of a name, the last if there are several.
    func value(_ name: String) throws(KeyringError) -> SecretToken? {
        try text.withUnsafeBytes { text throws(KeyringError) in
            for line in lines.reversed() {
                guard let equals = text[line].firstIndex(of: UInt8(ascii: "=")) else { continue }
                let key = Self.trimmed(line.lowerBound..<equals, text)
                guard text[key].elementsEqual(name.utf8) else { continue }
                let value = Self.trimmed(equals + 1..<line.upperBound, text)
                return try SecretToken(UnsafeRawBufferPointer(rebasing: text[value]))
            }
            return nil
        }
    }

    /// A value that is no secret.
    func text(_ name: String) throws(KeyringError) -> String? {
        try value(name)?.withBytes { String(decoding: $0, as: UTF8.self) }
    }

    /// The lines without the space around them.
    private static func lines(of text: UnsafeRawBufferPointer) -> [Range<Int>] {
        var lines: [Range<Int>] = []
        var start = 0
        while start < text.count {
            let end = text[start...].firstIndex(of: UInt8(ascii: "\n")) ?? text.count
            let line = trimmed(start..<end, text)
            if !line.isEmpty { lines.append(line) }
            start = end + 1
        }
        return lines
    }

    private static func trimmed(_ range: Range<Int>, _ text: UnsafeRawBufferPointer) -> Range<Int> {
        var range = range
        let space: [UInt8] = [0x20, 0x09, 0x0D]
        while let last = range.last, space.contains(text[last]) { range = range.lowerBound..<last }
        while let first = range.first, space.contains(text[first]) { range = first + 1..<range.upperBound }
        return range
    }

    private static func squeezed(_ name: String) -> String {
        name.split(whereSeparator: { $0 == " " || $0 == "\t" }).joined(separator: " ")
    }
}
