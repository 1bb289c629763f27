import Sodium

/// Bytes of hexadecimal digits.
func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}

let countingKey = (0..<32).map { UInt8($0) }

/// A splitmix64 sequence: the same for the same seed.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// A sealed message of whole arrays: what tests compare.
struct Sealed: Equatable {
    var ciphertext: [UInt8]
    var tag: [UInt8]
}

func seal(_ plaintext: [UInt8], data: [UInt8], nonce: [UInt8], key: [UInt8]) -> Sealed {
    var sealed = Sealed(
        ciphertext: [UInt8](repeating: 0, count: plaintext.count), tag: [UInt8](repeating: 0, count: Seal.tagByteCount))
    sealed.ciphertext.withUnsafeMutableBytes { ciphertext in
        sealed.tag.withUnsafeMutableBytes { tag in
            plaintext.withUnsafeBytes { plaintext in
                nonce.withUnsafeBytes { nonce in
                    data.withUnsafeBytes { data in
                        key.withUnsafeBytes { key in
                            Seal.seal(
                                plaintext, into: ciphertext, tag: tag, nonce: nonce, associatedData: data,
                                key: BorrowedKey(key))
                        }
                    }
                }
            }
        }
    }
    return sealed
}

/// The plaintext, and whether it authenticates. What is there before is 0xAA.
func open(_ sealed: Sealed, data: [UInt8], nonce: [UInt8], key: [UInt8]) -> (plaintext: [UInt8], isOpen: Bool) {
    var plaintext = [UInt8](repeating: 0xAA, count: sealed.ciphertext.count)
    let isOpen = plaintext.withUnsafeMutableBytes { plaintext in
        sealed.ciphertext.withUnsafeBytes { ciphertext in
            sealed.tag.withUnsafeBytes { tag in
                nonce.withUnsafeBytes { nonce in
                    data.withUnsafeBytes { data in
                        key.withUnsafeBytes { key in
                            Seal.open(
                                ciphertext, tag: tag, nonce: nonce, associatedData: data, into: plaintext,
                                key: BorrowedKey(key))
                        }
                    }
                }
            }
        }
    }
    return (plaintext, isOpen)
}
