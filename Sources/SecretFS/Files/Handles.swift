import Glibc
import SecretTree
import Synchronization

/// What a file handle stands for. Cached reading handles carry no state that would die with a server.
enum Handle {
    /// Opened for reading with the page cache; the content's generation then, which server's that is, and the policy that
    /// let it pass.
    case reader(generation: UInt32, era: UInt16, policy: UInt32)
    /// Opened for reading past the page cache, in the table of readers.
    case directReader(UInt64)
    /// A writable descriptor, in the table of writers.
    case writer(UInt64)
    /// An open control file.
    case control(UInt64)

    private static let shift: UInt64 = 60
    /// What a handle keeps of a policy's generation.
    static let policyMask: UInt32 = 0xff_ffff
    /// Of the server's number in handles; below it are 40 bits for those of one server.
    static let eraShift: UInt64 = 40

    init(_ rawValue: UInt64) {
        let rest = rawValue & (1 << Self.shift - 1)
        switch rawValue >> Self.shift {
        case 1: self = .writer(rest)
        case 2: self = .control(rest)
        case 3: self = .directReader(rest)
        default:
            self = .reader(
                generation: UInt32(truncatingIfNeeded: rest & 0xff_ffff), era: UInt16(rest >> 24 & 0xfff),
                policy: UInt32(truncatingIfNeeded: rest >> 36) & Self.policyMask)
        }
    }

    var rawValue: UInt64 {
        switch self {
        // generation 24 bits | era 12 bits | policy 24 bits
        case .reader(let generation, let era, let policy):
            UInt64(policy & Self.policyMask) << 36 | UInt64(era & 0xfff) << 24 | UInt64(generation & 0xff_ffff)
        case .directReader(let number): 3 << Self.shift | number
        case .writer(let number): 1 << Self.shift | number
        case .control(let number): 2 << Self.shift | number
        }
    }
}

/// A descriptor that is open for writing.
final class Writer: Sendable {
    let node: NodeID
    /// The thread that opened it.
    let opener: Int32
    let isCached: Bool
    /// The content's generation at the opening.
    let generation: UInt32
    /// The generation of the policy that let it pass.
    let policy: UInt32
    /// It has written since it was last flushed, and is counted among the node's `activeWriters`.
    let isActive = Atomic(false)
    /// Nothing was done with it yet; it is among the node's `freshWriters`.
    let isFresh: Atomic<Bool>
    /// It was brought to disk before it was closed, and has become a value by that.
    let isOpenPastCommit = Atomic<Bool>(false)
    /// Its row in the ledger.
    let cell: LedgerCell?
    private let gathering = Mutex<ReplaceSession?>(nil)

    init(
        _ node: NodeID, opener: Int32, isFresh: Bool, isCached: Bool, generation: UInt32, policy: UInt32,
        cell: LedgerCell? = nil
    ) {
        self.cell = cell
        self.policy = policy
        self.node = node
        self.opener = opener
        self.isFresh = Atomic(isFresh)
        self.isCached = isCached
        self.generation = generation
    }

    /// The value that it gathers; the session may have ended.
    var session: ReplaceSession? {
        get { gathering.withLock { $0 } }
        set { gathering.withLock { $0 = newValue } }
    }
}

/// Numbered objects that the kernel names by their number.
final class HandleTable<Value: AnyObject & Sendable>: Sendable {
    private struct Contents: Sendable {
        var next: UInt64 = 1
        var values: [UInt64: Value] = [:]
    }

    private let contents = Mutex(Contents())

    /// - Parameter era: The server's number, so that no handle has the number of an earlier server's.
    init(era: UInt16 = 0) { contents.withLock { $0.next = UInt64(era) << Handle.eraShift + 1 } }

    /// An earlier server's handle.
    func insert(_ value: Value, at number: UInt64) { contents.withLock { $0.values[number] = value } }

    func add(_ value: Value) -> UInt64 {
        contents.withLock { contents in
            defer { contents.next += 1 }
            contents.values[contents.next] = value
            return contents.next
        }
    }

    func contains(_ isWanted: (Value) -> Bool) -> Bool {
        contents.withLock { $0.values.values.contains(where: isWanted) }
    }

    subscript(number: UInt64) -> Value? { contents.withLock { $0.values[number] } }

    func remove(_ number: UInt64) -> Value? {
        contents.withLock { $0.values.removeValue(forKey: number) }
    }
}
