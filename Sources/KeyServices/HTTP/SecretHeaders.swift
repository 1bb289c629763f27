internal import Keyring
internal import Sodium

/// The header lines of a request, one behind the other in locked memory: a token may be part of them.
struct SecretHeaders: ~Copyable {
    private var text: SecretText
    private var places: [Int] = []

    /// - Parameter limit: Bytes of all lines, with a zero byte each.
    init(limit: Int) throws(KeyringError) { text = try SecretText(limit: limit) }

    mutating func add(_ name: String, _ value: String) {
        var value = value
        value.withUTF8 { add(name, UnsafeRawBufferPointer($0)) }
    }

    /// - Precondition: The value does not end the header.
    mutating func add(_ name: String, _ value: UnsafeRawBufferPointer) {
        precondition(value.allSatisfy { $0 >= 0x20 && $0 != 0x7F }, "a header ends where its line does")
        places.append(text.byteCount)
        text.append(name + ": ")
        text.append(value)
        text.append("\0")
    }

    /// The lines, each ended by a zero byte; not to be changed.
    borrowing func withLines<R, E: Error>(_ body: ([UnsafeMutablePointer<CChar>]) throws(E) -> R) throws(E) -> R {
        let places = places
        return try text.withCString { start throws(E) in try body(places.map { start + $0 }) }
    }
}
