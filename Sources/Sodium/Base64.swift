internal import CSodium

/// RFC 4648 base64 of secrets: no table lookups that depend on them.
public enum Base64 {
    public enum Padding: Sendable { case padded, unpadded }

    /// Decodes standard base64 without white space.
    ///
    /// - Returns: How many bytes were written; nil, and `target` zeroed, if `text` is malformed or too long.
    public static func decode(
        _ text: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, _ padding: Padding = .padded
    ) -> Int? {
        var count = 0
        var end: UnsafePointer<CChar>?
        guard let base = text.bindMemory(to: CChar.self).baseAddress, let start = target.address else {
            return text.isEmpty ? 0 : nil
        }
        let status = sodium_base642bin(start, target.count, base, text.count, nil, &count, &end, padding.variant)
        guard status == 0, end == base + text.count else {
            Memory.wipe(target)
            return nil
        }
        return count
    }

    /// How many bytes of text `count` bytes become.
    public static func encodedByteCount(of count: Int, _ padding: Padding = .padded) -> Int {
        padding == .padded ? (count + 2) / 3 * 4 : (count * 4 + 2) / 3
    }

    /// Encodes; libsodium puts a zero behind the text, so `target` has room for one byte more.
    ///
    /// - Returns: How many bytes of text were written.
    public static func encode(
        _ bytes: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, _ padding: Padding = .padded
    ) -> Int {
        let count = encodedByteCount(of: bytes.count, padding)
        precondition(target.count > count, "base64 needs room for a zero at its end")
        guard let base = bytes.address, let start = target.bindMemory(to: CChar.self).baseAddress else { return 0 }
        sodium_bin2base64(start, target.count, base, bytes.count, padding.variant)
        return count
    }
}

extension Base64.Padding {
    fileprivate var variant: Int32 {
        switch self {
        case .padded: sodium_base64_VARIANT_ORIGINAL
        case .unpadded: sodium_base64_VARIANT_ORIGINAL_NO_PADDING
        }
    }
}
