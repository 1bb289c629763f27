import Sodium
import Testing

@Suite struct SealTests {
    /// draft-irtf-cfrg-xchacha-03, appendix A.3.1.
    static let key = (0x80...0x9F).map { UInt8($0) }
    static let nonce = (0x40...0x57).map { UInt8($0) }
    static let data = bytes("50515253c0c1c2c3c4c5c6c7")
    static let message = [UInt8](
        ("Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
            + "sunscreen would be it.").utf8)
    static let sealed = Sealed(
        ciphertext: bytes(
            "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54"
                + "c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff921f9664c97637da976"
                + "8812f615c68b13b52e"),
        tag: bytes("c0875924c1c7987947deafd8780acf49"))

    @Test func `seals as the draft's example`() {
        #expect(seal(Self.message, data: Self.data, nonce: Self.nonce, key: Self.key) == Self.sealed)
    }

    @Test func `opens the draft's example`() {
        let opened = open(Self.sealed, data: Self.data, nonce: Self.nonce, key: Self.key)
        #expect(opened.isOpen && opened.plaintext == Self.message)
    }

    @Test func `a flipped bit anywhere does not open, and leaves zeros`() {
        func refuses(_ sealed: Sealed, _ data: [UInt8], _ nonce: [UInt8], _ key: [UInt8]) -> Bool {
            let opened = open(sealed, data: data, nonce: nonce, key: key)
            return !opened.isOpen && opened.plaintext.allSatisfy { $0 == 0 }
        }
        for bit in 0..<8 {
            for index in Self.sealed.ciphertext.indices {
                var changed = Self.sealed
                changed.ciphertext[index] ^= 1 << bit
                #expect(refuses(changed, Self.data, Self.nonce, Self.key))
            }
            for index in 0..<16 {
                var changed = Self.sealed
                changed.tag[index] ^= 1 << bit
                #expect(refuses(changed, Self.data, Self.nonce, Self.key))
            }
            for (index, part) in [Self.data, Self.nonce, Self.key].enumerated() {
                var parts = [Self.data, Self.nonce, Self.key]
                parts[index][part.count - 1] ^= 1 << bit
                #expect(refuses(Self.sealed, parts[0], parts[1], parts[2]))
            }
        }
    }

    @Test func `an empty message is authenticated too`() {
        let sealed = seal([], data: [], nonce: Self.nonce, key: Self.key)
        #expect(open(sealed, data: [], nonce: Self.nonce, key: Self.key).isOpen)
        #expect(!open(sealed, data: [1], nonce: Self.nonce, key: Self.key).isOpen)
    }

    @Test func `seals and opens in place`() {
        var text = Self.message
        var tag = [UInt8](repeating: 0, count: 16)
        let isOpen = text.withUnsafeMutableBytes { text in
            tag.withUnsafeMutableBytes { tag in
                Self.nonce.withUnsafeBytes { nonce in
                    Self.data.withUnsafeBytes { data in
                        Self.key.withUnsafeBytes { key in
                            Seal.seal(
                                UnsafeRawBufferPointer(text), into: text, tag: tag, nonce: nonce, associatedData: data,
                                key: BorrowedKey(key))
                            #expect(text.elementsEqual(Self.sealed.ciphertext))
                            return Seal.open(
                                UnsafeRawBufferPointer(text), tag: UnsafeRawBufferPointer(tag), nonce: nonce,
                                associatedData: data, into: text, key: BorrowedKey(key))
                        }
                    }
                }
            }
        }
        #expect(isOpen && text == Self.message)
    }
}
