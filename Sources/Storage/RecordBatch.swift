/// Changes to records that take effect together or not at all.
public struct RecordBatch: Sendable {
    /// True for a batch that gives space back: on a full disk it may use the store's reserve.
    public var freesSpace = false

    /// In the order given; of two changes of one record the later one holds. A nil value deletes.
    private(set) var changes: [(key: RecordKey, value: [UInt8]?)] = []
    private(set) var expectations: [(key: RecordKey, value: [UInt8]?)] = []

    public init() {}

    public var isEmpty: Bool { changes.isEmpty }

    public mutating func put(_ key: RecordKey, _ value: [UInt8]) { changes.append((key, value)) }

    /// Deleting what is not there is no error.
    public mutating func delete(_ key: RecordKey) { changes.append((key, nil)) }

    /// Puts the changes of a large batch, of which none changes what another one does, in the order of their records: so
    /// they are taken over faster.
    public mutating func sort() { changes.sort { $0.key < $1.key } }

    /// The batch fails with `.conflict` unless the record has this value (nil: is absent) before the batch.
    public mutating func expect(_ key: RecordKey, _ value: [UInt8]?) { expectations.append((key, value)) }
}
