import Fuse
import Keyring

/// What is written to a control file: a line, without the newline at its end.
struct ControlCommand {
    /// The longest that is taken.
    static let limit = 4096

    let text: String

    /// Nil for what is empty, or no text.
    init?(_ bytes: UnsafeRawBufferPointer) {
        var bytes = bytes[...]
        if bytes.last == UInt8(ascii: "\n") { bytes = bytes.dropLast() }
        guard !bytes.isEmpty, !bytes.contains(0), let text = String(validating: bytes, as: UTF8.self) else {
            return nil
        }
        self.text = text
    }

    /// The word that the file takes, and nothing else.
    func expect(_ word: String) throws(Errno) {
        guard text == word else { throw .invalid }
    }

    /// A KEK version's number: digits alone.
    func version() throws(Errno) -> KEKVersion { try Self.version(text[...]) }

    static func version(_ text: Substring) throws(Errno) -> KEKVersion {
        guard isNumber(text) else { throw .invalid }
        // One that no version can have is one that there is not.
        return KEKVersion(rawValue: UInt32(text) ?? .max)
    }

    /// A whole number: digits alone.
    func number() throws(Errno) -> UInt32 { try Self.number(text[...]) }

    static func number(_ text: Substring) throws(Errno) -> UInt32 {
        guard isNumber(text) else { throw .invalid }
        guard let number = UInt32(text) else { throw .outOfRange }
        return number
    }

    private static func isNumber(_ text: Substring) -> Bool {
        !text.isEmpty && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
    }

    /// Why something is done: one line of text.
    static func reason(_ text: String) throws(Errno) -> String {
        guard text.unicodeScalars.allSatisfy({ $0.properties.generalCategory != .control }) else { throw .invalid }
        return text
    }

    /// Seconds: `3600`, or with a unit `90s`, `15m`, `720h`, `30d`.
    func seconds() throws(Errno) -> Int64 {
        let units: [Character: Int64] = ["s": 1, "m": 60, "h": 3600, "d": 86_400]
        guard let last = text.last, let unit = units[last] else { return Int64(try number()) }
        return Int64(try Self.number(text.dropLast())) * unit
    }

    /// The first word and what follows it, trimmed; nil if nothing does.
    var words: (first: String, rest: String?) {
        let parts = text.split(separator: " ", maxSplits: 1)
        let rest = parts.count > 1 ? parts[1].drop { $0 == " " } : ""
        return (parts.first.map(String.init) ?? "", rest.isEmpty ? nil : String(rest))
    }
}
