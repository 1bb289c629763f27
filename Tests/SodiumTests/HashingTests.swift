import Sodium
import Testing

/// The expected values come from Python's hashlib.blake2b.
@Suite struct HashingTests {
    private func keyedHash(_ a: [UInt8], _ b: [UInt8], byteCount: Int) -> [UInt8] {
        var hash = [UInt8](repeating: 0, count: byteCount)
        hash.withUnsafeMutableBytes { hash in
            a.withUnsafeBytes { a in
                b.withUnsafeBytes { b in
                    countingKey.withUnsafeBytes { KeyedHash.hash(a, b, key: BorrowedKey($0), into: hash) }
                }
            }
        }
        return hash
    }

    private func derived(_ context: [UInt8]) -> [UInt8] {
        var key = [UInt8](repeating: 0, count: 32)
        key.withUnsafeMutableBytes { key in
            context.withUnsafeBytes { context in
                countingKey.withUnsafeBytes {
                    Derivation.derive("letterlock test", context: context, from: BorrowedKey($0), into: key)
                }
            }
        }
        return key
    }

    @Test func `derives keys by label and context`() throws {
        #expect(
            derived([UInt8]("context".utf8))
                == bytes("5e1f0f6f070f66bc5e20e72fcd72c97afc1548e965c0de63f15f4306cfa08e39"))
        #expect(derived([]) == bytes("adf7f71cea061edb9a669da8c31f4abf42e1a751e770c3885ab86a36aba78ea7"))
        let key = try countingKey.withUnsafeBytes { key in
            try [UInt8]("context".utf8).withUnsafeBytes {
                try Derivation.derive("letterlock test", context: $0, from: BorrowedKey(key))
            }
        }
        #expect(key.withKey { [UInt8]($0.bytes) } == derived([UInt8]("context".utf8)))
    }

    @Test func `hashes under a key, 16 to 64 bytes`() {
        #expect(keyedHash([0x61, 0x62], [0x63], byteCount: 16) == bytes("89d5f22c2e186ad1fe7c9f4d2e1d7956"))
        #expect(
            keyedHash([], [UInt8](repeating: 0x78, count: 1000), byteCount: 64)
                == bytes(
                    "00abd3915514f0eaa9b8ebd3f9dc5f37807f0bcc5762f4fa24c60218ebd6c269"
                        + "e755c43ebb8e6829ec8dd333145146d9d2c53559bd065758f73ca781241f5621"))
    }

    @Test func `where one part ends and the next begins makes a difference`() {
        #expect(keyedHash([1, 2], [3], byteCount: 32) != keyedHash([1], [2, 3], byteCount: 32))
    }

    @Test func `hashes without a key as RFC 7693 does`() {
        var hash = [UInt8](repeating: 0, count: 64)
        hash.withUnsafeMutableBytes { hash in
            [UInt8]("abc".utf8).withUnsafeBytes { Checksum.blake2b($0, into: hash) }
        }
        #expect(
            hash
                == bytes(
                    "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
                        + "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"))
    }
}

struct SHA256Tests {
    /// NIST's vectors: the empty message, and one of 56 bytes in two parts.
    @Test func `known hashes`() {
        func hex(_ parts: [String]) -> String {
            var hash = SHA256()
            for var part in parts { part.withUTF8 { hash.add(UnsafeRawBufferPointer($0)) } }
            return hash.finish().map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
        }
        #expect(hex([]) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
        #expect(
            hex(["abcdbcdecdefdefgefghfghighijhijk", "ijkljklmklmnlmnomnopnopq"])
                == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1")
    }
}

struct SigningTests {
    /// RFC 8032, section 7.1, test 2.
    @Test func `a known signature`() throws {
        LockedMemory.allowsUnlocked = true
        try Sodium.start()
        func bytes(_ hex: String) -> [UInt8] {
            stride(from: 0, to: hex.utf8.count, by: 2).map { place in
                let start = hex.index(hex.startIndex, offsetBy: place)
                return UInt8(hex[start..<hex.index(start, offsetBy: 2)], radix: 16)!
            }
        }
        let seed = bytes("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
        let key = try SigningKey(seed: try seed.withUnsafeBytes { try SecretKey(copying: $0) })
        #expect(key.publicKey == bytes("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"))
        let signature = [UInt8(0x72)].withUnsafeBytes { key.sign($0) }
        #expect(
            signature
                == bytes(
                    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
                        + "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"))
        #expect([UInt8(0x72)].withUnsafeBytes { SigningKey.verify(signature, of: $0, by: key.publicKey) })
        #expect(![UInt8(0x73)].withUnsafeBytes { SigningKey.verify(signature, of: $0, by: key.publicKey) })
        #expect(![UInt8(0x72)].withUnsafeBytes { SigningKey.verify([], of: $0, by: key.publicKey) })
    }

    /// RFC 4231 has keys of other lengths; this one is Python's hmac of "abc" with 32 bytes 0…31.
    @Test func `a known code`() {
        let key = (0..<32 as Range<UInt8>).map { $0 }
        let code = key.withUnsafeBytes { key in
            Array("abc".utf8).withUnsafeBytes { MessageAuthentication.hmacSHA256($0, key: BorrowedKey(key)) }
        }
        #expect(code == expectedCode)
    }

    @Test func `SHA-512 is that of others, in parts as well`() throws {
        var nothing = SHA512()
        #expect(
            nothing.finish()
                == bytes(
                    "cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce"
                        + "47d0d13c5d85f2b0ff8318d2877eec2f63b931bd47417a81a538327af927da3e"))
        var hash = SHA512()
        for _ in 0..<100 { Array("letterlock".utf8).withUnsafeBytes { hash.add($0) } }
        #expect(
            hash.finish()
                == bytes(
                    "1407727fbccdec828da228e8499b711f1e46ef50b1e27a773331457d3e813987"
                        + "55ad6812c3f7dcc4e8173ce8df0371e2e4766a8df8c6a156bdfe5acb305aeb90"))
    }
}

private let expectedCode: [UInt8] = [
    240, 19, 55, 41, 196, 22, 61, 237, 232, 30, 33, 205, 71, 131, 146, 86, 218, 88, 23, 18, 56, 200, 160, 216, 116, 57,
    124, 115, 177, 78, 30, 71,
]
