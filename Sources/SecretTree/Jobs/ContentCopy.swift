internal import Glibc
internal import Keyring
internal import Sodium
internal import Storage
internal import Threads

/// A large content on its way to a new DEK. In memory alone: a crash throws the copy away, and the job begins it anew.
struct ContentCopy: Sendable {
    /// The content that is copied; whoever writes to it marks what they have touched.
    let content: UInt64
    var touched: Set<UInt64> = []
}

extension SecretTree {
    /// 512 KiB while others who change something wait.
    private static let mapsPerStep = 8

    /// Copies a content to a new one under a new DEK and puts that in its place.
    ///
    /// - Returns: `.nothing` if the content was replaced meanwhile, `.held` if the job or the tree is.
    func copyToNewContent(_ id: NodeID, _ kind: JobKind) throws(TreeError) -> JobOutcome {
        guard let shadow = try beginCopy(id, kind) else { return .nothing }
        do throws(TreeError) {
            let outcome = try copyAll(id, to: shadow, kind, with: jobsRunner.companion)
            if outcome != .done { abandonCopy(shadow) }
            return outcome
        } catch {
            abandonCopy(shadow)
            throw error
        }
    }

    private func beginCopy(_ id: NodeID, _ kind: JobKind) throws(TreeError) -> NodeID? {
        let now = Timestamp.now()
        return try change(now: now) { (transaction: inout Transaction) throws(TreeError) -> NodeID? in
            guard let job = transaction.running(kind) else { return nil }
            let node = try transaction.node(id)
            guard node.isInBlocks, try transaction.needsReencryption(node, job) else { return nil }
            var shadow = try transaction.newNode(
                NewNode(type: .file, permissions: 0o600, uid: 0, gid: 0), in: NodeRecord(node.attributes))
            shadow.attributes.linkCount = 0
            shadow.attributes.size = node.attributes.size
            try transaction.newContent(of: &shadow) { _, _, _, head in [UInt8](head) }
            shadow.isInBlocks = true
            transaction.set(shadow)
            transaction.putOrphan(shadow.attributes.id, isCopy: true)
            transaction.newCopy = ContentCopy(content: node.attributes.content)
            return shadow.attributes.id
        }
    }

    private func copyAll(
        _ id: NodeID, to shadow: NodeID, _ kind: JobKind, with companion: Companion
    ) throws(TreeError) -> JobOutcome {
        var next: UInt64 = 0
        // First everything in order, then what was touched meanwhile, until nothing is.
        while true {
            var outcome: JobOutcome?
            let now = Timestamp.now()
            try changeBesideReaders(now: now) { (transaction: inout Transaction) throws(TreeError) in
                outcome = nil
                guard let copy = state.copy, let job = transaction.running(kind), nextJob == kind,
                    !jobsRunner.isStopping
                else {
                    outcome = .held
                    return
                }
                var node = try transaction.node(id)
                guard node.attributes.content == copy.content else {
                    outcome = .nothing
                    return
                }
                var new = try transaction.node(shadow)
                let range =
                    RecordKey(.map, copy.content, high: next)...RecordKey(.map, copy.content, high: .max, low: .max)
                let inOrder = next == .max ? [] : try firstKeys(Self.mapsPerStep, in: range).map(\.high)
                if inOrder.isEmpty {
                    let touched = Array(copy.touched.sorted().prefix(Self.mapsPerStep))
                    try transaction.copyMaps(touched, of: node, to: new, with: companion)
                    transaction.copiedMaps = touched
                    next = .max
                    if touched.count == copy.touched.count {
                        try transaction.takeOver(&new, by: &node, job)
                        outcome = .done
                    } else {
                        transaction.set(new)
                    }
                } else {
                    try transaction.copyMaps(inOrder, of: node, to: new, with: companion)
                    transaction.copiedMaps = inOrder
                    transaction.set(new)
                    next = (inOrder.last ?? next) + 1
                }
            }
            if let outcome { return outcome }
            sched_yield()
        }
    }

    private func abandonCopy(_ shadow: NodeID) {
        lock.writing { state.copy = nil }
        // What fails now is tried again at the next opening.
        try? reap(shadow, now: .now())
        collectGarbage(now: .now())
    }
}

extension Transaction {
    /// Seals some maps' blocks anew under another content's DEK, on two threads.
    mutating func copyMaps(
        _ indices: [UInt64], of node: NodeRecord, to target: NodeRecord, with companion: Companion
    ) throws(TreeError) {
        guard !indices.isEmpty else { return }
        let (content, id) = (node.attributes.content, node.attributes.id)
        try withScratchKey { (oldKey: UnsafeMutableRawBufferPointer) throws(TreeError) in
            try withDEK(content, of: id, forReencryption: true) { dek, _ throws(TreeError) in oldKey.put(dek, at: 0) }
            try withUnwrapped(target.attributes.content, of: target.attributes.id) {
                (newKey, transaction: inout Transaction) throws(TreeError) in
                var copies: [MapCopy] = []
                for index in indices {
                    if let earlier = try transaction.map(index, of: target) {
                        transaction.releasedBlocks += earlier.blocks
                    }
                    let map = try transaction.map(index, of: node) ?? BlockMap(index: index)
                    copies.append(
                        MapCopy(
                            tree: transaction.tree, node: node, map: map, target: target.attributes.content,
                            blocks: map.isEmpty ? [] : try transaction.allocate(map.blocks.count),
                            keys: (oldKey.readOnly, newKey)))
                }
                companion.run(copies)
                for copy in copies { transaction.set(try copy.result.get(), target.attributes.content) }
            }
        }
    }

    /// The copy takes the place of the content that it is a copy of. Times, size and numbers stay.
    fileprivate mutating func takeOver(_ new: inout NodeRecord, by node: inout NodeRecord, _ job: JobRecord)
        throws(TreeError)
    {
        try noteRegeneration(of: &node, job)
        let stored = node.attributes.storedByteCount
        try dropContent(of: &node)
        node.attributes.content = new.attributes.content
        node.attributes.storedByteCount = stored
        node.isInBlocks = true
        set(node)
        remove(new.attributes.id)
        endOrphan(new.attributes.id)
        endsCopy = true
    }
}

/// One map's blocks on their way to another DEK.
private final class MapCopy: Companion.Task {
    private let tree: SecretTree
    private let node: NodeRecord
    private let map: BlockMap
    /// The content that they go to.
    private let target: UInt64
    private let blocks: [UInt64]
    /// Of the one that they come from and of that, as long as this runs.
    private let keys: (old: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer)
    /// The map of what is written.
    private(set) var result: Result<BlockMap, TreeError>

    init(
        tree: SecretTree, node: NodeRecord, map: BlockMap, target: UInt64, blocks: [UInt64],
        keys: (old: UnsafeRawBufferPointer, new: UnsafeRawBufferPointer)
    ) {
        (self.tree, self.node, self.map, self.target) = (tree, node, map, target)
        (self.blocks, self.keys) = (blocks, keys)
        result = .success(BlockMap(index: map.index))
    }

    func run() { result = Result { () throws(TreeError) -> BlockMap in try copy() } }

    private func copy() throws(TreeError) -> BlockMap {
        var copy = BlockMap(index: map.index)
        guard !map.isEmpty else { return copy }
        let plaintext = ScratchBuffer(byteCount: Int(Contents.mapSpan))
        try tree.read(map, of: node, at: 0, into: plaintext.bytes, keys.old)
        var writer = BlockWriter(blocks: blocks)
        for slot in 0..<Contents.blocksPerMap where map[slot].block != 0 {
            let block = plaintext.bytes.readOnly.part(slot * Contents.blockByteCount, Contents.blockByteCount)
            copy[slot] = writer.seal(block, tree, target, map.index, slot, keys.new)
        }
        try writer.flush(to: tree.store)
        return copy
    }
}
