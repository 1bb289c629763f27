internal import Keyring
internal import Sodium

/// Age files as text: RFC 7468's strict form, with a label of its own.
package enum AgeArmour {
    private static let header: StaticString = "-----BEGIN AGE ENCRYPTED FILE-----"
    private static let footer: StaticString = "-----END AGE ENCRYPTED FILE-----"
    private static let columns = 64

    /// With the end of a line at its end.
    package static func add(to file: [UInt8]) -> [UInt8] {
        let count = Base64.characterCount(of: file.count)
        var base64 = [UInt8](repeating: 0, count: count + 1)
        base64.withUnsafeMutableBytes { text in file.withUnsafeBytes { Base64.encode($0, into: text) } }
        var text = Array("\(header)\n".utf8)
        for start in stride(from: 0, to: count, by: columns) {
            text += base64[start..<min(start + columns, count)] + [UInt8(ascii: "\n")]
        }
        return text + Array("\(footer)\n".utf8)
    }

    static func isThere(_ text: UnsafeRawBufferPointer) -> Bool {
        text.drop { isSpace($0) }.starts(with: "\(header)".utf8)
    }

    /// Space before and behind it is nobody's.
    static func remove(_ text: UnsafeRawBufferPointer) throws(KeyringError) -> [UInt8] {
        var rest = text.drop { isSpace($0) }
        while let last = rest.last, isSpace(last) { rest = rest.dropLast() }
        let lines = rest.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false).map { line in
            line.last == UInt8(ascii: "\r") ? line.dropLast() : line
        }
        guard lines.count > 2, lines[0].elementsEqual("\(header)".utf8),
            lines[lines.count - 1].elementsEqual("\(footer)".utf8)
        else { throw AgeFile.malformed }
        let body = lines.dropFirst().dropLast()
        guard body.dropLast().allSatisfy({ $0.count == columns }), (1...columns).contains(body.last?.count ?? 0) else {
            throw AgeFile.malformed
        }
        let base64 = body.flatMap { $0 }
        var bytes = [UInt8](repeating: 0, count: base64.count / 4 * 3)
        let count = bytes.withUnsafeMutableBytes { bytes in base64.withUnsafeBytes { Base64.decode($0, into: bytes) } }
        guard let count else { throw AgeFile.malformed }
        return Array(bytes.prefix(count))
    }

    private static func isSpace(_ byte: UInt8) -> Bool { " \t\r\n".utf8.contains(byte) }
}
