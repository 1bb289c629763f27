public import Keyring
internal import Storage
internal import Threads

/// What a keyring keeps besides its tree, one of a kind. Raw values are the format's.
public enum DocumentKind: UInt64, Sendable, CaseIterable {
    /// Who may do what.
    case policy = 1
    /// What is done after values have changed.
    case hooks = 2
    /// Where the audit log is.
    case audit = 3
}

/// A document as it was last replaced.
public struct Document: Sendable, Equatable {
    /// Counts its replacements, from 1; 0 for one that was never written.
    public var generation: UInt32
    public var changed: Timestamp
    public var bytes: [UInt8]

    /// The longest.
    public static let byteLimit = 65_536

    /// `generation 4 | length 4 | changed 12 | bytes`, and zeros up to a whole number of 256.
    private static let headByteCount = 20

    var byteCount: Int { rounded(Self.headByteCount + bytes.count, upTo: 256) }

    init(generation: UInt32, changed: Timestamp, bytes: [UInt8]) {
        self.generation = generation
        self.changed = changed
        self.bytes = bytes
    }

    init?(_ record: UnsafeRawBufferPointer) {
        guard record.count >= Self.headByteCount else { return nil }
        let length = Int(record.number(UInt32.self, at: 4))
        guard length <= Self.byteLimit, record.count == rounded(Self.headByteCount + length, upTo: 256) else {
            return nil
        }
        generation = record.number(UInt32.self, at: 0)
        changed = record.timestamp(at: 8)
        bytes = Array(record.part(Self.headByteCount, length))
    }

    func put(into record: UnsafeMutableRawBufferPointer) {
        record.put(generation, at: 0)
        record.put(UInt32(bytes.count), at: 4)
        record.put(changed, at: 8)
        bytes.withUnsafeBytes { record.put($0, at: Self.headByteCount) }
        record.zero(from: Self.headByteCount + bytes.count, to: record.count)
    }
}

/// Sealed documents, each replaced whole.
extension SecretTree {
    /// - Returns: nil if it was never written.
    /// - Throws: `.tampered` if it is not the one that was written last.
    public func document(_ kind: DocumentKind) throws(TreeError) -> Document? {
        try lock.reading { () throws(TreeError) in try read(kind) }
    }

    private func read(_ kind: DocumentKind) throws(TreeError) -> Document? {
        try open(RecordKey(.document, kind.rawValue), of: NodeID(rawValue: 0)) { Document($0) }
    }

    /// Replaces a document in one transaction, also one that was tampered with.
    ///
    /// - Throws: `.attributeTooLarge` if it is longer than `Document.byteLimit`.
    public func replace(_ kind: DocumentKind, with bytes: [UInt8], now: Timestamp) throws(TreeError) -> Document {
        guard bytes.count <= Document.byteLimit else { throw .attributeTooLarge }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) in
            var generation: UInt32 = 0
            do throws(TreeError) { generation = try read(kind)?.generation ?? 0 } catch {
                guard case .tampered = error else { throw error }
                // What it was is not known: an hour has fewer replacements than seconds.
                generation = UInt32(truncatingIfNeeded: now.seconds)
            }
            let document = Document(generation: generation &+ 1, changed: now, bytes: bytes)
            transaction.seal(RecordKey(.document, kind.rawValue), byteCount: document.byteCount) {
                document.put(into: $0)
            }
            return document
        }
    }
}
