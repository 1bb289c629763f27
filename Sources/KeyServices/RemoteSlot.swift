internal import Keyring

/// What a slot of a service's holds: `ciphertext length 2 | ciphertext | slot's key 72`.
struct RemoteSlot {
    /// A key that the service sealed.
    let ciphertext: [UInt8]
    /// The slot's key, sealed under that one.
    let local: [UInt8]

    static let ciphertextLimit = 2048
    private static let localByteCount = 72

    init(_ ciphertext: [UInt8], _ local: [UInt8]) {
        self.ciphertext = ciphertext
        self.local = local
    }

    /// Takes apart what may be anything.
    init(_ slot: KeySlot) throws(KeyringError) {
        let sealed = slot.sealedKey
        guard sealed.count > 2 + Self.localByteCount,
            sealed.count == 2 + Int(sealed[0]) + Int(sealed[1]) << 8 + Self.localByteCount,
            sealed.count - 2 - Self.localByteCount <= Self.ciphertextLimit
        else { throw .damaged("a key slot is malformed") }
        ciphertext = Array(sealed[2..<sealed.count - Self.localByteCount])
        local = Array(sealed.suffix(Self.localByteCount))
    }

    var bytes: [UInt8] {
        let count = UInt16(ciphertext.count)
        return [UInt8(truncatingIfNeeded: count), UInt8(truncatingIfNeeded: count >> 8)] + ciphertext + local
    }
}

extension SlotContext {
    /// `length 8 | part` for whom it is, what it is for, the store and the keyring: what a service is told to bind.
    var bytes: [UInt8] {
        var bytes: [UInt8] = []
        func append(_ part: [UInt8]) {
            withUnsafeBytes(of: UInt64(part.count).littleEndian) { bytes += $0 }
            bytes += part
        }
        append(Array("letterlock".utf8))
        append(Array(purpose.rawValue.utf8))
        store.withUnsafeBytes { append([UInt8]($0)) }
        append(Array(keyring.utf8))
        return bytes
    }
}
