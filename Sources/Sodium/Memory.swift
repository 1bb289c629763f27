internal import CSodium

/// Operations on bytes that the optimiser may not remove, nor their duration tell about.
public enum Memory {
    public static func wipe(_ bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        sodium_memzero(base, bytes.count)
    }

    /// In a time that depends on the lengths alone.
    public static func equal(_ a: UnsafeRawBufferPointer, _ b: UnsafeRawBufferPointer) -> Bool {
        guard a.count == b.count else { return false }
        guard let first = a.baseAddress, let second = b.baseAddress else { return true }
        return sodium_memcmp(first, second, a.count) == 0
    }
}

/// RFC 4648 base64 of secrets: no table lookups that depend on them.
public enum Base64 {
    /// How many characters so many bytes are.
    public static func characterCount(of byteCount: Int, isPadded: Bool = true) -> Int {
        isPadded ? (byteCount + 2) / 3 * 4 : (byteCount * 4 + 2) / 3
    }

    private static func variant(_ isPadded: Bool) -> Int32 {
        isPadded ? sodium_base64_VARIANT_ORIGINAL : sodium_base64_VARIANT_ORIGINAL_NO_PADDING
    }

    /// Encodes, padded or not.
    ///
    /// - Precondition: `text` has room for `characterCount` and a zero byte, which is written too.
    public static func encode(
        _ bytes: UnsafeRawBufferPointer, into text: UnsafeMutableRawBufferPointer, isPadded: Bool = true
    ) {
        precondition(text.count > characterCount(of: bytes.count, isPadded: isPadded), "there is no room for the text")
        let target = text.bindMemory(to: CChar.self).baseAddress!
        withUnsafeTemporaryAllocation(of: UInt8.self, capacity: 1) { none in
            none.initialize(repeating: 0)
            _ = sodium_bin2base64(
                target, text.count, bytes.address ?? UnsafePointer(none.baseAddress!), bytes.count,
                variant(isPadded))
        }
    }

    /// Decodes standard base64, padded or not, without white space and in no other spelling than `encode` has.
    ///
    /// - Returns: How many bytes were written; nil, and `target` zeroed, if `text` is malformed or too long.
    public static func decode(
        _ text: UnsafeRawBufferPointer, into target: UnsafeMutableRawBufferPointer, isPadded: Bool = true
    ) -> Int? {
        var count = 0
        var end: UnsafePointer<CChar>?
        guard let base = text.bindMemory(to: CChar.self).baseAddress, let start = target.address else {
            return text.isEmpty ? 0 : nil
        }
        let status = sodium_base642bin(
            start, target.count, base, text.count, nil, &count, &end,
            variant(isPadded))
        guard status == 0, end == base + text.count else {
            Memory.wipe(target)
            return nil
        }
        return count
    }
}
