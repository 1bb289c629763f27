import Fuse
import Glibc
import Synchronization
import Testing

/// One file that reads wait for, with a byte for each that was asked for.
private final class Well: FileSystem {
    private struct State {
        var content: [UInt8] = []
        var waiter: UInt64?
        var asked = 0
    }
    private let state = Mutex(State())

    var waiter: UInt64? { state.withLock { $0.waiter } }
    var asked: Int { state.withLock { $0.asked } }
    func fill(_ text: String) { state.withLock { $0.content += Array(text.utf8) } }

    func lookup(_ name: UnsafeRawBufferPointer, in parent: UInt64, _ caller: Caller) throws(Errno) -> EntryReply {
        throw Errno(ENOENT)
    }
    func attributes(of node: UInt64, handle: UInt64?, _ caller: Caller) throws(Errno) -> (stat, validity: Double) {
        (stat(), 0)
    }
    func read(
        _ node: UInt64, handle: UInt64, flags: Int32, at offset: Int64, into buffer: UnsafeMutableRawBufferPointer,
        _ caller: Caller
    ) throws(Errno) -> Int {
        let rest = state.withLock { state in
            state.asked += 1
            return state.content.dropFirst(Int(offset)).prefix(buffer.count)
        }
        guard !rest.isEmpty else { throw .later }
        buffer.copyBytes(from: rest)
        return rest.count
    }
    func poll(_ node: UInt64, handle: UInt64, waiter: UInt64?, _ caller: Caller) throws(Errno) -> UInt32 {
        state.withLock { state in
            state.waiter = waiter
            return state.content.isEmpty ? 0 : UInt32(POLLIN)
        }
    }
}

struct WaitingTests {
    private let well = Well()
    private let kernel: FakeKernel
    private static let (readCode, interruptCode, pollCode): (UInt32, UInt32, UInt32) = (15, 36, 40)

    init() throws {
        kernel = try FakeKernel(well)
        try kernel.initialize()
    }

    private func send(read unique: UInt64, at offset: UInt64 = 0) throws {
        try kernel.send(FakeKernel.request(Self.readCode, unique: unique, FakeKernel.bytes64([7, offset, 100, 0, 0])))
    }

    private func interrupt(_ unique: UInt64) throws {
        try kernel.send(FakeKernel.request(Self.interruptCode, unique: unique | 1, FakeKernel.bytes64([unique])))
    }

    /// The number, error and body of the next reply.
    private func reply() throws -> (unique: UInt64, error: Int32, text: String) {
        let bytes = kernel.receive()
        try #require(bytes.count >= 16)
        return bytes.withUnsafeBytes {
            (
                $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self),
                -$0.loadUnaligned(fromByteOffset: 4, as: Int32.self),
                String(decoding: $0[16...], as: UTF8.self)
            )
        }
    }

    @Test func `reads that wait hold no worker, and are answered when there is something`() throws {
        for unique in 1...20 as ClosedRange<UInt64> { try send(read: 1000 + 2 * unique) }
        // Of two workers both are free.
        for _ in 0..<4 { #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0) }
        well.fill("news")
        kernel.server.notifier.wake([])
        var answered: Set<UInt64> = []
        for _ in 0..<20 {
            let reply = try reply()
            #expect(reply.error == 0 && reply.text == "news")
            answered.insert(reply.unique)
        }
        #expect(answered.count == 20)
        try send(read: 5000, at: 4)
        well.fill("!")
        kernel.server.notifier.wake([])
        #expect(try reply() == (5000, 0, "!"))
    }

    @Test func `a signal ends a read that waits, whichever comes first`() throws {
        try send(read: 1000)
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
        try interrupt(1000)
        #expect(try reply() == (1000, EINTR, ""))
        // The interruption may be taken up by another worker, and before the read.
        try interrupt(1002)
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
        try send(read: 1002)
        #expect(try reply() == (1002, EINTR, ""))
        // Sent again it has the same number, and a bit.
        try send(read: 1004 | 1 << 63)
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
        try interrupt(1004 | 1 << 63)
        #expect(try reply() == (1004 | 1 << 63, EINTR, ""))
        // Of any others nothing is kept for long, and nothing is answered.
        for unique in 0..<500 as Range<UInt64> { try interrupt(10_000 + 2 * unique) }
        #expect(try kernel.ask(3, [UInt8](repeating: 0, count: 16)).error == 0)
    }

    @Test func `poll is answered, and its callers woken by their numbers`() throws {
        let asked = try kernel.ask(Self.pollCode, FakeKernel.bytes64([7, 4711, UInt64(POLLIN) << 32 | 1]))
        #expect(asked.error == 0 && asked.body == [UInt8](repeating: 0, count: 8))
        #expect(well.waiter == 4711)
        well.fill("x")
        kernel.server.notifier.wake([4711])
        let notice = kernel.receive()
        #expect(notice == FakeKernel.bytes([24, 1]) + FakeKernel.bytes64([0, 4711]))
        let again = try kernel.ask(Self.pollCode, FakeKernel.bytes64([7, 4711, 0]))
        #expect(again.error == 0 && again.body.first == UInt8(POLLIN))
        #expect(well.waiter == nil)
        #expect(try kernel.ask(Self.pollCode, [0, 0]).error == EIO)
    }

    @Test func `a file system without poll says so`() throws {
        let kernel = try FakeKernel(MemoryFileSystem())
        try kernel.initialize()
        #expect(try kernel.ask(Self.pollCode, FakeKernel.bytes64([7, 1, 0])).error == ENOSYS)
    }
}
