internal import CSodium

/// Keys out of passphrases: Argon2id, version 1.3 (RFC 9106), one lane.
public enum PasswordHash {
    public static let saltByteCount = 16

    /// What a guess shall cost.
    public struct Parameters: Sendable, Equatable {
        /// Passes over the memory.
        public let opsLimit: UInt64
        public let memoryByteCount: UInt64

        public static let opsBounds: ClosedRange<UInt64> = 1...16
        public static let memoryBounds: ClosedRange<UInt64> = 8 << 20...1 << 30

        /// - Throws: `.parametersOutOfBounds`: too cheap to protect, or so dear that opening would never end.
        public init(opsLimit: UInt64, memoryByteCount: UInt64) throws(SodiumError) {
            guard Self.opsBounds.contains(opsLimit), Self.memoryBounds.contains(memoryByteCount) else {
                throw .parametersOutOfBounds
            }
            self.init(checked: opsLimit, memoryByteCount)
        }

        private init(checked opsLimit: UInt64, _ memoryByteCount: UInt64) {
            self.opsLimit = opsLimit
            self.memoryByteCount = memoryByteCount
        }

        /// The least that is taken: for tests.
        public static let minimal = Parameters(checked: opsBounds.lowerBound, memoryBounds.lowerBound)
        /// RFC 9106's second recommendation, for machines that are short of memory: 3 passes over 64 MiB.
        public static let standard = Parameters(checked: 3, 64 << 20)
        /// libsodium's: 3 passes over 256 MiB.
        public static let moderate = Parameters(checked: 3, 256 << 20)
    }

    /// Derives a key, in the time and memory that `parameters` say.
    ///
    /// - Precondition: `salt` has 16 bytes.
    /// - Throws: `.outOfMemory`, `.cannotLock`; `.parametersOutOfBounds` if the passphrase is empty.
    public static func derive(
        passphrase: UnsafeRawBufferPointer, salt: [UInt8], parameters: Parameters
    ) throws(SodiumError) -> SecretKey {
        precondition(salt.count == saltByteCount, "a salt has 16 bytes")
        guard let start = passphrase.baseAddress?.assumingMemoryBound(to: CChar.self), !passphrase.isEmpty else {
            throw .parametersOutOfBounds
        }
        var status: Int32 = -1
        let key = try SecretKey.make { key in
            status = crypto_pwhash(
                key.address!, UInt64(key.count), start,
                UInt64(passphrase.count), salt, parameters.opsLimit, Int(parameters.memoryByteCount),
                crypto_pwhash_ALG_ARGON2ID13)
        }
        guard status == 0 else { throw .outOfMemory }
        return key
    }

    public static func derive(
        passphrase: borrowing SecretBytes, salt: [UInt8], parameters: Parameters
    ) throws(SodiumError) -> SecretKey {
        try passphrase.withUnsafeBytes { bytes throws(SodiumError) in
            try derive(passphrase: bytes, salt: salt, parameters: parameters)
        }
    }
}
