import Fuse
import Glibc
import Synchronization
import Testing

@testable import SecretFS

/// The stream of events in its memory, over the deaths of those who write it.
final class EventStreamTests {
    private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: EventStream.byteCount, alignment: 4096)
    private let caller = Caller(uid: 0, gid: 0, pid: getpid(), umask: 0, unique: 8, isResend: false)

    init() { memory.initializeMemory(as: UInt8.self, repeating: 0) }
    deinit { memory.deallocate() }

    private func event(_ text: String, _ kind: Event.Kind = .tampered) -> Event {
        var event = Event(kind)
        event.add("text", .text(text))
        return event
    }

    /// What a handle reads from an offset on without waiting; nil if there is nothing.
    private func read(_ stream: EventStream, _ handle: UInt64, at offset: Int, _ count: Int = 1 << 21) -> String? {
        var bytes = [UInt8](repeating: 0, count: count)
        let caller = caller
        let result = bytes.withUnsafeMutableBytes { bytes in
            Result { () throws(Errno) in
                try stream.read(handle, flags: O_NONBLOCK, at: Int64(offset), into: bytes, caller)
            }
        }
        switch result {
        case .success(let count): return String(decoding: bytes[..<count], as: UTF8.self)
        case .failure(let error):
            #expect(error == Errno(EAGAIN))
            return nil
        }
    }

    /// The numbers of the lines of a text.
    private func numbers(_ text: String) -> [Int] {
        text.split(separator: "\n").map { Int($0.dropFirst(7).prefix { $0.isNumber }) ?? -1 }
    }

    @Test func `lines come in order, to each reader all of them`() throws {
        let stream = EventStream(memory: memory)
        let early = try stream.open(caller)
        #expect(read(stream, early, at: 0) == nil)
        stream.tell(event("one"))
        let late = try stream.open(caller)
        stream.tell(event("two"))
        for handle in [early, late] {
            let text = try #require(read(stream, handle, at: 0))
            #expect(numbers(text) == [1, 2] && text.contains("\"text\":\"two\"}\n"))
            #expect(read(stream, handle, at: text.utf8.count) == nil)
            #expect(stream.size.byteCount == UInt64(text.utf8.count))
        }
    }

    @Test func `the thousandth event takes no more of the stack than the first`() throws {
        let stream = EventStream(memory: memory)
        let places = Mutex<[UInt]>([])
        stream.connect { _ in
            var here = 0
            places.withLock { places in withUnsafePointer(to: &here) { places.append(UInt(bitPattern: $0)) } }
        }
        for number in 0..<1000 { stream.tell(event("\(number)")) }
        let used = places.withLock { $0 }.dropFirst()
        let (highest, lowest) = (try #require(used.max()), try #require(used.min()))
        #expect(used.count == 1000 && highest - lowest < 1024)
    }

    @Test func `whoever would wait is told so, and tail is told that this is the end`() throws {
        let stream = EventStream(memory: memory)
        let handle = try stream.open(caller)
        var bytes = [UInt8](repeating: 0, count: 100)
        var path = [CChar](repeating: 0, count: 64)
        readlink("/proc/thread-self", &path, path.count - 1)
        let words = path.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }.split(separator: UInt8(ascii: "/"))
        let thread = try #require(words.last.flatMap { Int32(String(decoding: $0, as: UTF8.self)) })
        let caller = Caller(uid: 0, gid: 0, pid: thread, umask: 0, unique: 8, isResend: false)
        func ask() throws(Errno) -> Int {
            return try bytes.withUnsafeMutableBytes { bytes in
                Result { () throws(Errno) in try stream.read(handle, flags: 0, at: 0, into: bytes, caller) }
            }.get()
        }
        #expect(failure { () throws(Errno) in _ = try ask() } == Errno.later.rawValue)
        pthread_setname_np(pthread_self(), "tail")
        defer { pthread_setname_np(pthread_self(), "tests") }
        #expect(try ask() == 0)
    }

    @Test func `a reader goes on with the next server, at any size of its reads`() throws {
        var stream = EventStream(memory: memory)
        let handle = try stream.open(caller)
        var text = ""
        for round in 1...2000 {
            stream.tell(event("event \(round)"))
            if round % 7 == 0, let part = read(stream, handle, at: text.utf8.count, 1 + round % 400) { text += part }
            if round % 5 == 0 { stream = EventStream(memory: memory) }
        }
        while let part = read(stream, handle, at: text.utf8.count) { text += part }
        #expect(numbers(text) == Array(1...2000))
        let next = try stream.open(caller)
        #expect(next != handle, "a handle's number is nobody else's afterwards")
    }

    @Test(arguments: [1, 17, 100, 4096, 1 << 20])
    func `whoever is overtaken reads how much is lost, and goes on`(byteCount: Int) throws {
        let stream = EventStream(memory: memory)
        let handle = try stream.open(caller)
        for _ in 0..<10 { stream.tell(event("early")) }
        var text = ""
        while text.utf8.count < 300, let part = read(stream, handle, at: text.utf8.count, byteCount) { text += part }
        let wholeLines = text.split(separator: "\n", omittingEmptySubsequences: false).count - 1
        let isWithin = text.last != "\n"
        for _ in 0..<20_000 { stream.tell(event("a line among many others")) }
        // With another server in between nothing is told twice.
        let next = EventStream(memory: memory)
        var rest = ""
        for server in [stream, next] {
            if let part = read(server, handle, at: text.utf8.count + rest.utf8.count, 20) { rest += part }
        }
        while let part = read(next, handle, at: text.utf8.count + rest.utf8.count) { rest += part }
        if isWithin {
            #expect(rest.first == "\n", "a line that was begun is ended")
            rest.removeFirst()
        }
        let lines = rest.split(separator: "\n")
        let lost = try #require(lines.first)
        let first = try #require(numbers(String(lines[1])).first)
        #expect(lost == "{\"event\":\"lost\",\"lines\":\(first - wholeLines - 1)}")
        #expect(numbers(lines[1...].joined(separator: "\n")) == Array(first...20_010))
        // Offsets stay behind positions, or tail(1) would take the file for one that was made shorter.
        #expect(UInt64(text.utf8.count + rest.utf8.count) <= next.size.byteCount)
    }

    @Test func `who opens late reads from the oldest line that is left, and no word of loss`() throws {
        let stream = EventStream(memory: memory)
        for _ in 0..<20_000 { stream.tell(event("a line among many others")) }
        let text = try #require(read(stream, try stream.open(caller), at: 0))
        let found = numbers(text)
        #expect(found.first! > 1 && found == Array(found.first!...20_000))
        #expect(text.utf8.count > EventRing.capacity - 200 && text.utf8.count <= EventRing.capacity)
    }

    @Test func `a line that its writer did not come to end was never there`() throws {
        var stream = EventStream(memory: memory)
        stream.tell(event("whole"))
        let end = EventRing(memory: memory).end
        // What a server leaves that is killed just before the last store of a line.
        stream.tell(upTo: 0) { _ in event("") }
        stream.begin(event("torn"), number: 7)
        memory.storeBytes(of: end, toByteOffset: 8, as: UInt64.self)
        stream = EventStream(memory: memory)
        #expect(EventRing(memory: memory).toldNumber == nil, "what was told with it is not told")
        stream.begin(event("next"), number: 5)
        let text = try #require(read(stream, try stream.open(caller), at: 0))
        #expect(numbers(text) == [1, 2] && text.contains("next") && !text.contains("torn"))
        #expect(EventRing(memory: memory).toldNumber == 5)
    }

    @Test func `each number is told once, whoever comes to tell it`() throws {
        var stream = EventStream(memory: memory)
        func tell(_ latest: UInt64) { stream.tell(upTo: latest) { event("number \($0)", .rotated) } }
        tell(3)
        stream.begin(event("start", .serverStarted), number: 3)
        for latest in [3, 4, 4] as [UInt64] { tell(latest) }
        stream = EventStream(memory: memory)
        stream.begin(event("start", .serverRestarted), number: 9)
        for latest in [4, 6, 5, 7] as [UInt64] { tell(latest) }
        let text = try #require(read(stream, try stream.open(caller), at: 0))
        let told = text.matches(of: /number (\d+)/).compactMap { Int($0.output.1) }
        #expect(told == [4, 5, 6, 7])
    }

    @Test func `what was told of a request is known to the next server`() {
        let ring = EventRing(memory: memory)
        let line = Array("{\"seq\":1}\n".utf8)
        line.withUnsafeBytes { ring.append($0, for: (slot: 3, unique: 100), number: nil) }
        line.withUnsafeBytes { ring.append($0, for: (slot: 63, unique: 102), number: nil) }
        line.withUnsafeBytes { ring.append($0, for: (slot: 64, unique: 104), number: nil) }
        let next = EventRing(memory: memory)
        #expect(next.hasTold(100) && next.hasTold(102) && !next.hasTold(104))
        line.withUnsafeBytes { next.append($0, for: (slot: 3, unique: 106), number: nil) }
        #expect(EventRing(memory: memory).hasTold(106) && !EventRing(memory: memory).hasTold(100))
    }

    @Test(arguments: 1...20 as ClosedRange<UInt64>)
    func `memory that is no ring is begun anew, and never read beyond`(seed: UInt64) throws {
        print("seed \(seed)")
        var state = seed
        func random() -> UInt64 {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return state >> 16
        }
        let stream = EventStream(memory: memory)
        let handle = try stream.open(caller)
        for _ in 0..<100 { stream.tell(event("something")) }
        _ = read(stream, handle, at: 0, 50)
        // Head and readers are damaged, apart from the magic number every other time.
        for _ in 0..<200 {
            let place = Int(random() % 4096) * 8
            if place == 0, seed % 2 == 0 { continue }
            memory.storeBytes(of: random() % 3 == 0 ? random() % 9000 : random(), toByteOffset: place, as: UInt64.self)
        }
        let next = EventStream(memory: memory)
        next.tell(event("after"))
        var offset = 0
        for _ in 0..<50 {
            var bytes = [UInt8](repeating: 0, count: 1000)
            let caller = caller
            let result = bytes.withUnsafeMutableBytes { bytes in
                Result { () throws(Errno) in
                    try next.read(handle, flags: O_NONBLOCK, at: Int64(offset), into: bytes, caller)
                }
            }
            if case .success(let count) = result { offset += count } else { offset = Int(random() % (1 << 62)) }
        }
        #expect(read(next, try next.open(caller), at: 0)?.contains("after") == true)
    }

    @Test func `names of all kinds make lines of valid JSON`() throws {
        let stream = EventStream(memory: memory)
        let long = [UInt8](repeating: UInt8(ascii: "x"), count: 300_000)
        for path in [Array("/a\n\"b\\\u{1}\u{7f}é".utf8), [47, 0xFF, 0xC3], long] {
            var event = Event(.valueChanged)
            event.add("path", path: path)
            stream.tell(event)
        }
        let text = try #require(read(stream, try stream.open(caller), at: 0))
        let lines = text.split(separator: "\n")
        #expect(lines.count == 3)
        #expect(lines[0].hasSuffix("\"path\":\"/a\\n\\\"b\\\\\\u0001\\u007fé\"}"))
        #expect(lines[1].hasSuffix("\"path_bytes\":\"2fffc3\"}"))
        #expect(lines[2].hasSuffix("\"path_cut\":true}") && lines[2].utf8.count < 5000)
    }

    @Test func `poll says when there is more, and nobody has too many readers`() throws {
        let stream = EventStream(memory: memory)
        let handle = try stream.open(caller)
        #expect(try stream.poll(handle, waiter: 77) == 0)
        let woken = Mutex<[[UInt64]]>([])
        // A next server wakes whom the last one has promised to.
        let next = EventStream(memory: memory)
        next.connect { waiters in woken.withLock { $0.append(waiters) } }
        next.tell(event("x"))
        #expect(woken.withLock { $0 } == [[77], [77]])
        #expect(try next.poll(handle, waiter: nil) == UInt32(POLLIN | POLLRDNORM))
        _ = read(next, handle, at: 0)
        #expect(try next.poll(handle, waiter: nil) == 0)
        next.close(handle)
        next.tell(event("y"))
        #expect(woken.withLock { $0.last } == [])
        #expect(failure { () throws(Errno) in _ = try next.poll(handle, waiter: nil) } == EBADF)
        var handles: [UInt64] = []
        for _ in 0..<EventReader.limit { handles.append(try next.open(caller)) }
        #expect(failure { () throws(Errno) in _ = try next.open(caller) } == ENFILE)
        // An opening that comes again takes back what nobody was told of.
        next.close(handles[0])
        let again = Caller(uid: 0, gid: 0, pid: 1, umask: 0, unique: 9, isResend: false)
        let lost = try next.open(again)
        let resent = Caller(uid: 0, gid: 0, pid: 1, umask: 0, unique: 9, isResend: true)
        #expect(try EventStream(memory: memory).open(resent) != lost)
    }
}
