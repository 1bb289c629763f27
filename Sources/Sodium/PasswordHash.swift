internal import CSodium

/// A key from a passphrase: Argon2id 1.3.
public enum PasswordHash {
    public static let saltByteCount = 16

    /// What one derivation costs whoever tries a passphrase.
    public struct Parameters: Hashable, Sendable {
        public var opsLimit: UInt64
        /// Bytes of memory, a whole number of KiB.
        public var memoryByteCount: UInt64

        public init(opsLimit: UInt64, memoryByteCount: UInt64) {
            self.opsLimit = opsLimit
            self.memoryByteCount = memoryByteCount
        }

        /// libsodium's "moderate": 3 passes over 256 MiB, about half a second.
        public static let moderate = Parameters(opsLimit: 3, memoryByteCount: 256 << 20)
        /// The weakest that is accepted (OWASP's minimum of 19 MiB and 2 passes, 2023).
        public static let weakest = Parameters(opsLimit: 2, memoryByteCount: 19 << 20)
        /// The most that a stored configuration may ask of this machine.
        public static let strongest = Parameters(opsLimit: 64, memoryByteCount: 4 << 30)

        public var areAcceptable: Bool {
            (Self.weakest.opsLimit...Self.strongest.opsLimit).contains(opsLimit)
                && (Self.weakest.memoryByteCount...Self.strongest.memoryByteCount).contains(memoryByteCount)
                && memoryByteCount % 1024 == 0
        }
    }

    /// Derives a key.
    ///
    /// - Parameter salt: 16 bytes.
    /// - Throws: `.parametersOutOfBounds`; `.outOfMemory` if the machine has not so much.
    public static func derive(
        passphrase: UnsafeRawBufferPointer, salt: UnsafeRawBufferPointer, parameters: Parameters
    ) throws(SodiumError) -> SecretKey {
        guard parameters.areAcceptable, salt.count == saltByteCount else { throw .parametersOutOfBounds }
        return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(SodiumError) -> SecretKey in
            let passphrase = passphrase.octets.withMemoryRebound(to: CChar.self, capacity: passphrase.count) {
                UnsafeBufferPointer(start: $0, count: passphrase.count)
            }
            let status = crypto_pwhash(
                key.octets, UInt64(key.count), passphrase.baseAddress!, UInt64(passphrase.count), salt.octets,
                parameters.opsLimit, Int(parameters.memoryByteCount), crypto_pwhash_ALG_ARGON2ID13)
            guard status == 0 else { throw .outOfMemory }
            return try SecretKey(copying: UnsafeRawBufferPointer(key))
        }
    }
}

/// Base64 without lookups that depend on the secret.
public enum Base64 {
    /// Decodes one line of standard Base64, with or without padding, into `decoded`.
    ///
    /// - Returns: how many bytes there were; nil if it is not Base64 or does not fit.
    public static func decode(
        _ text: UnsafeRawBufferPointer, into decoded: UnsafeMutableRawBufferPointer
    ) -> Int? {
        var count = 0
        var end: UnsafePointer<CChar>?
        let status = text.octets.withMemoryRebound(to: CChar.self, capacity: text.count) { characters in
            let status = sodium_base642bin(
                decoded.octets, decoded.count, characters, text.count, nil, &count, &end,
                sodium_base64_VARIANT_ORIGINAL)
            return status == 0 && end == characters + text.count
        }
        return status ? count : nil
    }
}
