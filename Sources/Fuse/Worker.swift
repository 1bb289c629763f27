import CFuse
import Glibc
import Synchronization

/// What one thread needs to serve requests: the buffer they are read into, and a scratch buffer for replies.
/// Both are wiped after each request, for they hold plaintext.
final class Worker {
    /// What may stand before the data of a WRITE: libfuse's FUSE_BUFFER_HEADER_SIZE.
    private static let headroomByteCount = 4096
    /// No honest request asks for a longer reply.
    private static let largestReplyByteCount = 16 << 20

    let session: Session
    /// The number of this worker among those of its session, from 0; the one that serves a kept INIT has none.
    let slot: Int?
    /// The request that is being served, as our own read saw it.
    private(set) var header: RequestHeader?
    private(set) var killsSetID = false
    /// While an INIT is served: the flags that the kernel offered in it.
    private(set) var offeredFlags: (flags: UInt32, flags2: UInt32)?
    /// While a kept INIT is served: the kernel has had its reply from another process.
    private(set) var swallowsReplies = false
    private let requestBuffer: PlaintextBuffer
    private var scratchBuffer: PlaintextBuffer
    /// Where the small parts of a reply are put together: see `gathered`.
    private let bounceBuffer = PlaintextBuffer(byteCount: 4096)

    init(_ session: Session, slot: Int? = nil) {
        self.session = session
        self.slot = slot
        // Resident: a request that is taken while this process is being killed cannot be copied to a page that is not
        // there yet, and the kernel then answers it with EIO where it would have sent it again to the successor.
        // One without a slot takes none.
        requestBuffer = PlaintextBuffer(
            byteCount: session.options.maxWriteByteCount + Self.headroomByteCount, isResident: slot != nil)
        scratchBuffer = PlaintextBuffer(byteCount: session.options.maxWriteByteCount)
    }

    private var buffer: UnsafeMutableRawBufferPointer { requestBuffer.bytes }

    // MARK: - The thread's own

    private static let key: pthread_key_t = {
        var key = pthread_key_t()
        let result = pthread_key_create(&key, nil)
        precondition(result == 0, "no thread-specific key left")
        return key
    }()

    /// The worker that this thread is, if it is one.
    static var current: Worker? {
        guard let raw = pthread_getspecific(key) else { return nil }
        return Unmanaged<Worker>.fromOpaque(raw).takeUnretainedValue()
    }

    private func asCurrent<R>(_ body: () -> R) -> R {
        pthread_setspecific(Self.key, Unmanaged.passUnretained(self).toOpaque())
        defer { pthread_setspecific(Self.key, nil) }
        return body()
    }

    // MARK: - Serving

    /// Reads and serves requests until the mount is gone or the session stops.
    func run() {
        asCurrent {
            while !session.isStopping.load(ordering: .acquiring), fuse_session_exited(session.raw) == 0 {
                let count = read(session.descriptor, buffer.baseAddress, buffer.count)
                if count > 0 {
                    serve(count)
                    wipe(buffer, count)
                    continue
                }
                let number = count == 0 ? ENODEV : errno
                switch number {
                // A signal that may mean "stop"; a request withdrawn before it was read.
                case EINTR, EAGAIN, ENOENT: continue
                case ENODEV, ECONNABORTED: return
                default:
                    session.failure.store(number, ordering: .relaxed)
                    return
                }
            }
        }
    }

    /// Sets the session up from a predecessor's INIT request, without answering it again.
    func serveKeptInit(_ request: [UInt8]) throws(FuseError) {
        guard request.count <= buffer.count,
            request.withUnsafeBytes({ RequestHeader($0)?.opcode == .initialize })
        else { throw .takeover }
        buffer.copyBytes(from: request)
        swallowsReplies = true
        asCurrent { serve(request.count) }
        swallowsReplies = false
        guard session.isInitialized.load(ordering: .relaxed), fuse_session_exited(session.raw) == 0 else {
            throw .takeover
        }
    }

    private func serve(_ count: Int) {
        let request = UnsafeRawBufferPointer(rebasing: buffer[..<count])
        guard let header = RequestHeader(request) else { return }
        guard header.length == count, isWellFormed(request, opcode: header.opcode) else {
            return answerDirectly(header, errno: EIO)
        }
        switch header.opcode {
        case .interrupt: return interrupt(request)
        // Answers what this room never asks.
        case .notifyReply: return
        case .initialize:
            offeredFlags = (
                request.loadUnaligned(fromByteOffset: InitFlags.requestFlagsOffset, as: UInt32.self),
                header.length >= InitFlags.requestFlags2Offset + 4
                    ? request.loadUnaligned(fromByteOffset: InitFlags.requestFlags2Offset, as: UInt32.self)
                    : 0
            )
            if !swallowsReplies { session.keepsInit?(request) }
        default: break
        }
        self.header = header
        if header.opcode == .statx { return answerExtendedStatus(header, request) }
        if header.opcode == .poll { return answerPoll(header, request) }
        killsSetID = Fuse.killsSetID(request, opcode: header.opcode)
        if header.opcode == .temporaryFile {
            // The body and the reply are those of CREATE; the handler looks at the header.
            buffer.storeBytes(of: Opcode.create.rawValue, toByteOffset: RequestHeader.opcodePlace, as: UInt32.self)
        }
        var part = fuse_buf()
        part.mem = buffer.baseAddress
        part.size = count
        fuse_session_process_buf(session.raw, &part)
        offeredFlags = nil
    }

    private func answerExtendedStatus(_ header: RequestHeader, _ request: UnsafeRawBufferPointer) {
        let body = UnsafeRawBufferPointer(rebasing: request[RequestHeader.byteCount...])
        let caller = Caller(header)
        let fileSystem = session.fileSystem
        do throws(Errno) {
            let (attributes, validity) = try fileSystem.attributes(
                of: header.node, handle: ExtendedStatus.handle(body), caller)
            let place = Self.replyHeaderByteCount
            let reply = UnsafeMutableRawBufferPointer(
                rebasing: bounceBuffer.bytes[place..<place + ExtendedStatus.replyByteCount])
            ExtendedStatus.put(
                attributes, born: fileSystem.birthTime(of: header.node), validity: validity, into: reply)
            answerDirectly(header, errno: 0, byteCount: reply.count)
            wipeBounce(place + reply.count)
        } catch { answerDirectly(header, errno: error.rawValue) }
    }

    private static let replyHeaderByteCount = 16

    /// struct fuse_interrupt_in: the number of a request whose caller has got a signal. Only those that wait end by it;
    /// the others are answered in a moment.
    private func interrupt(_ request: UnsafeRawBufferPointer) {
        let unique = request.loadUnaligned(fromByteOffset: RequestHeader.byteCount, as: UInt64.self)
        guard let read = session.waiters.interrupt(unique) else { return }
        answerDirectly(read.unique, errno: EINTR)
    }

    /// struct fuse_poll_in: handle 8 | waiter 8 | flags 4 | events 4. struct fuse_poll_out: events 4 | padding 4.
    ///
    /// Past libfuse, which would make an object of the waiter that dies with this process.
    private func answerPoll(_ header: RequestHeader, _ request: UnsafeRawBufferPointer) {
        func number(_ offset: Int) -> UInt64 {
            request.loadUnaligned(fromByteOffset: RequestHeader.byteCount + offset, as: UInt64.self)
        }
        let isScheduled = number(16) & 1 != 0
        do throws(Errno) {
            let events = try session.fileSystem.poll(
                header.node, handle: number(0), waiter: isScheduled ? number(8) : nil, Caller(header))
            bounceBuffer.bytes.storeBytes(
                of: UInt64(events), toByteOffset: Self.replyHeaderByteCount, as: UInt64.self)
            answerDirectly(header, errno: 0, byteCount: 8)
        } catch { answerDirectly(header, errno: error.rawValue) }
    }

    /// Answers without libfuse, which has not seen the request: an error, or what lies in the bounce buffer behind the
    /// place of a header.
    private func answerDirectly(_ header: RequestHeader, errno number: Int32, byteCount: Int = 0) {
        guard !header.isUnanswered, !swallowsReplies else { return }
        answerDirectly(header.unique, errno: number, byteCount: byteCount)
    }

    private func answerDirectly(_ unique: UInt64, errno number: Int32, byteCount: Int = 0) {
        let reply = bounceBuffer.bytes
        let length = Self.replyHeaderByteCount + byteCount
        reply.storeBytes(of: UInt32(length), toByteOffset: 0, as: UInt32.self)
        reply.storeBytes(of: -number, toByteOffset: 4, as: Int32.self)
        reply.storeBytes(of: unique, toByteOffset: 8, as: UInt64.self)
        // A failure means that nobody waits any longer.
        _ = write(session.descriptor, reply.baseAddress, length)
    }

    // MARK: - Replies

    /// Copies those parts of a reply that lie on the stack, which the kernel may not be able to reach into.
    ///
    /// - Returns: how many bytes have been copied, to be wiped.
    func gather(_ parts: UnsafeMutableBufferPointer<iovec>) -> Int {
        var used = 0
        for index in parts.indices {
            let count = parts[index].iov_len
            guard count > 0, used + count <= bounceBuffer.bytes.count, let base = parts[index].iov_base else {
                continue
            }
            let copy = UnsafeMutableRawBufferPointer(rebasing: bounceBuffer.bytes[used..<used + count])
            copy.copyMemory(from: UnsafeRawBufferPointer(start: base, count: count))
            parts[index].iov_base = copy.baseAddress
            used += count
        }
        return used
    }

    func wipeBounce(_ count: Int) { wipe(bounceBuffer.bytes, count) }

    /// Room for a reply of `count` bytes, or EINVAL if nobody could mean that.
    func scratch(_ count: Int) throws(Errno) -> UnsafeMutableRawBufferPointer {
        if count > scratchBuffer.bytes.count {
            guard count <= Self.largestReplyByteCount else { throw Errno(EINVAL) }
            scratchBuffer = PlaintextBuffer(byteCount: count)
        }
        return UnsafeMutableRawBufferPointer(rebasing: scratchBuffer.bytes[..<count])
    }

    /// Sends the first `count` bytes of the scratch buffer, then wipes them.
    func replyFromScratch(_ request: fuse_req_t, _ count: Int) {
        _ = fuse_reply_buf(request, scratchBuffer.bytes.baseAddress?.assumingMemoryBound(to: CChar.self), count)
        wipeScratch(count)
    }

    func wipeScratch(_ count: Int) {
        wipe(scratchBuffer.bytes, min(count, scratchBuffer.bytes.count))
    }
}

/// The request that the calling thread serves, for those below who note what they do for it.
public enum CurrentRequest {
    /// The number of the thread among the workers, from 0; nil outside a request.
    public static var slot: Int? { Worker.current?.slot }

    /// The request's number, the same when the kernel sends it again.
    public static var unique: UInt64? { (Worker.current?.header?.unique).map { $0 & ~RequestHeader.resendBit } }

    /// True if the kernel sends it again.
    public static var isResend: Bool { (Worker.current?.header?.unique ?? 0) & RequestHeader.resendBit != 0 }
}

extension Caller {
    init(_ header: RequestHeader) {
        self.init(
            uid: header.uid, gid: header.gid, pid: header.pid, umask: 0,
            unique: header.unique & ~RequestHeader.resendBit, isResend: header.unique & RequestHeader.resendBit != 0)
    }
}

/// Overwrites the first `count` bytes in a way that no compiler leaves out.
func wipe(_ buffer: UnsafeMutableRawBufferPointer, _ count: Int) {
    guard let start = buffer.baseAddress else { return }
    explicit_bzero(start, count)
}
