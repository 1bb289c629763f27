internal import Sodium

/// `le64(length) bytes`, one after the other: associated data that can be taken apart in one way only.
func withAssociatedData<R>(
    _ label: StaticString, _ parts: [UnsafeRawBufferPointer], _ body: (UnsafeRawBufferPointer) -> R
)
    -> R
{
    let label = UnsafeRawBufferPointer(start: label.utf8Start, count: label.utf8CodeUnitCount)
    let byteCount = 8 + label.count + parts.reduce(0) { $0 + 8 + $1.count }
    return withTemporaryBytes(byteCount) { data in
        var place = 0
        func append(_ part: UnsafeRawBufferPointer) {
            data.storeBytes(of: UInt64(part.count).littleEndian, toByteOffset: place, as: UInt64.self)
            place += 8
            guard part.count > 0 else { return }
            UnsafeMutableRawBufferPointer(rebasing: data[place..<place + part.count]).copyMemory(from: part)
            place += part.count
        }
        append(label)
        for part in parts { append(part) }
        return body(UnsafeRawBufferPointer(data))
    }
}

/// A key sealed under another: `nonce 24 | tag 16 | ciphertext 32`.
enum SealedKey {
    static let byteCount = Seal.nonceByteCount + Seal.tagByteCount + SecretKey.byteCount

    static func seal(
        _ key: UnsafeRawBufferPointer, into sealed: UnsafeMutableRawBufferPointer,
        associatedData: UnsafeRawBufferPointer,
        under wrapping: borrowing BorrowedKey
    ) {
        let nonce = UnsafeMutableRawBufferPointer(rebasing: sealed[0..<24])
        Randomness.nonce(into: nonce)
        Seal.seal(
            key, into: UnsafeMutableRawBufferPointer(rebasing: sealed[40..<72]),
            tag: UnsafeMutableRawBufferPointer(rebasing: sealed[24..<40]), nonce: UnsafeRawBufferPointer(nonce),
            associatedData: associatedData, key: wrapping)
    }

    static func open(
        _ sealed: UnsafeRawBufferPointer, into key: UnsafeMutableRawBufferPointer,
        associatedData: UnsafeRawBufferPointer, under wrapping: borrowing BorrowedKey
    ) -> Bool {
        Seal.open(
            UnsafeRawBufferPointer(rebasing: sealed[40..<72]), tag: UnsafeRawBufferPointer(rebasing: sealed[24..<40]),
            nonce: UnsafeRawBufferPointer(rebasing: sealed[0..<24]), associatedData: associatedData, into: key,
            key: wrapping)
    }
}
