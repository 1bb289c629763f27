/// Bech32 (BIP 173) of 32 bytes, without its limit of length: how age writes its keys.
enum Bech32 {
    static let byteCount = 32
    /// 256 bits in groups of five, the last one of them with four zeros.
    private static let symbolCount = (byteCount * 8 + 4) / 5
    private static let checkCount = 6
    private static let alphabet: StaticString = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"

    /// - Parameter prefix: In small letters.
    static func encode(_ bytes: [UInt8], prefix: String) -> String {
        precondition(bytes.count == byteCount, "a key has 32 bytes")
        var checksum = Checksum(prefix)
        var text = prefix + "1"
        func put(_ symbol: Int) {
            text.unicodeScalars.append(Unicode.Scalar(alphabet.utf8Start[symbol]))
        }
        var bits = 0
        var count = 0
        for byte in bytes {
            bits = bits << 8 | Int(byte)
            count += 8
            while count >= 5 {
                count -= 5
                checksum.take(bits >> count & 31)
                put(bits >> count & 31)
            }
            bits &= 255
        }
        checksum.take(bits << (5 - count) & 31)
        put(bits << (5 - count) & 31)
        for _ in 0..<checkCount { checksum.take(0) }
        let check = checksum.value ^ 1
        for index in 0..<checkCount { put(check >> (5 * (checkCount - 1 - index)) & 31) }
        return text
    }

    /// Decodes text that is all small letters or all capitals into memory that may be locked.
    ///
    /// - Returns: False, with anything in `bytes`, if it is malformed or of another prefix.
    static func decode(_ text: UnsafeRawBufferPointer, prefix: String, into bytes: UnsafeMutableRawBufferPointer)
        -> Bool
    {
        precondition(bytes.count == byteCount, "a key has 32 bytes")
        let start = prefix.utf8.count + 1
        guard text.count == start + symbolCount + checkCount else { return false }
        let isUpper = text.contains { (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) }
        let isLower = text.contains { (UInt8(ascii: "a")...UInt8(ascii: "z")).contains($0) }
        guard isUpper != isLower else { return false }
        let name = prefix.utf8.map { isUpper && (0x61...0x7A).contains($0) ? $0 - 0x20 : $0 }
        guard text.prefix(start - 1).elementsEqual(name), text[start - 1] == UInt8(ascii: "1") else { return false }
        var checksum = Checksum(prefix)
        var bits = 0
        var count = 0
        var place = 0
        for (index, character) in text.dropFirst(start).enumerated() {
            let small = isUpper && (0x41...0x5A).contains(character) ? character + 0x20 : character
            guard let symbol = (0..<32).first(where: { alphabet.utf8Start[$0] == small }) else { return false }
            checksum.take(symbol)
            guard index < symbolCount else { continue }
            bits = (bits << 5 | symbol) & 0xFFF
            count += 5
            if count >= 8 {
                count -= 8
                bytes[place] = UInt8(truncatingIfNeeded: bits >> count)
                place += 1
            }
        }
        return place == byteCount && bits & (1 << count - 1) == 0 && checksum.value == 1
    }

    private struct Checksum {
        var value = 1

        init(_ prefix: String) {
            for byte in prefix.utf8 { take(Int(byte >> 5)) }
            take(0)
            for byte in prefix.utf8 { take(Int(byte & 31)) }
        }

        mutating func take(_ symbol: Int) {
            let top = value >> 25
            value = (value & 0x1FF_FFFF) << 5 ^ symbol
            for (bit, factor) in [0x3B6A_57B2, 0x2650_8E6D, 0x1EA1_19FA, 0x3D42_33DD, 0x2A14_62B3].enumerated()
            where top >> bit & 1 == 1 {
                value ^= factor
            }
        }
    }
}
