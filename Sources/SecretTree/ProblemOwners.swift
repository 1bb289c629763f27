internal import Storage
internal import Synchronization

/// Whose the damaged contents are: a job that goes through envelopes knows their contents alone.
extension SecretTree {
    /// What was found damaged, each with the node that it belongs to where there is one. Looks through all nodes if a job has
    /// found damage since the last time.
    public var problemsByNode: [Problem] {
        let wanted = Set(problems.compactMap { $0.node == nil ? $0.content : nil })
        guard !wanted.isEmpty else { return problems }
        let owners = self.owners(of: wanted)
        return problemList.withLock { list in
            for index in list.indices {
                guard let content = list[index].content else { continue }
                list[index].content = nil
                if list[index].node == nil { list[index].node = owners[content] }
            }
            return list
        }
    }

    /// Whose some contents are, where they are somebody's. Looks through all nodes.
    func owners(of contents: Set<UInt64>) -> [UInt64: NodeID] {
        var wanted = contents
        var owners: [UInt64: NodeID] = [:]
        for id in (try? files()) ?? [] where !wanted.isEmpty {
            // What is damaged itself is nobody's.
            guard let attributes = try? attributes(of: id), wanted.remove(attributes.content) != nil else { continue }
            owners[attributes.content] = id
        }
        return owners
    }
}

extension TreeError {
    /// Why a job could not go on, for `status`.
    var reason: String {
        switch self {
        case .storage(let description): description
        case .tampered(let node): "a record of inode \(node.rawValue) does not authenticate"
        case .key(let error): "\(error)"
        default: "\(self)"
        }
    }
}
