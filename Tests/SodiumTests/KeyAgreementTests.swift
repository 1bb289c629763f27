import Sodium
import Testing

@Suite struct KeyAgreementTests {
    /// RFC 7748, section 6.1.
    static let alice = bytes("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    static let bob = bytes("5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb")
    static let publicKeys = [
        bytes("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
        bytes("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f"),
    ]
    static let shared = bytes("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")

    private func key(_ bytes: [UInt8]) throws -> SecretKey { try bytes.withUnsafeBytes { try SecretKey(copying: $0) } }

    @Test func `both sides agree as in the RFC's example`() throws {
        let (alice, bob) = (try key(Self.alice), try key(Self.bob))
        #expect([alice, bob].map(KeyAgreement.publicKey) == Self.publicKeys)
        for (secret, publicKey) in [(alice, Self.publicKeys[1]), (bob, Self.publicKeys[0])] {
            let shared = try #require(try KeyAgreement.shared(secret, with: publicKey))
            #expect(shared.withKey { [UInt8]($0.bytes) } == Self.shared)
        }
    }

    @Test(arguments: [
        [UInt8](repeating: 0, count: 32), [1] + [UInt8](repeating: 0, count: 31),
        bytes("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
    ])
    func `a point of low order gives no secret`(point: [UInt8]) throws {
        #expect(try KeyAgreement.shared(key(Self.alice), with: point) == nil)
    }
}
