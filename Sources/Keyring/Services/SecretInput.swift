public import Sodium

/// Where a passphrase comes from: never arguments, never the environment.
public enum SecretInput {
    /// The longest passphrase, in bytes.
    public static let limit = 4096

    /// All that a descriptor gives, without one newline at the end.
    public static func read(descriptor: Int32) throws(KeyringError) -> SecretBytes {
        let text = try readable { () throws(KeyringError) in
            try SecretFile.read(descriptor, "file descriptor \(descriptor)", limit: limit + 1)
        }
        return try line(of: text, text.byteCount)
    }

    /// All that a file holds, without one newline at the end.
    public static func read(path: String) throws(KeyringError) -> SecretBytes {
        let text = try readable { () throws(KeyringError) in
            try SecretFile.read(path, limit: limit + 1, forbiddenMode: nil)
        }
        return try line(of: text, text.byteCount)
    }

    /// What is too long is no key file, but a passphrase.
    private static func readable(_ body: () throws(KeyringError) -> SecretBytes) throws(KeyringError) -> SecretBytes {
        do { return try body() } catch .malformedKeyFile {
            throw .serviceUnavailable("the passphrase is longer than \(limit) bytes")
        }
    }

    /// Asks on the terminal, without echo.
    ///
    /// - Parameter again: The second question, for a new passphrase; the answers have to be the same.
    /// - Throws: `.serviceUnavailable` without a terminal, or if nothing was entered, or twice not the same.
    public static func ask(_ prompt: String, again: String? = nil) throws(KeyringError) -> SecretBytes {
        let terminal = try QuietTerminal()
        let first = try answer(to: prompt, on: terminal)
        guard let again else { return first }
        let second = try answer(to: again, on: terminal)
        let isSame = first.withUnsafeBytes { one in second.withUnsafeBytes { Memory.equal(one, $0) } }
        guard isSame else { throw .serviceUnavailable("the two passphrases are not the same") }
        return first
    }

    private static func answer(to prompt: String, on terminal: borrowing QuietTerminal) throws(KeyringError)
        -> SecretBytes
    {
        var buffer: SecretBytes
        do { buffer = try SecretBytes(byteCount: limit + 2) } catch { throw .cannotLock }
        let count = try terminal.readLine(prompt, into: &buffer)
        return try line(of: buffer, count)
    }

    /// The first `count` bytes without a newline at their end.
    private static func line(of source: borrowing SecretBytes, _ count: Int) throws(KeyringError) -> SecretBytes {
        let length = source.withUnsafeBytes {
            SecretFile.lineByteCount(UnsafeRawBufferPointer(rebasing: $0[0..<count]))
        }
        guard length > 0 else {
            throw .serviceUnavailable("the passphrase is empty\nit is one line of 1 to \(limit) bytes")
        }
        guard length <= limit else {
            throw .serviceUnavailable("the passphrase is longer than \(limit) bytes")
        }
        var bytes: SecretBytes
        do { bytes = try SecretBytes(byteCount: length) } catch { throw .cannotLock }
        source.withUnsafeBytes { source in
            bytes.withUnsafeMutableBytes {
                $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[0..<length]))
            }
        }
        return bytes
    }
}
