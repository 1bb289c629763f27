/// Records in key order, in memory: a list of short sorted runs, so that finding, inserting and visiting a range are
/// all quick. A nil value says that the record is deleted.
struct OrderedRecords: Sendable {
    private struct Run: Sendable {
        var keys: [RecordKey]
        var values: [[UInt8]?]
    }

    private static let runCapacity = 128

    private var runs: [Run] = []
    /// The first key of each run.
    private var firsts: [RecordKey] = []
    private(set) var count = 0

    var isEmpty: Bool { count == 0 }

    /// The record's value or deletion; nil if nothing is known of it.
    func value(of key: RecordKey) -> [UInt8]?? {
        guard let run = run(for: key) else { return nil }
        let place = Self.place(of: key, in: runs[run].keys)
        guard place < runs[run].keys.count, runs[run].keys[place] == key else { return nil }
        return .some(runs[run].values[place])
    }

    mutating func set(_ key: RecordKey, _ value: [UInt8]?) {
        guard !runs.isEmpty else {
            runs.append(Run(keys: [key], values: [value]))
            firsts.append(key)
            count = 1
            return
        }
        let run = run(for: key) ?? 0
        let place = Self.place(of: key, in: runs[run].keys)
        if place < runs[run].keys.count, runs[run].keys[place] == key {
            runs[run].values[place] = value
            return
        }
        count += 1
        guard runs[run].keys.count >= Self.runCapacity else {
            runs[run].keys.insert(key, at: place)
            runs[run].values.insert(value, at: place)
            if place == 0 { firsts[run] = key }
            return
        }
        // Ascending keys leave full runs behind them, others leave halves.
        let cut = run == runs.count - 1 && place == Self.runCapacity ? place : Self.runCapacity / 2
        var tail = Run(keys: Array(runs[run].keys[cut...]), values: Array(runs[run].values[cut...]))
        runs[run].keys.removeSubrange(cut...)
        runs[run].values.removeSubrange(cut...)
        if place >= cut {
            tail.keys.insert(key, at: place - cut)
            tail.values.insert(value, at: place - cut)
        } else {
            runs[run].keys.insert(key, at: place)
            runs[run].values.insert(value, at: place)
            if place == 0 { firsts[run] = key }
        }
        firsts.insert(tail.keys[0], at: run + 1)
        runs.insert(tail, at: run + 1)
    }

    /// Forgets the record, as opposed to noting that it is deleted.
    mutating func forget(_ key: RecordKey) {
        guard let run = run(for: key) else { return }
        let place = Self.place(of: key, in: runs[run].keys)
        guard place < runs[run].keys.count, runs[run].keys[place] == key else { return }
        count -= 1
        runs[run].keys.remove(at: place)
        runs[run].values.remove(at: place)
        if runs[run].keys.isEmpty {
            runs.remove(at: run)
            firsts.remove(at: run)
        } else if place == 0 {
            firsts[run] = runs[run].keys[0]
        }
    }

    /// Visits a range in key order until `body` answers false.
    func visit<E: Error>(
        _ range: ClosedRange<RecordKey>, _ body: (RecordKey, [UInt8]?) throws(E) -> Bool
    ) throws(E) {
        guard !runs.isEmpty else { return }
        var run = run(for: range.lowerBound) ?? 0
        var place = Self.place(of: range.lowerBound, in: runs[run].keys)
        while run < runs.count {
            while place < runs[run].keys.count {
                let key = runs[run].keys[place]
                guard key <= range.upperBound, try body(key, runs[run].values[place]) else { return }
                place += 1
            }
            run += 1
            place = 0
        }
    }

    /// A copy of a range.
    func records(in range: ClosedRange<RecordKey>) -> [(key: RecordKey, value: [UInt8]?)] {
        var found: [(key: RecordKey, value: [UInt8]?)] = []
        visit(range) { key, value in
            found.append((key, value))
            return true
        }
        return found
    }

    var keys: [RecordKey] { runs.flatMap(\.keys) }

    /// The run that holds the key if any does; nil if the key is before all runs.
    private func run(for key: RecordKey) -> Int? {
        let place = Self.place(of: key, in: firsts)
        if place < firsts.count, firsts[place] == key { return place }
        return place == 0 ? nil : place - 1
    }

    /// Where the key is in a sorted list or would go.
    @inline(__always)
    private static func place(of key: RecordKey, in keys: [RecordKey]) -> Int {
        keys.withUnsafeBufferPointer { keys in
            var low = 0
            var high = keys.count
            while low < high {
                let middle = (low + high) / 2
                if keys[middle] < key { low = middle + 1 } else { high = middle }
            }
            return low
        }
    }
}

extension RecordKey {
    static let first = RecordKey(kind: 0, owner: 0)
    static let last = RecordKey(kind: .max, owner: .max, high: .max, low: .max)
}
