import Synchronization

/// A row for an open handle of the stream: where it is, so that the next server goes on with it.
///
/// What a handle reads at an offset lies in the ring at that offset and its shift. Whoever is overtaken by the writer reads
/// one line that says how much is lost, and goes on behind the gap with a larger shift. The two copies of that are
/// changed in turns, so that a server that is killed leaves one that is whole.
///
///     0  handle 8 | opening request 8 | waiter in poll(2) 8 | copy that holds 8
///     32 next position 8 | line there 8, its lowest bit: within it
///     48 shift 8 | offset of the lost line 8 | lines lost and 1, 8: the copies, 24 each
struct EventReader {
    static let byteCount = 128
    static let limit = (EventRing.headByteCount - EventRing.readersPlace) / byteCount

    let base: UnsafeMutableRawPointer

    init(_ ring: EventRing, _ index: Int) {
        base = ring.memory.baseAddress! + EventRing.readersPlace + index * Self.byteCount
    }

    private func word(_ place: Int) -> UInt64 { base.load(fromByteOffset: place, as: UInt64.self) }
    private func put(_ value: UInt64, _ place: Int) { base.storeBytes(of: value, toByteOffset: place, as: UInt64.self) }

    /// 0 for a row that is free.
    var handle: UInt64 { word(0) }
    var opening: UInt64 { word(8) }
    /// The kernel's number of whoever waits in poll(2); 0 for nobody.
    var waiter: UInt64 {
        get { word(16) }
        nonmutating set { put(newValue, 16) }
    }

    func begin(_ handle: UInt64, opening request: UInt64) {
        free()
        put(request, 8)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        put(handle, 0)
    }

    func free() {
        put(0, 0)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        UnsafeMutableRawBufferPointer(start: base, count: Self.byteCount).initializeMemory(as: UInt8.self, repeating: 0)
    }

    // MARK: Reading

    private var copy: Int { 48 + Int(word(24) & 1) * 24 }
    private var shift: UInt64 { word(copy) }
    private var lostOffset: UInt64 { word(copy + 8) }
    private var lostWord: UInt64 { word(copy + 16) }

    private func change(shift: UInt64, lostOffset: UInt64, lostWord: UInt64) {
        let other = 48 + Int(~word(24) & 1) * 24
        put(shift, other)
        put(lostOffset, other + 8)
        put(lostWord, other + 16)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        put(word(24) ^ 1, 24)
    }

    /// What the handle reads at an offset; nil if that is still to come.
    func read(_ ring: EventRing, at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int? {
        if lostWord != 0, let count = readLostLine(at: offset, into: target) { return count }
        let (sum, overflows) = offset.addingReportingOverflow(shift)
        guard !overflows else { return nil }
        var position = sum
        if position < ring.start {
            isOvertaken(ring, at: offset, position)
            if lostWord != 0, let count = readLostLine(at: offset, into: target) { return count }
            position = ring.start
        }
        guard position < ring.end, !target.isEmpty else { return nil }
        let count = ring.copy(from: position, into: target)
        let next = ring.place(of: position + UInt64(count))
        put(next.line << 1 | (next.isWithin ? 1 : 0), 40)
        put(position + UInt64(count), 32)
        return count
    }

    /// Something can be read at the place that it has come to, and whoever is overtaken has something to read.
    func hasMore(_ ring: EventRing) -> Bool { word(32) < ring.end }

    private func isOvertaken(_ ring: EventRing, at offset: UInt64, _ position: UInt64) {
        let (next, word) = (word(32), word(40))
        // Who has read nothing so far begins with what there is.
        guard next != 0 else { return change(shift: ring.start - offset, lostOffset: 0, lostWord: 0) }
        let isKnown = next == position
        var resumed = ring.start
        var lost: UInt64
        var behind: UInt64
        repeat {
            let first = ring.place(of: resumed).line
            let count = isKnown && first > word >> 1 ? first - (word >> 1) : 0
            lost = (count + 1) << 1 | (isKnown ? word & 1 : 0)
            behind = offset + UInt64(Self.lostLine(lost).count)
            // Offsets must not get ahead of positions: what tail(1) takes for a file that was made shorter.
            if behind > resumed { resumed = ring.lineEnd(from: resumed) }
        } while behind > resumed && resumed < ring.end
        guard behind <= resumed else { return change(shift: ring.start - offset, lostOffset: 0, lostWord: 0) }
        change(shift: resumed - behind, lostOffset: offset, lostWord: lost)
    }

    private func readLostLine(at offset: UInt64, into target: UnsafeMutableRawBufferPointer) -> Int? {
        let line = Self.lostLine(lostWord)
        guard offset >= lostOffset, offset - lostOffset < UInt64(line.count) else { return nil }
        let rest = line[Int(offset - lostOffset)...].prefix(target.count)
        target.copyBytes(from: rest)
        return rest.count
    }

    /// - Parameter word: how many lines are lost, and 1; the lowest bit: the handle has read the beginning of the first.
    private static func lostLine(_ word: UInt64) -> [UInt8] {
        let count = (word >> 1) - 1
        let line = count == 0 ? "{\"event\":\"lost\"}\n" : "{\"event\":\"lost\",\"lines\":\(count)}\n"
        return Array(((word & 1 == 0 ? "" : "\n") + line).utf8)
    }
}
