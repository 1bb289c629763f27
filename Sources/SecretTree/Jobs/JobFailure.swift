internal import Storage
internal import Threads

/// A file that a job could not do.
public struct JobFailure: Sendable, Equatable {
    public enum Reason: UInt8, Sendable {
        /// A record of it is not what was written.
        case tampered = 1
        /// Its KEK version is not to be used.
        case key = 2
        /// The store could not be read or written.
        case storage = 3

        /// Nil for what is no fault of the file's.
        init?(_ error: TreeError) {
            switch error {
            case .tampered: self = .tampered
            case .key: self = .key
            case .storage: self = .storage
            default: return nil
            }
        }

        /// As control files tell it.
        public var name: String {
            switch self {
            case .tampered: "does not authenticate"
            case .key: "its key cannot be used"
            case .storage: "the store cannot be read or written"
            }
        }
    }

    /// Nil while nobody has looked whose the content is.
    public internal(set) var node: NodeID?
    /// 0 if that could not be told.
    public let content: UInt64
    public let reason: Reason
}

/// The files that a job could not do, as its record keeps them from one server to the next: `node 8 | content 8 | reason 1 |
/// zero 7` each, the first so many of them.
struct JobFailures: Sendable, Equatable {
    static let limit = 256
    private static let entryByteCount = 24

    private(set) var all: [JobFailure] = []

    init() {}

    /// Whether there is one more now.
    mutating func note(_ failure: JobFailure) -> Bool {
        guard all.count < Self.limit, !all.contains(failure) else { return false }
        all.append(failure)
        return true
    }

    /// Somebody has looked whose contents they are.
    mutating func name(_ owners: [UInt64: NodeID]) {
        for index in all.indices where all[index].node == nil { all[index].node = owners[all[index].content] }
    }

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count % Self.entryByteCount == 0, bytes.count / Self.entryByteCount <= Self.limit else {
            return nil
        }
        for place in stride(from: 0, to: bytes.count, by: Self.entryByteCount) {
            guard let reason = JobFailure.Reason(rawValue: bytes[place + 16]) else { return nil }
            let node = bytes.number(UInt64.self, at: place)
            all.append(
                JobFailure(
                    node: node == 0 ? nil : NodeID(rawValue: node), content: bytes.number(UInt64.self, at: place + 8),
                    reason: reason))
        }
    }

    var byteCount: Int { all.count * Self.entryByteCount }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        for (index, failure) in all.enumerated() {
            let place = index * Self.entryByteCount
            bytes.put(failure.node?.rawValue ?? 0, at: place)
            bytes.put(failure.content, at: place + 8)
            bytes.put(UInt64(failure.reason.rawValue), at: place + 16)
        }
    }
}

extension SecretTree {
    /// The files that the last job of a kind could not do, at most 256 of them, with their nodes where there are any: who has
    /// a new value since is not among them.
    public func failures(of kind: JobKind) -> [JobFailure] {
        let known = lock.reading { state.jobFailures[kind] ?? JobFailures() }
        if known.all.contains(where: { $0.node == nil }) {
            let owners = self.owners(of: Set(known.all.compactMap { $0.node == nil ? $0.content : nil }))
            lock.writing { state.jobFailures[kind]?.name(owners) }
        }
        return lock.reading { state.jobFailures[kind]?.all ?? [] }.filter { failure in
            guard let node = failure.node else { return false }
            // What cannot be looked at is as it was.
            guard failure.content != 0, let attributes = try? attributes(of: node) else { return true }
            return attributes.content == failure.content
        }
    }
}

extension Transaction {
    /// Notes the files that a batch could not do.
    mutating func note(_ failures: [JobFailure], of kind: JobKind) {
        var noted = jobFailures[kind] ?? tree.state.jobFailures[kind] ?? JobFailures()
        var hasNews = false
        for failure in failures where noted.note(failure) { hasNews = true }
        if hasNews { set(noted, of: kind) }
    }

    /// A job begins: nothing has failed.
    mutating func forgetFailures(of kind: JobKind) {
        guard tree.state.jobFailures[kind]?.all.isEmpty == false else { return }
        set(JobFailures(), of: kind)
    }

    private mutating func set(_ failures: JobFailures, of kind: JobKind) {
        jobFailures[kind] = failures
        let record = RecordKey(.job, UInt64(kind.rawValue), low: 1)
        guard !failures.all.isEmpty else { return delete(record) }
        seal(record, byteCount: failures.byteCount) { failures.put(into: $0) }
    }
}
