import Glibc
import Synchronization
import Threads

/// Those who wait for a file to have more: reads that are answered later, and callers of poll(2).
///
/// A read that a file system throws `Errno.later` for is kept here, holds no worker, and is asked again in a thread of its
/// own whenever somebody rings. A signal to its caller ends it with EINTR. Of a server that dies the kernel sends them
/// again to the next one.
final class Waiters: Sendable {
    /// A read as it can be asked again.
    struct Read: Sendable {
        /// The kernel's number, with the bit of a request that was sent again.
        var unique: UInt64
        var node: UInt64
        var handle: UInt64
        var flags: Int32
        var offset: Int64
        var byteCount: Int
        var caller: Caller
    }

    private struct State {
        var reads: [Read] = []
        /// Requests whose interruption came before they did; none of them may come.
        var interrupted: [UInt64] = []
        var polls: Set<UInt64> = []
        var isRunning = false
        var isOver = false
    }

    private static let stackByteCount = 256 << 10
    private static let replyByteCount = 64 << 10
    private static let headerByteCount = 16
    private static let interruptedLimit = 64

    private let state = Mutex(State())
    // Made to be shared between threads.
    private nonisolated(unsafe) let bell: UnsafeMutablePointer<sem_t> = {
        let bell = UnsafeMutablePointer<sem_t>.allocate(capacity: 1)
        sem_init(bell, 0, 0)
        return bell
    }()

    deinit {
        sem_destroy(bell)
        bell.deallocate()
    }

    /// Takes a read over; it is answered by and by.
    ///
    /// - Throws: EINTR if its caller was interrupted already, ENOMEM if nobody can be found to answer it.
    func keep(_ read: Read, of session: Session) throws(Errno) {
        try state.withLock { state throws(Errno) in
            if let place = state.interrupted.firstIndex(of: Self.bare(read.unique)) {
                state.interrupted.remove(at: place)
                throw Errno(EINTR)
            }
            guard start(&state, session) else { throw Errno(ENOMEM) }
            state.reads.append(read)
        }
        // What it waits for may have come meanwhile.
        sem_post(bell)
    }

    /// A signal has come to the caller of a request.
    ///
    /// - Returns: the request if it waits here, and is the caller's to answer now.
    func interrupt(_ unique: UInt64) -> Read? {
        state.withLock { state in
            let wanted = Self.bare(unique)
            if let place = state.reads.firstIndex(where: { Self.bare($0.unique) == wanted }) {
                return state.reads.remove(at: place)
            }
            if state.interrupted.count >= Self.interruptedLimit { state.interrupted.removeFirst() }
            state.interrupted.append(wanted)
            return nil
        }
    }

    /// Has the reads asked again, and callers of poll(2) woken, by the numbers that the kernel gave for them.
    func ring(_ polls: [UInt64], of session: Session) {
        let isNeeded = state.withLock { state in
            guard !state.reads.isEmpty || !polls.isEmpty, start(&state, session) else { return false }
            state.polls.formUnion(polls)
            return true
        }
        if isNeeded { sem_post(bell) }
    }

    /// Nobody is answered any more.
    func end() {
        state.withLock { $0.isOver = true }
        sem_post(bell)
    }

    private static func bare(_ unique: UInt64) -> UInt64 { unique & ~RequestHeader.resendBit }

    // MARK: The thread

    private func start(_ state: inout State, _ session: Session) -> Bool {
        guard !state.isRunning, !state.isOver else { return !state.isOver }
        let result = startThread(stackByteCount: Self.stackByteCount) { self.run(session) }
        state.isRunning = result == 0
        return state.isRunning
    }

    private func run(_ session: Session) {
        let buffer = PlaintextBuffer(byteCount: Self.headerByteCount + Self.replyByteCount)
        while true {
            while sem_wait(bell) != 0, errno == EINTR {}
            let (polls, reads, isOver) = state.withLock { state in
                defer { state.polls = [] }
                return (state.polls, state.reads, state.isOver)
            }
            guard !isOver else { return }
            for poll in polls { wake(poll, session, buffer.bytes) }
            for read in reads { answer(read, session, buffer.bytes) }
        }
    }

    /// struct fuse_out_header with FUSE_NOTIFY_POLL (1), and struct fuse_notify_poll_wakeup_out. Of one that is closed the
    /// kernel knows nothing any more.
    private func wake(_ poll: UInt64, _ session: Session, _ buffer: UnsafeMutableRawBufferPointer) {
        let length = Self.headerByteCount + 8
        buffer.storeBytes(of: UInt32(length), toByteOffset: 0, as: UInt32.self)
        buffer.storeBytes(of: 1, toByteOffset: 4, as: Int32.self)
        buffer.storeBytes(of: 0, toByteOffset: 8, as: UInt64.self)
        buffer.storeBytes(of: poll, toByteOffset: Self.headerByteCount, as: UInt64.self)
        _ = write(session.descriptor, buffer.baseAddress, length)
    }

    private func answer(_ read: Read, _ session: Session, _ buffer: UnsafeMutableRawBufferPointer) {
        let room = UnsafeMutableRawBufferPointer(
            rebasing: buffer[Self.headerByteCount...].prefix(min(read.byteCount, Self.replyByteCount)))
        var number: Int32 = 0
        var count = 0
        do throws(Errno) {
            count = checked(
                try session.fileSystem.read(
                    read.node, handle: read.handle, flags: read.flags, at: read.offset, into: room, read.caller), room)
        } catch {
            guard error != .later else { return }
            number = error.rawValue
        }
        defer { wipe(room, count) }
        // Whoever takes it from the list answers it.
        let isOurs = state.withLock { state in
            guard let place = state.reads.firstIndex(where: { $0.unique == read.unique }) else { return false }
            state.reads.remove(at: place)
            return true
        }
        guard isOurs else { return }
        let length = Self.headerByteCount + count
        buffer.storeBytes(of: UInt32(length), toByteOffset: 0, as: UInt32.self)
        buffer.storeBytes(of: -number, toByteOffset: 4, as: Int32.self)
        buffer.storeBytes(of: read.unique, toByteOffset: 8, as: UInt64.self)
        // A failure means that nobody waits any longer.
        _ = write(session.descriptor, buffer.baseAddress, length)
    }
}
