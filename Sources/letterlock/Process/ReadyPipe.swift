import Glibc

/// How a server in the background tells the command that started it how it went.
///
/// A message is a kind byte, an exit code byte, and a text: `length` as two little-endian bytes, then the bytes.
/// A hint stands in the text after a newline. The end of the pipe without `ready` or `failed` means that the
/// server died.
struct ReadyPipe: Sendable {
    private enum Kind {
        static let warning = UInt8(ascii: "W")
        static let failed = UInt8(ascii: "E")
        static let ready = UInt8(ascii: "R")
    }

    let descriptor: Int32

    func warn(_ text: String) { send(Kind.warning, code: 0, text) }

    func fail(_ failure: Failure) {
        send(
            Kind.failed, code: UInt8(failure.code.rawValue),
            failure.message + (failure.hint.map { "\n" + $0 } ?? ""))
    }

    func ready() {
        send(Kind.ready, code: 0, "")
        close(descriptor)
    }

    private func send(_ kind: UInt8, code: UInt8, _ text: String) {
        // A message is one write(2) that the pipe takes whole.
        let bytes = Array(text.utf8.prefix(Int(PIPE_BUF) - 4))
        let message = [kind, code, UInt8(bytes.count & 0xFF), UInt8(bytes.count >> 8)] + bytes
        while write(descriptor, message, message.count) < 0, errno == EINTR {}
    }

    /// The other end: shows warnings; returns when the server is ready, throws what it failed with.
    static func await(_ descriptor: Int32) throws(Failure) {
        while let header = receive(4, from: descriptor) {
            let length = Int(header[2]) | Int(header[3]) << 8
            guard let bytes = length == 0 ? [] : receive(length, from: descriptor) else { break }
            let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n", maxSplits: 1)
            switch header[0] {
            case Kind.ready: return
            case Kind.warning: Output.warn(lines.first.map(String.init) ?? "")
            default:
                throw Failure(
                    lines.first.map(String.init) ?? "the server failed",
                    hint: lines.count > 1 ? String(lines[1]) : nil,
                    code: ExitCode(rawValue: Int32(header[1])) ?? .failed)
            }
        }
        throw Failure("the server ended before it was ready", hint: "run it with -f to see what it says")
    }

    private static func receive(_ count: Int, from descriptor: Int32) -> [UInt8]? {
        var bytes = [UInt8](repeating: 0, count: count)
        var filled = 0
        while filled < count {
            let got = bytes.withUnsafeMutableBytes {
                read(descriptor, $0.baseAddress! + filled, count - filled)
            }
            if got < 0, errno == EINTR { continue }
            guard got > 0 else { return nil }
            filled += got
        }
        return bytes
    }
}
