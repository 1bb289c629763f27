internal import Storage

/// Names the records that differ between two states of a store: an invertible Bloom lookup table
/// (Goodrich and Mitzenmacher, 2011) over (record key, freshness element).
///
/// Adding and dropping a record is a few XORs. The difference of two tables is peeled: a cell that holds one
/// record alone gives its key and element, which are then taken out of its other cells. 1026 cells name some 800
/// differing records; with more, those that come out are named and `isComplete` is false.
struct Localizer: Sendable {
    private struct Cell: Sendable {
        var count: Int64 = 0
        var kind: UInt64 = 0
        var owner: UInt64 = 0
        var high: UInt64 = 0
        var low: UInt64 = 0
        var element = HashSum()
        var check: UInt64 = 0

        static let byteCount = 80

        var isEmpty: Bool { count == 0 && element == HashSum() && check == 0 && owner == 0 && kind == 0 }

        mutating func toggle(_ record: RecordKey, _ hash: HashSum, check sum: UInt64, by sign: Int64) {
            count += sign
            kind ^= UInt64(record.kind)
            owner ^= record.owner
            high ^= record.high
            low ^= record.low
            element ^= hash
            check ^= sum
        }
    }

    /// One record that is in one table and not in the other.
    struct Difference {
        var record: RecordKey
        var element: HashSum
        /// True if it is in the store without being expected; false if it is expected and not there.
        var isPresent: Bool
    }

    private static let cellsPerRow = 342
    private static let rows = 3
    static let byteCount = cellsPerRow * rows * Cell.byteCount

    private var cells = [Cell](repeating: Cell(), count: cellsPerRow * rows)

    init() {}

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount else { return nil }
        for index in cells.indices {
            let place = index * Cell.byteCount
            cells[index] = Cell(
                count: bytes.number(Int64.self, at: place), kind: bytes.number(UInt64.self, at: place + 8),
                owner: bytes.number(UInt64.self, at: place + 16), high: bytes.number(UInt64.self, at: place + 24),
                low: bytes.number(UInt64.self, at: place + 32), element: HashSum(bytes, at: place + 40),
                check: bytes.number(UInt64.self, at: place + 72))
        }
    }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        for (index, cell) in cells.enumerated() {
            let place = index * Cell.byteCount
            bytes.put(cell.count, at: place)
            bytes.put(cell.kind, at: place + 8)
            bytes.put(cell.owner, at: place + 16)
            bytes.put(cell.high, at: place + 24)
            bytes.put(cell.low, at: place + 32)
            cell.element.put(into: bytes, at: place + 40)
            bytes.put(cell.check, at: place + 72)
        }
    }

    mutating func add(_ record: RecordKey, _ element: HashSum) { toggle(record, element, by: 1) }
    mutating func drop(_ record: RecordKey, _ element: HashSum) { toggle(record, element, by: -1) }

    /// What `self` (the store as found) has more and less than `expected`.
    func differences(from expected: Localizer) -> (found: [Difference], isComplete: Bool) {
        var table = self
        for index in table.cells.indices {
            let other = expected.cells[index]
            table.cells[index].count &-= other.count
            table.cells[index].kind ^= other.kind
            table.cells[index].owner ^= other.owner
            table.cells[index].high ^= other.high
            table.cells[index].low ^= other.low
            table.cells[index].element ^= other.element
            table.cells[index].check ^= other.check
        }
        var found: [Difference] = []
        var queue = Array(table.cells.indices)
        while let index = queue.popLast() {
            guard found.count < table.cells.count, let difference = table.alone(at: index) else { continue }
            found.append(difference)
            table.toggle(difference.record, difference.element, by: difference.isPresent ? -1 : 1)
            let (first, second, third) = Self.places(difference.element)
            queue += [first, second, third]
        }
        return (found, table.cells.allSatisfy(\.isEmpty))
    }

    /// The record that a cell holds, if it holds one alone.
    private func alone(at index: Int) -> Difference? {
        let cell = cells[index]
        guard cell.count == 1 || cell.count == -1, let kind = UInt8(exactly: cell.kind) else { return nil }
        let record = RecordKey(kind: kind, owner: cell.owner, high: cell.high, low: cell.low)
        let (first, second, third) = Self.places(cell.element)
        guard cell.check == Self.check(record, cell.element), [first, second, third].contains(index) else {
            return nil
        }
        return Difference(record: record, element: cell.element, isPresent: cell.count == 1)
    }

    private mutating func toggle(_ record: RecordKey, _ element: HashSum, by sign: Int64) {
        let check = Self.check(record, element)
        let (first, second, third) = Self.places(element)
        cells[first].toggle(record, element, check: check, by: sign)
        cells[second].toggle(record, element, check: check, by: sign)
        cells[third].toggle(record, element, check: check, by: sign)
    }

    /// One cell in each row, drawn from the element, which is the output of a keyed hash.
    private static func places(_ element: HashSum) -> (Int, Int, Int) {
        let width = UInt64(cellsPerRow)
        return (
            Int(element.a % width), cellsPerRow + Int(element.b % width), 2 * cellsPerRow + Int(element.c % width)
        )
    }

    /// Tells a cell of one record from a chance sum of several. The element in it is secret and random, so this
    /// needs no cryptography of its own.
    private static func check(_ record: RecordKey, _ element: HashSum) -> UInt64 {
        var mixed = element.d ^ UInt64(record.kind)
        mixed = mix(mixed ^ record.owner)
        mixed = mix(mixed ^ record.high)
        return mix(mixed ^ record.low)
    }

    private static func mix(_ word: UInt64) -> UInt64 {
        let product = word &* 0x9E37_79B9_7F4A_7C15
        return product ^ (product >> 29)
    }
}
