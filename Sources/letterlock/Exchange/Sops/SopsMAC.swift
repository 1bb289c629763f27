import Sodium

/// What sops seals as its MAC: SHA-512 of all values, one after the other, in capital hexadecimal digits.
final class SopsMAC {
    enum Coverage {
        case everything
        /// Those that are sealed alone; the hash then begins with a constant, SHA-256 of `sops`.
        case sealedValues
    }

    private var hash = SHA512()

    init(covers coverage: Coverage) {
        guard coverage == .sealedValues else { return }
        var constant = SHA256()
        Array("sops".utf8).withUnsafeBytes { constant.add($0) }
        constant.finish().withUnsafeBytes { hash.add($0) }
    }

    func add(_ value: SecretValue) { value.withBytes { hash.add($0) } }

    /// Nothing can be added afterwards.
    func text() -> SecretValue {
        let text = SecretValue()
        let digits = Array("0123456789ABCDEF".utf8)
        for byte in hash.finish() {
            text.append(digits[Int(byte >> 4)])
            text.append(digits[Int(byte & 15)])
        }
        return text
    }
}
