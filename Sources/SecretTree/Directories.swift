internal import Sodium
internal import Storage
internal import Threads

/// One name of a directory.
public struct DirectoryEntry: Sendable {
    public var node: NodeID
    public var type: NodeType
    /// To go on behind this name; stable for as long as it is there, from 3 up.
    public var cookie: UInt64
    /// Nil unless asked for, and for a node that is damaged.
    public var attributes: NodeAttributes?
}

extension SecretTree {
    /// How many entries are read in one go, so that neither a lock nor memory is held for a whole directory.
    private static let pageCount = 256

    /// Hands the names of a directory to `body`, those behind `cookie`, until it answers false. A name that is
    /// there all the while comes exactly once, whatever else is made or removed. "." and ".." are the caller's.
    ///
    /// A damaged entry is reported and left out: the others go on.
    public func readDirectory(
        _ id: NodeID, after cookie: UInt64, withAttributes: Bool,
        _ body: (UnsafeRawBufferPointer, DirectoryEntry) -> Bool
    ) throws(TreeError) {
        var cookie = cookie
        var goesOn = true
        while goesOn {
            goesOn = try lock.reading { () throws(TreeError) -> Bool in
                // A removed directory that somebody sits in has no entries, and is no error.
                _ = try directory(id)
                let page = try page(of: id, after: cookie)
                for (record, value) in page {
                    cookie = record.cookie
                    guard try hand(record, value, of: id, withAttributes: withAttributes, to: body) else {
                        return false
                    }
                }
                return page.count >= Self.pageCount
            }
        }
    }

    private func page(of id: NodeID, after cookie: UInt64) throws(TreeError) -> [(RecordKey, [UInt8])] {
        var page: [(RecordKey, [UInt8])] = []
        let first = cookie < 3 ? 0 : cookie << 1
        do throws(StorageError) {
            try store.scan(.all(.entry, of: id.rawValue, fromHigh: first), prefix: .max) { record, value in
                if record.cookie > cookie { page.append((record, [UInt8](value))) }
                return page.count < Self.pageCount
            }
        } catch { throw TreeError(error) }
        return page
    }

    private func hand(
        _ record: RecordKey, _ value: [UInt8], of id: NodeID, withAttributes: Bool,
        to body: (UnsafeRawBufferPointer, DirectoryEntry) -> Bool
    ) throws(TreeError) -> Bool {
        if !state.suspects.isEmpty, state.suspects[record] != nil {
            _ = tampered(record, id, "is not the one last written")
            return true
        }
        let answer = value.withUnsafeBytes { value in
            seals.records.open(record, value) { plaintext -> Bool? in
                guard let entry = Entry(plaintext), let name = Entry.name(plaintext) else { return nil }
                let attributes = withAttributes ? try? namedNode(entry.node).attributes : nil
                return body(
                    name,
                    DirectoryEntry(node: entry.node, type: entry.type, cookie: record.cookie, attributes: attributes))
            }
        }
        if answer == nil { _ = tampered(record, id, "does not authenticate") }
        return answer ?? true
    }
}

extension RecordKey {
    /// Of an entry: 63 bits of its name's keyed hash, as off_t is signed; 0 to 2 are for the beginning, "." and "..".
    var cookie: UInt64 { max(high >> 1, 3) }
}
