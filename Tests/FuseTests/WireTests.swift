import CLinux
import Fuse
import Glibc
import Synchronization
import Testing

/// What the server makes of requests, sent by a fake kernel byte by byte.
@Suite(.serialized)
struct WireTests {
    private static let killpriv: UInt32 = 1 << 28
    private static let extended: UInt32 = 1 << 30
    private static let mapping: UInt32 = 1 << 4

    @Test(
        "flags unknown to libfuse are answered where the kernel offers them, and only there",
        arguments: [
            (killpriv | extended, mapping), (killpriv, 0), (extended, mapping), (0, 0), (extended, 0), (0, mapping),
        ] as [(UInt32, UInt32)])
    func initFlags(flags: UInt32, flags2: UInt32) throws {
        let kernel = try FakeKernel(MemoryFileSystem())
        let answered = try kernel.initialize(flags: flags, flags2: flags2)
        #expect(answered.flags & Self.killpriv == flags & Self.killpriv)
        #expect(answered.flags2 & Self.mapping == (flags & Self.extended != 0 ? flags2 & Self.mapping : 0))
    }

    @Test("the kernel may read more at once than it may write", arguments: [0, 1 << 22] as [UInt32])
    func limits(flags: UInt32) throws {
        let kernel = try FakeKernel(MemoryFileSystem())
        let reply = try kernel.ask(26, FakeKernel.initBody(flags: flags, flags2: 0)).body
        let (answered, maxWrite, maxPages) = reply.withUnsafeBytes {
            (
                $0.loadUnaligned(fromByteOffset: 12, as: UInt32.self),
                $0.loadUnaligned(fromByteOffset: 20, as: UInt32.self),
                $0.loadUnaligned(fromByteOffset: 28, as: UInt16.self)
            )
        }
        #expect(answered & 1 << 22 == flags)
        #expect(maxWrite == 256 << 10)
        #expect(Int(maxPages) == (flags == 0 ? 0 : (1 << 20) / sysconf(Int32(_SC_PAGESIZE))))
    }

    @Test("a takeover swallows the reply to INIT, asks for a resend, and serves what comes again")
    func takeover() throws {
        let fileSystem = MemoryFileSystem()
        fileSystem.make("a", "value")
        let request = FakeKernel.request(26, unique: 2, FakeKernel.initBody(flags: 0, flags2: 0))
        let kernel = try FakeKernel(fileSystem, .takingOver(initRequest: request))
        #expect(kernel.receive() == FakeKernel.bytes([16, 7, 0, 0]))
        let reply = try kernel.ask(
            15, node: 2, unique: 1 << 63 | 44, FakeKernel.bytes64([7, 0, 100, 0, 0]))
        #expect(reply.error == 0 && reply.body == Array("value".utf8))
        #expect(fileSystem.state.withLock { $0.resent } == ["read"])
    }

    @Test("a kernel that knows no resend is taken over from, and it is told")
    func takeoverWithoutResend() throws {
        // Reading it waits, and writing to it is EINVAL, which a kernel before 6.9 says of the notification.
        var none = sigset_t()
        sigemptyset(&none)
        let descriptor = ll_signalfd(&none)
        _ = fcntl(descriptor, F_SETFL, 0)
        defer { close(descriptor) }
        let server = try Server(serving: MemoryFileSystem(), descriptor: descriptor)
        let request = FakeKernel.request(26, unique: 2, FakeKernel.initBody(flags: 0, flags2: 0))
        #expect(server.kernelResends)
        var hasStarted = false
        try server.start(.takingOver(initRequest: request)) { hasStarted = true }
        #expect(hasStarted && !server.kernelResends)
        server.stop(atMost: 10)
        #expect(server.wait() == .stopped)
    }

    @Test("a takeover without an INIT request is refused")
    func takeoverOfNothing() {
        #expect(throws: FuseError.takeover) { try FakeKernel(MemoryFileSystem(), .takingOver(initRequest: [])) }
        #expect(throws: FuseError.takeover) {
            try FakeKernel(
                MemoryFileSystem(), .takingOver(initRequest: FakeKernel.request(26, unique: 2, [7, 0, 0, 0])))
        }
    }

    @Test("a request that is too short, unending or unknown gets an errno", arguments: malformedRequests)
    func malformed(opcode: UInt32, body: [UInt8], error: Int32) throws {
        let kernel = try FakeKernel(MemoryFileSystem())
        try kernel.initialize()
        #expect(try kernel.ask(opcode, body).error == error)
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0, "the server serves on")
    }

    @Test("a length that is not the request's gets EIO, a request shorter than a header no answer at all")
    func lengths() throws {
        let kernel = try FakeKernel(MemoryFileSystem())
        try kernel.initialize()
        #expect(try kernel.ask(3, length: 4000, [UInt8](repeating: 0, count: 16)).error == EIO)
        try kernel.send([1, 2, 3])
        try kernel.send(FakeKernel.request(42, unique: 900, FakeKernel.bytes([1 << 30, 0])))
        try kernel.send(FakeKernel.request(2, unique: 902, [1]))
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
    }

    @Test("random requests crash nothing and leave nothing unanswered", arguments: [1, 2, 3, 4] as [UInt64])
    func fuzz(seed: UInt64) throws {
        print("seed \(seed)")
        var random = Numbers(state: seed)
        let fileSystem = MemoryFileSystem()
        for index in 0..<20 { fileSystem.make("file\(index)", "content \(index)") }
        let kernel = try FakeKernel(fileSystem)
        try kernel.initialize(flags: Self.killpriv | Self.extended, flags2: Self.mapping)
        for _ in 0..<3000 {
            let opcode = UInt32.random(in: 0...52, using: &random)
            var body = (0..<Int.random(in: 0...140, using: &random)).map { _ in
                // Many zeros, so that names end and numbers stay small.
                Bool.random(using: &random) ? 0 : UInt8.random(in: 0...255, using: &random)
            }
            if Bool.random(using: &random) { body.append(0) }
            let node = UInt64.random(in: 0...22, using: &random)
            if [2, 41, 42].contains(opcode) || opcode == 36 && body.count >= 8 {
                try kernel.send(FakeKernel.request(opcode, unique: 6, node: node, body))
            } else {
                _ = try kernel.ask(opcode, node: node, body)
            }
        }
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
    }

    @Test("directory replies end at an entry and carry nothing of earlier replies in their padding")
    func directoryPadding() throws {
        let fileSystem = MemoryFileSystem()
        fileSystem.make("filler", String(repeating: "S", count: 4096))
        let kernel = try FakeKernel(fileSystem)
        try kernel.initialize()
        _ = try kernel.ask(15, node: 2, FakeKernel.bytes64([7, 0, 4096, 0, 0]))
        for (opcode, most) in [(28, 100), (44, 500)] as [(UInt32, UInt64)] {
            let reply = try kernel.ask(opcode, FakeKernel.bytes64([0, 0, most, 0, 0]))
            #expect(reply.error == 0 && reply.body.count <= Int(most) && reply.body.count % 8 == 0)
            #expect(!reply.body.contains(UInt8(ascii: "S")))
        }
    }
}

/// Opcode, body, and the errno it deserves.
private let malformedRequests: [(UInt32, [UInt8], Int32)] = [
    (1, [], EIO), (1, Array("no end".utf8), EIO), (3, [0, 0], EIO), (4, [UInt8](repeating: 0, count: 87), EIO),
    (6, Array("one\0".utf8), EIO), (8, [UInt8](repeating: 0, count: 16), EIO), (9, [1, 2, 3], EIO),
    (12, [UInt8](repeating: 0, count: 8) + Array("a\0b".utf8), EIO), (13, [0], EIO), (14, [0], EIO),
    (15, [UInt8](repeating: 0, count: 39), EIO), (16, FakeKernel.bytes64([7, 0, 1, 0, 0]), EIO),
    (21, FakeKernel.bytes([9, 0]) + Array("user.a\0short".utf8), EIO), (22, [0, 0, 0, 0, 0, 0, 0, 0], EIO),
    (35, [UInt8](repeating: 0, count: 16), EIO), (45, [UInt8](repeating: 1, count: 20), EIO), (46, [], EIO),
    (15, FakeKernel.bytes64([7, 0, UInt64(UInt32.max), 0, 0]), EINVAL),
    (28, FakeKernel.bytes64([0, 0, UInt64(UInt32.max), 0, 0]), EINVAL),
    (31, [UInt8](repeating: 0, count: 48), ENOSYS), (47, [UInt8](repeating: 0, count: 56), ENOSYS),
    (49, [], ENOSYS), (51, [UInt8](repeating: 0, count: 16), EIO),
    (51, [UInt8](repeating: 0, count: 16) + Array("/\0".utf8), ENOSYS), (52, [UInt8](repeating: 0, count: 23), EIO),
    (4711, [1], ENOSYS),
    (26, FakeKernel.initBody(flags: 0, flags2: 0), EIO),
    (39, [UInt8](repeating: 0, count: 32), ENOTTY),
]

/// SplitMix64: the same numbers for the same seed.
struct Numbers: RandomNumberGenerator {
    var state: UInt64
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var word = state
        word = (word ^ (word >> 30)) &* 0xBF58_476D_1CE4_E5B9
        word = (word ^ (word >> 27)) &* 0x94D0_49BB_1331_11EB
        return word ^ (word >> 31)
    }
}
