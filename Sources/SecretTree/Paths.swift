public import Keyring
internal import Sodium
internal import Storage

/// Walking the tree by name, in scratch memory: names are secrets too.
extension SecretTree {
    /// Calls `body` with the path of every regular file, from the mount's root ("/web/key"), and its attributes. A
    /// file with several names comes once with each. What is made or removed meanwhile may come or not.
    ///
    /// - Returns: false if `body` answered false.
    @discardableResult
    public func walk(
        from directory: NodeID = .root, _ body: (UnsafeRawBufferPointer, NodeAttributes) -> Bool
    ) throws(TreeError) -> Bool {
        let path = ScratchBuffer(byteCount: Self.pathLimit)
        return try walk(directory, path.bytes, 0, depth: 0, body)
    }

    /// The paths of the files that a KEK version guards, each ended by a zero byte.
    public func withPaths(under version: KEKVersion, _ body: (UnsafeRawBufferPointer) -> Void) throws(TreeError) {
        let ended = ScratchBuffer(byteCount: Self.pathLimit + 1)
        var failure: TreeError?
        try walk { path, attributes in
            guard attributes.content != 0 else { return true }
            do throws(TreeError) {
                // The lock is held for reading: a second time could wait for a writer who waits for the first.
                guard try self.version(ofContent: attributes.content) == version else { return true }
            } catch {
                failure = error
                return false
            }
            ended.bytes.put(path, at: 0)
            ended.bytes[path.count] = 0
            body(ended.bytes.readOnly.part(0, path.count + 1))
            return true
        }
        if let failure { throw failure }
    }

    /// Whether a KEK version guards a file's content; false for what is damaged. The tree may be locked for reading, so that
    /// it can be asked within `walk`.
    public func isGuarded(_ attributes: NodeAttributes, by version: KEKVersion) -> Bool {
        attributes.content != 0 && (try? self.version(ofContent: attributes.content)) == version
    }

    /// Longer than any path an application can name at once; what lies deeper is left out.
    private static let pathLimit = 64 * 1024
    private static let depthLimit = 1024

    private func walk(
        _ directory: NodeID, _ path: UnsafeMutableRawBufferPointer, _ length: Int, depth: Int,
        _ body: (UnsafeRawBufferPointer, NodeAttributes) -> Bool
    ) throws(TreeError) -> Bool {
        guard depth < Self.depthLimit else { return true }
        var failure: TreeError?
        var goesOn = true
        var below: [(NodeID, UInt64)] = []
        try readDirectory(directory, after: 0, withAttributes: true) { name, entry in
            guard length + 1 + name.count < path.count else { return true }
            if entry.type == .directory {
                below.append((entry.node, entry.cookie))
            } else if entry.type == .file, let attributes = entry.attributes {
                path[length] = UInt8(ascii: "/")
                path.put(name, at: length + 1)
                goesOn = body(path.readOnly.part(0, length + 1 + name.count), attributes)
            }
            return goesOn
        }
        guard goesOn else { return false }
        // The lock is free between directories: a walk over everything holds up nobody.
        for (child, cookie) in below {
            var end = length
            try readDirectory(directory, after: cookie - 1, withAttributes: false) { name, entry in
                guard entry.node == child else { return false }
                path[length] = UInt8(ascii: "/")
                path.put(name, at: length + 1)
                end = length + 1 + name.count
                return false
            }
            guard end > length else { continue }
            do throws(TreeError) {
                guard try walk(child, path, end, depth: depth + 1, body) else { return false }
            } catch {
                // A damaged or vanished directory is reported where it is found; its neighbours go on.
                switch error {
                case .tampered, .notFound: continue
                default: failure = error
                }
            }
            if let failure { throw failure }
        }
        return true
    }
}

extension SecretTree {
    /// The nodes of all regular files with a content, those without a name among them.
    public func files() throws(TreeError) -> [NodeID] {
        var files: [NodeID] = []
        do {
            try store.scan(.all(.node), prefix: 0) { record, _ in
                files.append(NodeID(rawValue: record.owner))
                return true
            }
        } catch { throw TreeError(error) }
        return files
    }
}
