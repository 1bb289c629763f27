internal import Synchronization
internal import Threads

/// Walking through ranges: the table and the changes to it that are not folded, merged.
extension JournaledStore {
    public func scan(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError) {
        guard !isClosed.load(ordering: .relaxed) else { throw .closed }
        let (walk, changes) = try moment(of: range, prefix: prefix)
        defer { table.end(walk) }
        var next = 0
        while true {
            let change = next < changes.count ? changes[next].key : nil
            guard let key = walk.key, change.map({ key < $0 }) ?? true else {
                guard let change else { return }
                if let value = changes[next].value {
                    let goesOn = value.withUnsafeBytes { bytes in
                        body(change, UnsafeRawBufferPointer(rebasing: bytes.prefix(max(prefix, 0))))
                    }
                    guard goesOn else { return }
                }
                if walk.key == change { try walk.advance() }
                next += 1
                continue
            }
            guard body(key, try walk.value()) else { return }
            try walk.advance()
        }
    }

    /// A range of the table and the changes to it, both as of one moment.
    func moment(
        of range: ClosedRange<RecordKey>, prefix: Int
    ) throws(StorageError) -> (Walk, [(key: RecordKey, value: [UInt8]?)]) {
        while true {
            let before = overlayLock.locked { generation }
            let walk = try table.walk(range, prefix: prefix, asOf: before)
            let changes = overlayLock.locked { () -> [(key: RecordKey, value: [UInt8]?)]? in
                // A fold that ended meanwhile took changes out of the overlay that the walk does not see.
                guard generation == before else { return nil }
                guard let frozen else { return overlay.records(in: range) }
                return Self.merged(frozen.records(in: range), overlay.records(in: range))
            }
            if let changes { return (walk, changes) }
            table.end(walk)
        }
    }

    /// Both in key order; of one record the newer change.
    private static func merged(
        _ older: [(key: RecordKey, value: [UInt8]?)], _ newer: [(key: RecordKey, value: [UInt8]?)]
    ) -> [(key: RecordKey, value: [UInt8]?)] {
        guard !newer.isEmpty else { return older }
        var merged: [(key: RecordKey, value: [UInt8]?)] = []
        merged.reserveCapacity(older.count + newer.count)
        var next = 0
        for change in older {
            while next < newer.count, newer[next].key < change.key {
                merged.append(newer[next])
                next += 1
            }
            if next < newer.count, newer[next].key == change.key { continue }
            merged.append(change)
        }
        merged += newer[next...]
        return merged
    }

    public func scanFolded(
        _ range: ClosedRange<RecordKey>, prefix: Int, _ body: (RecordKey, UnsafeRawBufferPointer) -> Bool
    ) throws(StorageError) {
        let walk = try table.walk(range, prefix: prefix)
        defer { table.end(walk) }
        while let key = walk.key {
            guard body(key, try walk.value()) else { return }
            try walk.advance()
        }
    }

    public var overlayKeys: [RecordKey] {
        overlayLock.locked {
            guard let frozen else { return overlay.keys }
            let all = RecordKey.first...RecordKey.last
            return Self.merged(frozen.records(in: all), overlay.records(in: all)).map(\.key)
        }
    }
}
