import Fuse
import Glibc
import Keyring
import Synchronization

/// The control file `events`: what happens to a keyring, a line each, for as many as want to follow it.
///
/// It is read like a regular file that grows (`tail -f`), and like a pipe: who has read everything waits for more
/// (`cat`), is told that there is none (O_NONBLOCK), or is woken (poll(2)). Those who are slow are overtaken, and nobody
/// waits for them. It goes on while the keyring is locked, and with the next server.
public final class EventStream: Sendable {
    private struct Contents: @unchecked Sendable {
        var ring: EventRing
        /// The row of each handle.
        var rows: [UInt64: Int] = [:]
        var next: UInt64
        var modified = Timestamp.now()

        func row(_ index: Int) -> EventReader { EventReader(ring, index) }
        func reader(_ handle: UInt64) throws(Errno) -> EventReader {
            guard let index = rows[handle] else { throw Errno(EBADF) }
            return row(index)
        }
    }

    private let contents: Mutex<Contents>
    /// What goes with this object; nil if the memory is another's.
    private let own: Memory?
    private struct Memory: @unchecked Sendable { let bytes: UnsafeMutableRawPointer }
    /// Has those who wait asked again.
    private let bell = Mutex(Bell())
    /// Not the closure by itself: each time a generic container hands one out it puts another layer around what it keeps.
    private struct Bell: Sendable { var wake: (@Sendable (_ waiters: [UInt64]) -> Void)? }

    public static let byteCount = EventRing.byteCount

    /// - Precondition: `memory` is zero, or was an event stream's before; it stays as long as the process does.
    public convenience init(memory: UnsafeMutableRawBufferPointer) { self.init(memory, own: nil) }

    private init(_ memory: UnsafeMutableRawBufferPointer, own: Memory?) {
        self.own = own
        let ring = EventRing(memory: memory)
        var contents = Contents(ring: ring, next: ring.lastSequence + 1)
        for index in 0..<EventReader.limit {
            let handle = contents.row(index).handle
            if handle != 0 { contents.rows[handle] = index }
        }
        self.contents = Mutex(contents)
    }

    /// One that ends with this process.
    public convenience init() {
        guard let bytes = calloc(1, Self.byteCount) else { preconditionFailure("no memory for events") }
        self.init(UnsafeMutableRawBufferPointer(start: bytes, count: Self.byteCount), own: Memory(bytes: bytes))
    }

    deinit { own.map { free($0.bytes) } }

    /// - Parameter wake: has the reads that wait asked again, and wakes those who wait in poll(2), by the kernel's numbers.
    public func connect(_ wake: @escaping @Sendable (_ waiters: [UInt64]) -> Void) {
        bell.withLock { $0.wake = wake }
        ring()
    }

    // MARK: Telling

    /// Says what has happened, once: not again what an earlier server has said of the request that is served.
    func tell(_ event: @autoclosure () -> Event) {
        var isTold = false
        contents.withLock { contents in
            if CurrentRequest.isResend, let request = CurrentRequest.unique, contents.ring.hasTold(request) { return }
            append(event(), number: nil, &contents)
            isTold = true
        }
        if isTold { ring() }
    }

    /// Says something of each number up to `latest` that it was not said of yet, by this server or another. The numbers
    /// before the first call of all are not spoken of.
    func tell(upTo latest: UInt64, _ event: (UInt64) -> Event) {
        var isTold = false
        contents.withLock { contents in
            guard let told = contents.ring.toldNumber, told < latest else { return }
            for number in told + 1...latest { append(event(number), number: number, &contents) }
            isTold = true
        }
        if isTold { ring() }
    }

    /// An earlier server has said what this request stands for.
    func hasTold(_ request: UInt64) -> Bool { contents.withLock { $0.ring.hasTold(request) } }

    /// - Parameter number: Up to where nothing is to be told, where nothing was told so far.
    func begin(_ event: Event, number: UInt64?) {
        contents.withLock { contents in
            append(event, number: contents.ring.toldNumber == nil ? number : nil, &contents)
        }
        ring()
    }

    private func append(_ event: Event, number: UInt64?, _ contents: inout Contents) {
        var line = event.line(contents.next)
        var request: (slot: Int, unique: UInt64)?
        if let slot = CurrentRequest.slot, let unique = CurrentRequest.unique { request = (slot, unique) }
        line.withUTF8 { contents.ring.append(UnsafeRawBufferPointer($0), for: request, number: number) }
        contents.next += 1
        contents.modified = .now()
    }

    private func ring() {
        guard let wake = bell.withLock({ $0 }).wake else { return }
        let waiters = contents.withLock { contents in
            contents.rows.values.map { contents.row($0).waiter }.filter { $0 != 0 }
        }
        wake(waiters)
    }

    // MARK: Following

    /// How many bytes there have been, and when the last of them came.
    var size: (byteCount: UInt64, modified: Timestamp) { contents.withLock { ($0.ring.end, $0.modified) } }

    /// - Throws: ENFILE if too many have it open.
    func open(_ caller: Caller) throws(Errno) -> UInt64 {
        try contents.withLock { contents throws(Errno) in
            if caller.isResend {
                // The first answer did not come through: nobody has that handle.
                for (handle, index) in contents.rows where contents.row(index).opening == caller.unique {
                    contents.row(index).free()
                    contents.rows[handle] = nil
                }
            }
            let used = Set(contents.rows.values)
            guard let index = (0..<EventReader.limit).first(where: { !used.contains($0) }) else { throw Errno(ENFILE) }
            let handle = contents.ring.nextHandle()
            contents.row(index).begin(handle, opening: caller.unique)
            contents.rows[handle] = index
            return handle
        }
    }

    func close(_ handle: UInt64) {
        contents.withLock { contents in
            guard let index = contents.rows.removeValue(forKey: handle) else { return }
            contents.row(index).free()
        }
    }

    /// - Throws: `Errno.later` where the caller waits for more, EAGAIN where it does not want to.
    func read(
        _ handle: UInt64, flags: Int32, at offset: Int64, into buffer: UnsafeMutableRawBufferPointer, _ caller: Caller
    ) throws(Errno) -> Int {
        guard offset >= 0 else { throw .invalid }
        let count = try contents.withLock { contents throws(Errno) in
            try contents.reader(handle).read(contents.ring, at: UInt64(offset), into: buffer)
        }
        if let count { return count }
        if flags & O_NONBLOCK != 0 { throw Errno(EAGAIN) }
        if Self.comesBack(caller.pid) { return 0 }
        throw .later
    }

    /// tail(1) reads a file to its end before it shows anything, and looks again by itself whether the file has grown.
    private static func comesBack(_ thread: Int32) -> Bool {
        let descriptor = Glibc.open("/proc/\(thread)/comm", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return false }
        defer { Glibc.close(descriptor) }
        return withUnsafeTemporaryAllocation(byteCount: 16, alignment: 1) { name in
            let count = Glibc.read(descriptor, name.baseAddress, name.count)
            return count > 0 && name[..<count].elementsEqual("tail\n".utf8)
        }
    }

    /// - Parameter waiter: The kernel's number of who will wait if there is nothing; nil if nobody will.
    func poll(_ handle: UInt64, waiter: UInt64?) throws(Errno) -> UInt32 {
        try contents.withLock { contents throws(Errno) in
            let reader = try contents.reader(handle)
            if let waiter { reader.waiter = waiter }
            return reader.hasMore(contents.ring) ? UInt32(POLLIN | POLLRDNORM) : 0
        }
    }
}
