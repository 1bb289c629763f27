import CLinux
import Glibc

/// The socket between a guardian and one of its servers. A message is a kind, an exit code and a text, in one packet,
/// perhaps with a descriptor.
struct Channel: Sendable {
    enum Kind: UInt8 {
        // From the server.
        /// Something its administrator should know.
        case warning = 0x57
        /// It cannot serve: the exit code, what went wrong, and a hint after a newline.
        case failed = 0x45
        /// The store is open, with its lock as the descriptor: the keyring's name. The mount may be made.
        case opened = 0x4f
        /// The mount answers.
        case serving = 0x52
        /// It could serve, once its predecessor is gone.
        case fit = 0x46
        // From the guardian.
        /// Say whether you could serve; the descriptor is the store's lock.
        case check = 0x43
        /// Here is the mount.
        case mount = 0x4d
        /// The predecessor is gone: open the store. Code 1 if it has only just gone, found
        /// nothing wrong with it, and readers wait.
        case go = 0x47
        /// Answer what you have begun, close the store and end; somebody else goes on.
        case leave = 0x4c
        /// End, though files are open.
        case abandon = 0x41
    }

    struct Message {
        var kind: Kind
        var code: UInt8
        var text: String
        /// Owned by whoever receives it; -1 for none.
        var descriptor: Int32
    }

    private static let limit = 4096
    let descriptor: Int32

    /// Two ends, neither inherited by other programs.
    static func pair() throws(Failure) -> (own: Channel, other: Channel) {
        var ends: [Int32] = [-1, -1]
        let type = Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue)
        guard socketpair(AF_UNIX, type, 0, &ends) == 0 else { throw Failure("cannot make a socket", errno: errno) }
        return (Channel(descriptor: ends[0]), Channel(descriptor: ends[1]))
    }

    /// False if nobody is at the other end.
    @discardableResult
    func send(_ kind: Kind, code: UInt8 = 0, _ text: String = "", descriptor other: Int32 = -1) -> Bool {
        let bytes = [kind.rawValue, code] + Array(text.utf8.prefix(Self.limit - 2))
        while true {
            let sent = bytes.withUnsafeBytes {
                ll_send_with_descriptor(descriptor, $0.baseAddress, $0.count, other)
            }
            if sent < 0, errno == EINTR { continue }
            return sent == bytes.count
        }
    }

    func fail(_ failure: Failure) {
        send(
            .failed, code: UInt8(failure.code.rawValue),
            failure.message + (failure.hint.map { "\n" + $0 } ?? ""))
    }

    /// Waits for a message; nil if there is nobody at the other end any more.
    func receive() -> Message? {
        var bytes = [UInt8](repeating: 0, count: Self.limit)
        var other: Int32 = -1
        while true {
            let count = bytes.withUnsafeMutableBytes {
                ll_receive_with_descriptor(descriptor, $0.baseAddress, $0.count, &other)
            }
            if count < 0, errno == EINTR { continue }
            guard count >= 2, let kind = Kind(rawValue: bytes[0]) else {
                if other >= 0 { close(other) }
                return nil
            }
            return Message(
                kind: kind, code: bytes[1], text: String(decoding: bytes[2..<count], as: UTF8.self), descriptor: other)
        }
    }
}

extension Failure {
    /// What a server failed with.
    init(_ message: Channel.Message) {
        let lines = message.text.split(separator: "\n", maxSplits: 1).map(String.init)
        self.init(
            lines.first ?? "the server failed", hint: lines.count > 1 ? lines[1] : nil,
            code: ExitCode(rawValue: Int32(message.code)) ?? .failed)
    }
}
