public import Keyring
internal import Storage

/// Whole values: a new content gathers at a node of its own without a name, and takes the old one's place in one
/// transaction. Whoever opens the file meanwhile gets the old value; a crash leaves the old or the new.
extension SecretTree {
    /// Begins a replacement of a file's content.
    ///
    /// - Returns: the node to write the new content to, with `write`, `read`, `setAttributes` and the others.
    public func beginReplacement(of id: NodeID, now: Timestamp) throws(TreeError) -> NodeID {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeID in
            transaction.isAside = true
            let node = try transaction.file(id)
            var shadow = try transaction.newNode(
                NewNode(type: .file, permissions: 0o600, uid: node.attributes.uid, gid: node.attributes.gid),
                in: NodeRecord(node.attributes))
            shadow.attributes.linkCount = 0
            transaction.set(shadow)
            transaction.putOrphan(shadow.attributes.id)
            return shadow.attributes.id
        }
    }

    /// The new content becomes the file's. The node it gathered at is gone afterwards.
    ///
    /// - Parameters:
    ///   - keepsOld: That node stays instead and has the old content, for those who are just reading it. `hold` it
    ///     before and `release` it when they are done.
    ///   - modificationTime: What the file's shall be, if not now.
    public func commitReplacement(
        _ shadow: NodeID, of id: NodeID, clearsSetID: Bool, keepsOld: Bool = false, modificationTime: Timestamp? = nil,
        now: Timestamp
    ) throws(TreeError) -> NodeAttributes {
        try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeAttributes in
            transaction.freesSpace = true
            let new = try transaction.file(shadow)
            var node = try transaction.file(id)
            var old = new
            old.attributes.content = node.attributes.content
            old.attributes.size = node.attributes.size
            old.attributes.storedByteCount = node.attributes.storedByteCount
            old.isInBlocks = node.isInBlocks
            if !keepsOld { try transaction.dropContent(of: &node) }
            node.attributes.content = new.attributes.content
            node.attributes.size = new.attributes.size
            node.attributes.storedByteCount = new.attributes.storedByteCount
            node.isInBlocks = new.isInBlocks
            node.valueChanged(at: now)
            if let modificationTime { node.attributes.modificationTime = modificationTime }
            if clearsSetID { node.clearSetID() }
            transaction.set(node)
            transaction.haveJobsLookAgain(at: node)
            if keepsOld {
                transaction.set(old)
                transaction.haveJobsLookAgain(at: old)
            } else {
                transaction.remove(shadow)
                transaction.endOrphan(shadow)
            }
            return node.attributes
        }
    }

    /// The new content is thrown away, the file keeps what it has.
    public func abandonReplacement(_ shadow: NodeID, now: Timestamp) throws(TreeError) {
        try reap(shadow, now: now)
    }
}
