internal import Storage

/// What a record is; the first byte of its key. Raw values are the format's.
enum RecordKind: UInt8, CaseIterable {
    /// Plaintext, authenticated by the keyring: name, store id, key slots.
    case configuration = 1
    /// Epoch, multiset hash, counters; written by every transaction.
    case root = 2
    /// KEK versions and their states, sealed by the keyring.
    case lifecycle = 3
    /// The tree key, wrapped by the primary KEK version.
    case treeKey = 4
    /// The table that names tampered records.
    case localizer = 5
    /// A node's attributes. Owner: node.
    case node = 6
    /// A directory entry. Owner: directory; high and low: keyed hash of the name.
    case entry = 7
    /// A content's wrapped DEK, and small contents themselves. Owner: content.
    case envelope = 8
    /// An extended attribute. Owner: node; high and low: keyed hash of the name.
    case attribute = 9
    /// Where 16 blocks of a content lie, with their nonces and tags. Owner: content; high: index.
    case map = 10
    /// A node without a name that is still held open, or a replacement that is being gathered. Owner: node.
    case orphan = 11
    /// A symbolic link's target. Owner: node.
    case target = 12
    /// A dropped content whose maps and blocks are still to be collected. Owner: content.
    case garbage = 13
    /// How far a job is. Owner: the job's kind.
    case job = 14
    /// A content that is too long for its envelope and too short for blocks. Owner: content.
    case body = 15
    /// What the keyring keeps besides its tree. Owner: the document's kind.
    case document = 16

    /// The bytes at a record's beginning that tell it from every other one, authentication tags among them:
    /// what the freshness hash covers.
    var headByteCount: Int {
        switch self {
        case .envelope: Envelope.headByteCount
        case .configuration, .lifecycle, .treeKey: 4096
        default: RecordSeal.overheadByteCount
        }
    }

    /// The root and the localizer speak about all others, not about themselves.
    var isCounted: Bool { self != .root && self != .localizer }

    /// The longest head of any kind.
    static let longestHeadByteCount = 4096
}

extension RecordKey {
    init(_ kind: RecordKind, _ owner: UInt64 = 0, high: UInt64 = 0, low: UInt64 = 0) {
        self.init(kind: kind.rawValue, owner: owner, high: high, low: low)
    }

    /// The whole store.
    static let everything =
        RecordKey(kind: 0, owner: 0, high: 0, low: 0)...RecordKey(kind: .max, owner: .max, high: .max, low: .max)
}

extension ClosedRange<RecordKey> {
    /// Every record of that kind and owner.
    static func all(_ kind: RecordKind, of owner: UInt64, fromHigh high: UInt64 = 0) -> ClosedRange<RecordKey> {
        RecordKey(kind, owner, high: high)...RecordKey(kind, owner, high: .max, low: .max)
    }

    /// Every record of that kind.
    static func all(_ kind: RecordKind) -> ClosedRange<RecordKey> {
        RecordKey(kind)...RecordKey(kind, .max, high: .max, low: .max)
    }
}
