import Glibc

/// The terminal, or whatever standard output and standard error are.
enum Output {
    /// Writes `text` and a newline to standard output.
    static func line(_ text: String = "") { write(text + "\n", to: STDOUT_FILENO) }

    /// Writes `letterlock: message`, and the hint on a line of its own, to standard error.
    static func report(_ failure: Failure) {
        write("letterlock: \(printable(failure.message))\n", to: STDERR_FILENO)
        if let hint = failure.hint { write("\(printable(hint))\n", to: STDERR_FILENO) }
    }

    static func warn(_ message: String) {
        write("letterlock: warning: \(printable(message))\n", to: STDERR_FILENO)
    }

    /// Writes all of `text`; what a closed pipe does not take is nobody's loss.
    static func write(_ text: String, to descriptor: Int32) {
        var text = text
        text.withUTF8 { bytes in
            var rest = UnsafeRawBufferPointer(bytes)
            while !rest.isEmpty {
                let count = Glibc.write(descriptor, rest.baseAddress, rest.count)
                if count < 0, errno == EINTR || errno == EAGAIN { continue }
                guard count > 0 else { return }
                rest = UnsafeRawBufferPointer(rebasing: rest[count...])
            }
        }
    }

    /// `text` with what could steer a terminal shown as escapes: names come from stores that others may write.
    static func printable(_ text: String) -> String {
        var result = ""
        for scalar in text.unicodeScalars {
            switch scalar.value {
            case 0x00..<0x20, 0x7F..<0xA0: result += "\\x" + hex(scalar.value)
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result
    }

    private static func hex(_ value: UInt32) -> String {
        (value < 16 ? "0" : "") + String(value, radix: 16)
    }
}

enum SystemError {
    /// An error number in words, lower case as all messages are: `no such file or directory`.
    static func text(_ number: Int32) -> String {
        let text = String(cString: strerror(number))
        // "Is a directory" becomes "is a directory", "RPC …" stays.
        guard let second = text.dropFirst().first, second.isLowercase || second == " " else { return text }
        return text.prefix(1).lowercased() + text.dropFirst()
    }
}
