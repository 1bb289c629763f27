import Fuse
import Glibc
import Testing

/// The kernel's end of a server's descriptor: a socket that keeps messages apart, as /dev/fuse does.
final class FakeKernel {
    private let end: Int32
    let server: Server
    private var unique: UInt64 = 100

    init(
        _ fileSystem: any FileSystem, _ start: Server.Start = .fresh, flags: UInt32 = 0, flags2: UInt32 = 0
    ) throws {
        var ends: [Int32] = [-1, -1]
        guard socketpair(AF_UNIX, Int32(SOCK_SEQPACKET.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) == 0 else {
            throw Errno(errno)
        }
        end = ends[0]
        var patience = timeval(tv_sec: 30, tv_usec: 0)
        setsockopt(end, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        defer { close(ends[1]) }
        var options = Server.Options()
        options.threadCount = 2
        server = try Server(serving: fileSystem, descriptor: ends[1], options: options)
        try server.start(start)
    }

    deinit {
        close(end)
        _ = server.wait()
    }

    /// The body of an INIT request.
    static func initBody(flags: UInt32, flags2: UInt32) -> [UInt8] {
        bytes([UInt32(7), 38, 1 << 17, flags, flags2]) + [UInt8](repeating: 0, count: 44)
    }

    static func bytes(_ numbers: [UInt32]) -> [UInt8] {
        numbers.flatMap { number in withUnsafeBytes(of: number) { Array($0) } }
    }

    static func bytes64(_ numbers: [UInt64]) -> [UInt8] {
        numbers.flatMap { number in withUnsafeBytes(of: number) { Array($0) } }
    }

    static func request(
        _ opcode: UInt32, unique: UInt64, node: UInt64 = 1, length: Int? = nil, _ body: [UInt8]
    ) -> [UInt8] {
        bytes([UInt32(length ?? 40 + body.count), opcode]) + bytes64([unique, node]) + bytes([0, 0, 0, 0]) + body
    }

    func send(_ request: [UInt8]) throws {
        guard write(end, request, request.count) == request.count else { throw Errno(errno) }
    }

    /// The next message from the server; empty if none comes.
    func receive() -> [UInt8] {
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        let count = read(end, &buffer, buffer.count)
        return count > 0 ? Array(buffer[..<count]) : []
    }

    /// Sends a request and answers its reply: the error (0 or an errno) and the body.
    func ask(
        _ opcode: UInt32, node: UInt64 = 1, length: Int? = nil, unique fixed: UInt64? = nil, _ body: [UInt8]
    ) throws -> (error: Int32, body: [UInt8]) {
        unique += 2
        let number = fixed ?? unique
        try send(Self.request(opcode, unique: number, node: node, length: length, body))
        let reply = receive()
        try #require(reply.count >= 16, "no reply to opcode \(opcode)")
        let (error, answered) = reply.withUnsafeBytes {
            ($0.loadUnaligned(fromByteOffset: 4, as: Int32.self), $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        }
        try #require(answered == number)
        return (-error, Array(reply[16...]))
    }

    /// Shakes hands; answers the INIT reply's flags.
    @discardableResult
    func initialize(flags: UInt32 = 0, flags2: UInt32 = 0) throws -> (flags: UInt32, flags2: UInt32) {
        let reply = try ask(26, Self.initBody(flags: flags, flags2: flags2))
        try #require(reply.error == 0 && reply.body.count == 64)
        return reply.body.withUnsafeBytes {
            (
                $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self),
                $0.loadUnaligned(fromByteOffset: 32, as: UInt32.self)
            )
        }
    }
}
