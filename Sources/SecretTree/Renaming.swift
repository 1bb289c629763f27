public import Keyring
internal import Storage

/// What renameat2(2) may be asked for besides.
public enum RenameMode: Sendable {
    case replace
    /// Fails with `.exists` if the new name is taken.
    case noReplace
    /// Both names must be there; what they name changes places.
    case exchange
}

/// What a rename has done.
public struct RenameOutcome: Sendable {
    public var moved: NodeAttributes
    /// What had the new name: gone, or, after an exchange, under the old name now.
    public var replaced: NodeAttributes?
}

extension SecretTree {
    /// Moves a name, in one transaction: whoever looks finds the old or the new.
    ///
    /// - Parameter whiteout: What is made at the old name (RENAME_WHITEOUT); not for an exchange.
    public func rename(
        _ name: UnsafeRawBufferPointer, in parent: NodeID, to newName: UnsafeRawBufferPointer,
        in newParent: NodeID, _ mode: RenameMode, leaving whiteout: NewNode? = nil, now: Timestamp
    ) throws(TreeError) -> RenameOutcome {
        guard name.count <= Entry.nameLimit, newName.count <= Entry.nameLimit else { throw .nameTooLong }
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> RenameOutcome in
            _ = try transaction.directory(parent)
            _ = try transaction.directoryForNewEntry(newParent)
            guard let source = try transaction.entry(name, in: parent) else { throw .notFound }
            let target = try transaction.entry(newName, in: newParent)
            let moved = try transaction.namedNode(source.node)
            if source.type == .directory { try transaction.refuseLoop(source.node, into: newParent) }
            if mode == .exchange {
                guard let target else { throw .notFound }
                return try transaction.exchange(
                    Place(name: name, directory: parent, entry: source),
                    Place(name: newName, directory: newParent, entry: target))
            }
            let place = Place(name: name, directory: parent, entry: source)
            guard let target else {
                return try transaction.move(place, to: newName, in: newParent, leaving: whiteout, replaced: nil)
            }
            if mode == .noReplace { throw .exists }
            // Two names of one file: rename(2) does nothing and says that it was done.
            guard target.node != source.node else {
                return RenameOutcome(moved: moved.attributes, replaced: moved.attributes)
            }
            switch (source.type == .directory, target.type == .directory) {
            case (true, false): throw .notADirectory
            case (false, true): throw .isADirectory
            default: break
            }
            let replaced = try transaction.replace(target, in: newParent)
            return try transaction.move(place, to: newName, in: newParent, leaving: whiteout, replaced: replaced)
        }
    }
}

/// A name and what it names.
private struct Place {
    var name: UnsafeRawBufferPointer
    var directory: NodeID
    var entry: Entry
}

extension Transaction {
    func namedNode(_ id: NodeID) throws(TreeError) -> NodeRecord {
        do { return try node(id) } catch .notFound {
            throw tree.tampered(RecordKey(.node, id.rawValue), id, "is missing")
        }
    }

    /// A directory cannot move below itself.
    func refuseLoop(_ moved: NodeID, into directory: NodeID) throws(TreeError) {
        var place = directory
        while place != .root {
            if place == moved { throw .invalid }
            let parent = try node(place).attributes.parent
            guard parent.rawValue != 0, parent != place else { return }
            place = parent
        }
    }

    /// Counts and times of a directory that gains or loses names and directories.
    private mutating func adjust(_ id: NodeID, entries: Int64 = 0, links: Int32 = 0) throws(TreeError) {
        var directory = try directory(id)
        directory.entryCount = UInt64(max(0, Int64(directory.entryCount) + entries))
        let linkCount = Int64(directory.attributes.linkCount) + Int64(links)
        guard linkCount <= Int64(SecretTree.linkLimit) else { throw .tooManyLinks }
        directory.attributes.linkCount = UInt32(max(0, linkCount))
        directory.modified(at: now)
        set(directory)
    }

    /// What had the new name loses it.
    fileprivate mutating func replace(_ target: Entry, in directory: NodeID) throws(TreeError) -> NodeAttributes? {
        if target.type == .directory {
            let attributes = try namedNode(target.node).attributes
            try dropDirectory(target.node)
            try adjust(directory, entries: -1, links: -1)
            return attributes
        }
        freesSpace = true
        let attributes = try dropName(of: target)
        try adjust(directory, entries: -1)
        return attributes
    }

    fileprivate mutating func move(
        _ source: Place, to newName: UnsafeRawBufferPointer, in newParent: NodeID, leaving whiteout: NewNode?,
        replaced: NodeAttributes?
    ) throws(TreeError) -> RenameOutcome {
        let isDirectory = source.entry.type == .directory
        deleteEntry(source.name, in: source.directory)
        putEntry(newName, in: newParent, source.entry)
        if source.directory == newParent {
            try adjust(newParent)
        } else {
            try adjust(source.directory, entries: -1, links: isDirectory ? -1 : 0)
            try adjust(newParent, links: isDirectory ? 1 : 0)
        }
        if source.directory != newParent { try adjust(newParent, entries: 1) }
        if let whiteout { try leave(whiteout, at: source) }
        let moved = try settle(source.entry.node, in: newParent)
        return RenameOutcome(moved: moved, replaced: replaced)
    }

    /// Makes a node at a name that has just become free.
    private mutating func leave(_ new: NewNode, at place: Place) throws(TreeError) {
        let directory = try directory(place.directory)
        var node = try newNode(new, in: directory)
        node.attributes.parent = place.directory
        set(node)
        putEntry(place.name, in: place.directory, Entry(node: node.attributes.id, type: new.type))
        try adjust(place.directory, entries: 1)
    }

    fileprivate mutating func exchange(_ one: Place, _ other: Place) throws(TreeError) -> RenameOutcome {
        if other.entry.type == .directory { try refuseLoop(other.entry.node, into: one.directory) }
        putEntry(one.name, in: one.directory, other.entry)
        putEntry(other.name, in: other.directory, one.entry)
        let links = (one.entry.type == .directory ? 1 : 0) - (other.entry.type == .directory ? 1 : 0)
        if one.directory == other.directory {
            try adjust(one.directory)
        } else {
            try adjust(one.directory, links: Int32(-links))
            try adjust(other.directory, links: Int32(links))
        }
        let replaced = try settle(other.entry.node, in: one.directory)
        return RenameOutcome(moved: try settle(one.entry.node, in: other.directory), replaced: replaced)
    }

    /// A node that has moved knows its parent, and its status has changed.
    private mutating func settle(_ id: NodeID, in parent: NodeID) throws(TreeError) -> NodeAttributes {
        var node = try namedNode(id)
        node.attributes.parent = parent
        node.attributes.statusChangeTime = now
        set(node)
        return node.attributes
    }
}
