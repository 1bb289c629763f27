public import Sodium

/// A phrase to print and put away: 160 random bits and 20 bits of checksum, in 36 characters of Crockford's base 32, nine
/// groups of four.
///
///     7H2K-9QXM-…
///
/// Read again, small letters are large ones, O is 0, I and L are 1, and whatever stands between groups is passed over.
public enum RecoveryPhrase {
    /// Bytes of the secret that a phrase stands for.
    static let secretByteCount = 20
    private static let secretSymbolCount = secretByteCount * 8 / 5
    private static let checkSymbolCount = 4
    private static let groupSymbolCount = 4
    /// Characters with the dashes.
    public static let characterCount =
        secretSymbolCount + checkSymbolCount + (secretSymbolCount + checkSymbolCount) / groupSymbolCount - 1

    private static let alphabet: StaticString = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

    /// A new phrase, ASCII, without a newline.
    public static func make() throws(KeyringError) -> SecretBytes {
        do {
            var secret = try SecretBytes(byteCount: secretByteCount)
            secret.withUnsafeMutableBytes { Randomness.fill($0) }
            var phrase = try SecretBytes(byteCount: characterCount)
            secret.withUnsafeBytes { secret in phrase.withUnsafeMutableBytes { write(secret, into: $0) } }
            return phrase
        } catch { throw .cannotLock }
    }

    static func write(_ secret: UnsafeRawBufferPointer, into phrase: UnsafeMutableRawBufferPointer) {
        var place = 0
        var written = 0
        func put(_ symbol: Int) {
            if written > 0, written % groupSymbolCount == 0 {
                phrase[place] = UInt8(ascii: "-")
                place += 1
            }
            phrase[place] = alphabet.utf8Start[symbol]
            place += 1
            written += 1
        }
        for index in 0..<secretSymbolCount { put(symbol(index, of: secret)) }
        let check = checksum(of: secret)
        for index in 0..<checkSymbolCount { put(check >> (15 - 5 * index) & 31) }
    }

    /// The secret of a phrase as somebody has typed it; false if it is none.
    static func read(_ phrase: UnsafeRawBufferPointer, into secret: UnsafeMutableRawBufferPointer) -> Bool {
        secret.initializeMemory(as: UInt8.self, repeating: 0)
        var count = 0
        var check = 0
        for byte in phrase {
            switch byte {
            case UInt8(ascii: "-"), UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\r"), UInt8(ascii: "\n"):
                continue
            default: break
            }
            guard let value = value(of: byte), count < secretSymbolCount + checkSymbolCount else { return false }
            if count < secretSymbolCount { put(value, count, into: secret) } else { check = check << 5 | value }
            count += 1
        }
        return count == secretSymbolCount + checkSymbolCount && check == checksum(of: UnsafeRawBufferPointer(secret))
    }

    // MARK: Symbols of five bits, the highest first

    private static func symbol(_ index: Int, of secret: UnsafeRawBufferPointer) -> Int {
        let bit = index * 5
        let high = Int(secret[bit / 8]) << 8
        let pair = high | (bit / 8 + 1 < secret.count ? Int(secret[bit / 8 + 1]) : 0)
        return pair >> (11 - bit % 8) & 31
    }

    private static func put(_ symbol: Int, _ index: Int, into secret: UnsafeMutableRawBufferPointer) {
        let bit = index * 5
        let pair = symbol << (11 - bit % 8)
        secret[bit / 8] |= UInt8(truncatingIfNeeded: pair >> 8)
        if bit / 8 + 1 < secret.count { secret[bit / 8 + 1] |= UInt8(truncatingIfNeeded: pair) }
    }

    private static func value(of byte: UInt8) -> Int? {
        let upper = (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) ? byte - 0x20 : byte
        switch upper {
        case UInt8(ascii: "O"): return 0
        case UInt8(ascii: "I"), UInt8(ascii: "L"): return 1
        default: return (0..<32).first { alphabet.utf8Start[$0] == upper }
        }
    }

    /// 20 bits: one wrong character, or two exchanged, are noticed but for one time in a million.
    private static func checksum(of secret: UnsafeRawBufferPointer) -> Int {
        withUnsafeTemporaryAllocation(byteCount: 32, alignment: 8) { hash in
            Checksum.blake2b(secret, into: hash)
            defer { Memory.wipe(hash) }
            return Int(hash[0]) << 12 | Int(hash[1]) << 4 | Int(hash[2]) >> 4
        }
    }
}

/// A recovery phrase opens the keyring. It is random, so that it needs no stretching.
public final class RecoveryService: KeyService {
    public let kind = KeySlotKind.recovery
    private let phrase: SecretBytes

    public init(phrase: consuming SecretBytes) { self.phrase = phrase }

    public func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        LocalSlot.seal(key, kind, [], context, under: try self.key())
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        try LocalSlot.open(slot, context, under: try key())
    }

    private func key() throws(KeyringError) -> SecretKey {
        try phrase.withUnsafeBytes { phrase throws(KeyringError) in
            try withScratchKey { (bytes: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                let secret = UnsafeMutableRawBufferPointer(rebasing: bytes[..<RecoveryPhrase.secretByteCount])
                guard RecoveryPhrase.read(phrase, into: secret) else {
                    throw .service(
                        KeyServiceFault(
                            .denied, "that is no recovery phrase",
                            hint: "a character is wrong, missing or too many: it has nine groups of four"))
                }
                do {
                    return try SecretKey(copying: UnsafeRawBufferPointer(bytes)).derived("letterlock recovery phrase 1")
                } catch { throw .cannotLock }
            }
        }
    }
}
