import SecretTree
import Synchronization

/// The paths of nodes, which the tree finds by name only: names are remembered when they are looked up or made.
///
/// What is remembered may be stale, so a path is checked against the tree, name by name, when it is put together; it
/// then holds until a name is taken away or moved somewhere.
final class NodePaths: Sendable {
    typealias Path = [UInt8]

    private struct Name: Hashable {
        var parent: NodeID
        var bytes: Path
    }

    /// Nearly every node has one name, which needs no array of its own: a keyring may have very many nodes.
    private enum Few<Value: Sendable>: Sendable {
        case none
        case one(Value)
        case more([Value])

        init(_ values: [Value]) { self = values.count == 1 ? .one(values[0]) : values.isEmpty ? .none : .more(values) }

        /// Without an array.
        func contains(where test: (Value) -> Bool) -> Bool {
            switch self {
            case .none: false
            case .one(let value): test(value)
            case .more(let values): values.contains(where: test)
            }
        }

        var all: [Value] {
            switch self {
            case .none: []
            case .one(let value): [value]
            case .more(let values): values
            }
        }
    }

    private struct Known {
        var names = Few<Name>.none
        /// When `names` were all that it has; 0 if they may not be.
        var generation: UInt64 = 0
        /// A directory's path as of that generation. Of other nodes, of which there are many more, it is put together.
        var path: Path?
    }

    private final class Shard: Sendable { let nodes = Mutex<[NodeID: Known]>([:]) }
    private static let shardCount = 32
    /// What is dropped is found again by reading a directory.
    private static let shardLimit = 8192
    /// A file with more names has no path: nobody could say what holds for it.
    private static let namesLimit = 64
    private static let depthLimit = 1024

    private let shards = (0..<shardCount).map { _ in Shard() }
    private let tree: SecretTree
    private let changes = Atomic<UInt64>(1)

    init(_ tree: SecretTree) { self.tree = tree }

    /// Grows whenever some path may have become another.
    var generation: UInt64 { changes.load(ordering: .acquiring) }

    /// A name was taken away or moved, or a node has one more.
    func changed() { changes.add(1, ordering: .acquiringAndReleasing) }

    private func shard(of id: NodeID) -> Shard { shards[Int(id.rawValue % UInt64(Self.shardCount))] }

    /// A node was found under a name, or got it.
    func note(_ id: NodeID, named name: UnsafeRawBufferPointer, in parent: NodeID) {
        shard(of: id).nodes.withLock { nodes in
            let known = nodes[id]?.names ?? .none
            if known.contains(where: { $0.parent == parent && $0.bytes.elementsEqual(name) }) { return }
            let names = known.all
            if names.count > Self.namesLimit { return }
            if nodes.count >= Self.shardLimit, nodes[id] == nil { nodes.removeAll(keepingCapacity: true) }
            nodes[id] = Known(names: Few(names + [Name(parent: parent, bytes: Path(name))]))
        }
    }

    /// Its first path; nil for what has no name.
    func path(of id: NodeID) -> Path? { paths(of: id).first }

    /// Where a name in a directory leads.
    func path(of name: UnsafeRawBufferPointer, in parent: NodeID) -> Path? {
        path(of: parent).map { Self.join($0, name) }
    }

    /// All paths of a node, more than one if it has hard links; none for what has no name.
    func paths(of id: NodeID) -> [Path] { paths(of: id, depth: 0) }

    private func paths(of id: NodeID, depth: Int) -> [Path] {
        if id == .root { return [Path("/".utf8)] }
        guard depth < Self.depthLimit else { return [] }
        let generation = generation
        let known = shard(of: id).nodes.withLock { nodes in
            nodes[id].flatMap { $0.generation == generation ? $0 : nil }
        }
        if let path = known?.path { return [path] }
        if let known { return join(known.names.all, depth) }
        let (names, isDirectory) = names(of: id)
        let paths = join(names, depth)
        // Of what changed meanwhile it says less than it should: an older generation, which nobody takes.
        shard(of: id).nodes.withLock { nodes in
            guard nodes.count < Self.shardLimit || nodes[id] != nil else { return }
            nodes[id] = Known(names: Few(names), generation: generation, path: isDirectory ? paths.first : nil)
        }
        return paths
    }

    private func join(_ names: [Name], _ depth: Int) -> [Path] {
        names.flatMap { name in paths(of: name.parent, depth: depth + 1).prefix(1).map { Self.join($0, name.bytes) } }
    }

    private static func join(_ directory: Path, _ name: some Sequence<UInt8>) -> Path {
        (directory.count == 1 ? [] : directory) + [UInt8(ascii: "/")] + name
    }

    // MARK: Finding names

    /// The names that a node has now: those that are remembered, if these are all.
    private func names(of id: NodeID) -> (names: [Name], isDirectory: Bool) {
        guard let attributes = try? tree.attributes(of: id) else { return ([], false) }
        let isDirectory = attributes.type == .directory
        let count = isDirectory ? 1 : Int(attributes.linkCount)
        guard attributes.linkCount > 0, count <= Self.namesLimit else { return ([], isDirectory) }
        var names = remembered(id)
        if names.count < count, attributes.parent.rawValue != 0 {
            names = read(attributes.parent, lookingFor: id, names)
        }
        if names.count < count { names = readEverything(lookingFor: id) }
        return (names, isDirectory)
    }

    private func remembered(_ id: NodeID) -> [Name] {
        let names = shard(of: id).nodes.withLock { $0[id]?.names.all ?? [] }
        return names.filter { name in
            name.bytes.withUnsafeBytes { bytes in
                (try? tree.lookup(bytes, in: name.parent))?.id == id
            }
        }
    }

    /// Reads one directory, and remembers all that is in it.
    private func read(
        _ directory: NodeID, lookingFor id: NodeID, _ known: [Name], below: (NodeID) -> Void = { _ in }
    ) -> [Name] {
        var found = Set(known)
        try? tree.readDirectory(directory, after: 0, withAttributes: false) { name, entry in
            if entry.type == .directory { below(entry.node) }
            if entry.node == id {
                found.insert(Name(parent: directory, bytes: Path(name)))
            } else {
                note(entry.node, named: name, in: directory)
            }
            return true
        }
        return Array(found)
    }

    /// The last resort: for files with several names, and those of stores that do not tell a file's directory.
    private func readEverything(lookingFor id: NodeID) -> [Name] {
        var found: [Name] = []
        var directories = [NodeID.root]
        while let directory = directories.popLast() {
            found = read(directory, lookingFor: id, found) { directories.append($0) }
        }
        return found
    }
}
