import Glibc
import Synchronization

/// The newest lines of a stream, in memory that outlives the server that writes it.
///
/// Positions count bytes from the stream's beginning and never go back. A line is there when `end` has passed it, which
/// is one store: of a writer that is killed within a line nothing is seen. What is told with a line, such as the request
/// that it stands for, holds from that moment too.
///
///     0     magic 8 | end 8 | start 8 | last handle 8
///     32    number: two halves of 16, see `Mark`
///     64    64 requests: two halves of 16 each
///     4096  readers, see `EventReader`
///     64 Ki the lines, 1 MiB
struct EventRing: @unchecked Sendable {
    // Used under its stream's lock.
    static let headByteCount = 64 << 10
    static let capacity = 1 << 20
    static let byteCount = headByteCount + capacity
    static let readersPlace = 4096
    /// No line is longer; what tells of something cuts it before.
    static let lineLimit = 256 << 10
    private static let magic: UInt64 = 0x3130_5354_4e45_5645
    private static let slotCount = 64

    let memory: UnsafeMutableRawBufferPointer
    private var lines: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[Self.headByteCount...])
    }

    /// - Precondition: `memory` has `byteCount` bytes, all zero or of an earlier ring.
    init(memory: UnsafeMutableRawBufferPointer) {
        precondition(memory.count >= Self.byteCount)
        self.memory = memory
        if word(0) != Self.magic || !isSound {
            memory.initializeMemory(as: UInt8.self, repeating: 0)
            put(Self.magic, 0)
        }
        number.scrub(end)
        for slot in 0..<Self.slotCount { request(slot).scrub(end) }
    }

    private func word(_ place: Int) -> UInt64 { memory.load(fromByteOffset: place, as: UInt64.self) }
    private func put(_ value: UInt64, _ place: Int) {
        memory.storeBytes(of: value, toByteOffset: place, as: UInt64.self)
    }

    /// Where the next line goes.
    private(set) var end: UInt64 {
        get { word(8) }
        nonmutating set { put(newValue, 8) }
    }
    /// Where the oldest line begins that is whole.
    private(set) var start: UInt64 {
        get { word(16) }
        nonmutating set { put(newValue, 16) }
    }

    private var isSound: Bool {
        guard start <= end, end - start <= UInt64(Self.capacity) else { return false }
        return start == end || byte(end - 1) == Self.newline
    }

    /// A number that no reader of this stream has had.
    func nextHandle() -> UInt64 {
        let next = word(24) &+ 1
        put(next, 24)
        return next
    }

    // MARK: Lines

    private static let newline = UInt8(ascii: "\n")

    func byte(_ position: UInt64) -> UInt8 { lines[Int(position % UInt64(Self.capacity))] }

    /// Puts a line behind the others; the oldest go.
    ///
    /// - Parameters:
    ///   - line: with its newline.
    ///   - request: The worker that serves the request which the line stands for, and the request.
    ///   - number: What `toldNumber` is afterwards.
    func append(_ line: UnsafeRawBufferPointer, for request: (slot: Int, unique: UInt64)?, number: UInt64?) {
        guard !line.isEmpty, line.count <= Self.lineLimit else { return }
        let next = end + UInt64(line.count)
        makeRoom(until: next)
        let place = Int(end % UInt64(Self.capacity))
        let first = min(line.count, Self.capacity - place)
        UnsafeMutableRawBufferPointer(rebasing: lines[place...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: line[..<first]))
        lines.copyMemory(from: UnsafeRawBufferPointer(rebasing: line[first...]))
        if let request, (0..<Self.slotCount).contains(request.slot) {
            self.request(request.slot).put(request.unique, from: next, now: end)
        }
        if let number { self.number.put(number, from: next, now: end) }
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        end = next
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    private func makeRoom(until next: UInt64) {
        var oldest = start
        while next - oldest > UInt64(Self.capacity) { oldest = lineEnd(from: oldest) }
        guard oldest != start else { return }
        start = oldest
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    /// Behind the newline that comes first.
    func lineEnd(from position: UInt64) -> UInt64 {
        var position = position
        while position < end {
            position += 1
            if byte(position - 1) == Self.newline { break }
        }
        return position
    }

    /// Copies what lies from a position on, as much as there is and fits.
    func copy(from position: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int {
        precondition(position >= start && position <= end)
        let count = min(target.count, Int(end - position))
        let place = Int(position % UInt64(Self.capacity))
        let first = min(count, Self.capacity - place)
        target.copyMemory(from: UnsafeRawBufferPointer(rebasing: lines[place..<place + first]))
        UnsafeMutableRawBufferPointer(rebasing: target[first...]).copyMemory(
            from: UnsafeRawBufferPointer(rebasing: lines[..<(count - first)]))
        return count
    }

    /// Which line a position lies in, or which one will come there, and whether that has begun before it.
    ///
    /// Lines begin with `{"seq":N,`.
    func place(of position: UInt64) -> (line: UInt64, isWithin: Bool) {
        if position > start, position <= end, byte(position - 1) != Self.newline {
            return (sequence(at: lineStart(before: position)), true)
        }
        guard position < end else { return (lastSequence + 1, false) }
        return (sequence(at: position), false)
    }

    private func lineStart(before position: UInt64) -> UInt64 {
        var position = position
        while position > start, byte(position - 1) != Self.newline { position -= 1 }
        return position
    }

    private static let sequenceMark = Array("{\"seq\":".utf8)

    /// The number of the line that begins at a position; 0 for what is none of ours.
    private func sequence(at position: UInt64) -> UInt64 {
        var place = position
        for byte in Self.sequenceMark {
            guard place < end, self.byte(place) == byte else { return 0 }
            place += 1
        }
        var number: UInt64 = 0
        while place < end, case let digit = byte(place), (48...57).contains(digit) {
            let (product, isTooLarge) = number.multipliedReportingOverflow(by: 10)
            let (sum, overflows) = product.addingReportingOverflow(UInt64(digit - 48))
            guard !isTooLarge, !overflows else { return 0 }
            number = sum
            place += 1
        }
        return number
    }

    /// The number of the newest line; 0 if there is none.
    var lastSequence: UInt64 { start == end ? 0 : sequence(at: lineStart(before: end - 1)) }

    // MARK: What was told

    private var number: Mark { Mark(base: memory.baseAddress! + 32) }
    private func request(_ slot: Int) -> Mark { Mark(base: memory.baseAddress! + 64 + slot * Mark.byteCount) }

    /// The last number that a line was told with; nil before the first.
    var toldNumber: UInt64? { number.value(at: end) }

    /// A line stands for this request.
    func hasTold(_ request: UInt64) -> Bool {
        (0..<Self.slotCount).contains { self.request($0).value(at: end) == request }
    }
}

/// A number that becomes another one when the ring's end passes a position: `value 8 | position 8`, twice.
private struct Mark {
    static let byteCount = 32
    let base: UnsafeMutableRawPointer

    private func word(_ place: Int) -> UInt64 { base.load(fromByteOffset: place, as: UInt64.self) }
    private func put(_ value: UInt64, _ place: Int) { base.storeBytes(of: value, toByteOffset: place, as: UInt64.self) }

    /// The half that holds at an end; nil if neither does.
    private func half(at end: UInt64) -> Int? {
        [0, 16].filter { word($0 + 8) != 0 && word($0 + 8) <= end }.max { word($0 + 8) < word($1 + 8) }
    }

    func value(at end: UInt64) -> UInt64? { half(at: end).map { word($0) } }

    /// - Parameters:
    ///   - next: The end from which on it holds.
    ///   - end: The end before that.
    func put(_ value: UInt64, from next: UInt64, now end: UInt64) {
        let other = half(at: end) == 0 ? 16 : 0
        put(0, other + 8)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        put(value, other)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        put(next, other + 8)
    }

    /// What a writer that was killed has not come to say must not hold when somebody else's line is as long.
    func scrub(_ end: UInt64) {
        for half in [0, 16] where word(half + 8) > end { put(0, half + 8) }
    }
}
