import Sodium
import Testing

@Suite struct PasswordHashTests {
    private func derive(_ passphrase: String, salt: [UInt8], _ parameters: PasswordHash.Parameters) throws -> [UInt8] {
        let key = try [UInt8](passphrase.utf8).withUnsafeBytes {
            try PasswordHash.derive(passphrase: $0, salt: salt, parameters: parameters)
        }
        return key.withKey { [UInt8]($0.bytes) }
    }

    /// The value was computed from RFC 9106 by a program of its own.
    @Test func `derives what RFC 9106 says`() throws {
        let salt = (0..<16).map { UInt8($0) }
        #expect(
            try derive("correct horse battery staple", salt: salt, .minimal)
                == bytes("9aeef75313e585f492c33c5e12d82e9ad253b7dd78632d537e899cd4eddd789c"))
        #expect(
            try derive("correct horse battery staple", salt: salt.reversed(), .minimal)
                != derive("correct horse battery staple", salt: salt, .minimal))
    }

    @Test(
        arguments: [(0, 8 << 20), (17, 8 << 20), (1, 8 << 20 - 1), (1, 1 << 30 + 1), (.max, .max)] as [(UInt64, UInt64)]
    )
    func `parameters out of bounds are refused`(opsLimit: UInt64, memoryByteCount: UInt64) {
        #expect(throws: SodiumError.parametersOutOfBounds) {
            try PasswordHash.Parameters(opsLimit: opsLimit, memoryByteCount: memoryByteCount)
        }
    }

    @Test func `an empty passphrase is refused`() {
        #expect(throws: SodiumError.parametersOutOfBounds) {
            try derive("", salt: [UInt8](repeating: 0, count: 16), .minimal)
        }
    }
}
