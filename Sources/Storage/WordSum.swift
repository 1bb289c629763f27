/// A checksum against torn and lost writes, of eight bytes at a time in four lanes. It is no cipher: whoever can write
/// to the store can compute it, and what lies in the store authenticates itself.
enum WordSum {
    private static let factor: UInt64 = 0x9E37_79B9_7F4A_7C15

    static func of(_ bytes: UnsafeRawBufferPointer, seed: UInt64 = 0) -> UInt64 {
        var a = seed &+ factor
        var b = ~seed
        var c = UInt64(bytes.count) &* factor
        var d = factor
        var place = 0
        while place + 32 <= bytes.count {
            a = mix(a, bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
            b = mix(b, bytes.loadUnaligned(fromByteOffset: place + 8, as: UInt64.self))
            c = mix(c, bytes.loadUnaligned(fromByteOffset: place + 16, as: UInt64.self))
            d = mix(d, bytes.loadUnaligned(fromByteOffset: place + 24, as: UInt64.self))
            place += 32
        }
        while place + 8 <= bytes.count {
            a = mix(a, bytes.loadUnaligned(fromByteOffset: place, as: UInt64.self))
            place += 8
        }
        while place < bytes.count {
            b = mix(b, UInt64(bytes[place]))
            place += 1
        }
        return mix(mix(a, b), mix(c, d))
    }

    @inline(__always)
    private static func mix(_ sum: UInt64, _ word: UInt64) -> UInt64 {
        let product = (sum ^ word) &* factor
        return product ^ (product >> 32)
    }
}
