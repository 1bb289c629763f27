internal import Keyring
internal import Sodium

/// A token, a secret key or a PIN: a line of printable characters in locked memory, shared by reference.
final class SecretToken: Sendable {
    private let memory: SecretBytes

    /// - Throws: `.cannotLock`; nil if it is no such line.
    init?(_ bytes: UnsafeRawBufferPointer) throws(KeyringError) {
        // What is part of a header must not end it.
        guard !bytes.isEmpty, bytes.allSatisfy({ (0x21...0x7E).contains($0) }) else { return nil }
        do {
            var memory = try SecretBytes(byteCount: bytes.count)
            memory.withUnsafeMutableBytes { $0.copyMemory(from: bytes) }
            self.memory = memory
        } catch { throw .cannotLock }
    }

    var byteCount: Int { memory.byteCount }

    func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try memory.withUnsafeBytes(body)
    }
}
