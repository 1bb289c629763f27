import Sodium

extension SecretValue {
    /// What it is the base64 of; nil if it is none.
    func decodedBase64() -> SecretValue? {
        withBytes { text in
            let value = SecretValue()
            let isBase64 = value.appendUninitialized(text.count / 4 * 3) { room in
                Base64.decode(text, into: room)
            }
            return isBase64 ? value : nil
        }
    }

    func appendBase64(of value: SecretValue) {
        value.withBytes { bytes in
            let count = Base64.characterCount(of: bytes.count)
            appendUninitialized(count + 1) { room in
                Base64.encode(bytes, into: room)
                return count
            }
        }
    }
}
