public import Keyring

/// The number of a node: the inode number applications see. 1 is the root; never reused.
public struct NodeID: RawRepresentable, Hashable, Comparable, Sendable {
    public let rawValue: UInt64
    public init(rawValue: UInt64) { self.rawValue = rawValue }
    public static let root = NodeID(rawValue: 1)
    public static func < (left: NodeID, right: NodeID) -> Bool { left.rawValue < right.rawValue }
}

/// What a node is; the raw values are stored.
public enum NodeType: UInt8, Sendable {
    case file = 1
    case directory = 2
    case symbolicLink = 3
    case fifo = 4
    case socket = 5
    case characterDevice = 6
    case blockDevice = 7
}

/// A node's attributes, as stat(2) has them.
public struct NodeAttributes: Sendable, Equatable {
    public var id: NodeID
    public var type: NodeType
    /// The low 12 bits: permissions, set-id and sticky bits.
    public var permissions: UInt16
    public var uid: UInt32
    public var gid: UInt32
    public var linkCount: UInt32
    /// Bytes; for a directory 0, for a symbolic link the target's length.
    public var size: UInt64
    /// Bytes of content that are stored (for `st_blocks`), holes not counted.
    public var storedByteCount: UInt64
    public var device: UInt64
    public var accessTime: Timestamp
    public var modificationTime: Timestamp
    public var statusChangeTime: Timestamp
    public var birthTime: Timestamp
    /// When the plaintext value last changed.
    public var valueChanged: Timestamp
    /// Set by a revocation until the value changes.
    public var needsRegeneration: Bool
    /// The content this file has now; a replacement gives it a new one. 0 for what has none.
    public var content: UInt64
    /// A directory's parent (for ".."); the root is its own; 0 for a removed one. Of anything else a directory that it
    /// was given a name in: where to look for that first. 0 if a version wrote it that did not tell.
    public var parent: NodeID
}

/// What to change of a node's attributes; nil leaves alone. Checks of rights are the kernel's.
public struct AttributeChange: Sendable {
    public var permissions: UInt16?
    public var uid: UInt32?
    public var gid: UInt32?
    public var size: UInt64?
    public var accessTime: Timestamp?
    public var modificationTime: Timestamp?
    /// Set-user-id goes, and set-group-id where group execute is set.
    public var clearsSetID = false
    public init() {}
}

/// What stands for a new node.
public struct NewNode: Sendable {
    public var type: NodeType
    public var permissions: UInt16
    /// Permissions that it does not get, unless the directory has an access control list for what is made in it.
    public var mask: UInt16 = 0
    public var uid: UInt32
    public var gid: UInt32
    public var device: UInt64 = 0
    public init(type: NodeType, permissions: UInt16, uid: UInt32, gid: UInt32) {
        self.type = type
        self.permissions = permissions
        self.uid = uid
        self.gid = gid
    }
}

/// Why the tree refuses.
public enum TreeError: Error, Sendable {
    case notFound
    case exists
    case notADirectory
    case isADirectory
    case notEmpty
    case nameTooLong
    case tooManyLinks
    case invalid
    case fileTooLarge
    case noAttribute
    case attributeTooLarge
    case notSupported
    case notPermitted
    /// A job of that kind is unfinished.
    case busy
    case readOnly
    /// The disk is full; nothing has changed.
    case full
    /// A record of this node does not authenticate, or is missing, or was put back: EBADMSG.
    case tampered(NodeID)
    /// The KEK version that guards it is disabled, compromised, pending destruction, destroyed or below the minimum.
    case key(KeyringError)
    /// No such byte to seek to.
    case noData
    case storage(description: String)
}

/// One damaged thing, for `status`, `verify` and the log.
public struct Problem: Sendable, Hashable {
    /// The node it belongs to, if one is known.
    public var node: NodeID?
    /// The content it belongs to, while nobody has looked whose that is.
    public internal(set) var content: UInt64?
    /// What is wrong, without contents or names: "content record 3 of inode 17 does not authenticate".
    public var description: String
    /// Something is not what was written; false for what merely did not work.
    public var isDamage = true
    public init(node: NodeID?, description: String, isDamage: Bool = true) {
        self.node = node
        self.description = description
        self.isDamage = isDamage
    }

    init(content: UInt64, description: String) {
        (self.content, self.description) = (content, description)
    }

    public static func == (one: Problem, other: Problem) -> Bool {
        one.node == other.node && one.description == other.description
    }

    public func hash(into hasher: inout Hasher) {
        hasher.combine(node)
        hasher.combine(description)
    }
}
