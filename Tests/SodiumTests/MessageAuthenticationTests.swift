import Sodium
import Testing

/// RFC 4231, test cases 1, 2 and 6.
@Suite struct MessageAuthenticationTests {
    @Test(
        arguments: [
            (
                [UInt8](repeating: 0x0B, count: 20), "Hi There",
                "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"
            ),
            (
                Array("Jefe".utf8), "what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
            ),
            (
                [UInt8](repeating: 0xAA, count: 131), "Test Using Larger Than Block-Size Key - Hash Key First",
                "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
            ),
        ])
    func `HMAC-SHA256 is that of its RFC, in however many parts`(key: [UInt8], message: String, expected: String) {
        let bytes = Array(message.utf8)
        for place in [0, 1, bytes.count / 2, bytes.count] {
            var tag = [UInt8](repeating: 0, count: HMAC.byteCount)
            tag.withUnsafeMutableBytes { tag in
                key.withUnsafeBytes { key in
                    bytes.withUnsafeBytes { bytes in
                        HMAC.sha256(
                            [
                                UnsafeRawBufferPointer(rebasing: bytes[..<place]),
                                UnsafeRawBufferPointer(rebasing: bytes[place...]),
                            ], key: key, into: tag)
                    }
                }
            }
            #expect(tag.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() == expected)
        }
    }
}

/// RFC 5869, the first 32 bytes of test case 3; with salts the program age agrees: see MountTests.
@Suite struct HKDFTests {
    @Test func `HKDF-SHA256 is that of its RFC`() throws {
        let secret = [UInt8](repeating: 0x0B, count: 22)
        func derived(_ salt: [UInt8], _ info: StaticString) throws -> String {
            let key = try secret.withUnsafeBytes { bytes in
                try Result { () throws(SodiumError) in try HKDF.sha256(bytes, salt: salt, info: info) }.get()
            }
            return key.withKey { $0.bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined() }
        }
        #expect(try derived([], "") == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d")
    }
}

/// That it is RFC 8439's is what the program age shows: see MountTests.
@Suite struct ChaChaSealTests {
    @Test func `what is sealed opens unchanged alone`() throws {
        let key = try SecretKey.random()
        let nonce = [UInt8](repeating: 3, count: ChaChaSeal.nonceByteCount)
        for count in [0, 1, 63, 64, 65, 1000] {
            let plaintext = (0..<count).map { UInt8(truncatingIfNeeded: $0) }
            var sealed = [UInt8](repeating: 0, count: count + ChaChaSeal.tagByteCount)
            sealed.withUnsafeMutableBytes { sealed in
                plaintext.withUnsafeBytes { plaintext in
                    key.withKey { ChaChaSeal.seal(plaintext, into: sealed, nonce: nonce, key: $0) }
                }
            }
            func open(_ sealed: [UInt8], _ nonce: [UInt8]) -> [UInt8]? {
                var opened = [UInt8](repeating: 9, count: count)
                let isOpen = opened.withUnsafeMutableBytes { opened in
                    sealed.withUnsafeBytes { sealed in
                        key.withKey { ChaChaSeal.open(sealed, into: opened, nonce: nonce, key: $0) }
                    }
                }
                #expect(isOpen || opened.allSatisfy { $0 == 0 })
                return isOpen ? opened : nil
            }
            #expect(open(sealed, nonce) == plaintext)
            for index in [0, count / 2, sealed.count - 1] {
                var changed = sealed
                changed[index] ^= 128
                #expect(open(changed, nonce) == nil)
            }
            #expect(open(sealed, nonce.map { $0 + 1 }) == nil)
        }
    }
}
