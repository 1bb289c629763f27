import Fuse
import Glibc
import Keyring
import SecretTree

/// A node of the control directory: its number tells all about it.
///
///     bit 62 | KEK version 32 bits from 16 | file or directory 16 bits
///
/// A file's number follows from its name, so that the kernel knows it by the same number from every version's server.
struct ControlNode: Hashable {
    enum Kind: Hashable {
        /// `.letterlock`
        case root
        /// `.letterlock/keys`
        case keys
        /// `.letterlock/audit`
        case audit
        /// `.letterlock/keys/N`
        case version(KEKVersion)
        /// A row of the table, of a version if it lies in its directory.
        case file(Int, KEKVersion?)
    }

    static let rootName = ".letterlock"
    static let policyPartsName = "policy.parts"
    static let hookPartsName = "hooks.parts"
    static let eventsName = "events"
    private static let mark: UInt64 = 1 << 62

    var kind: Kind

    static let root = ControlNode(.root)

    static let events = top(eventsName)
    static let revoke = top("revoke")

    private static func top(_ name: String) -> ControlNode {
        ControlNode(.file(ControlFile.table.firstIndex { $0.place == .top && $0.name == name } ?? .max, nil))
    }

    /// From the mount's root.
    var path: String {
        let root = "/" + Self.rootName
        switch kind {
        case .root: return root
        case .keys: return root + "/keys"
        case .audit: return root + "/audit"
        case .version(let version): return root + "/keys/\(version)"
        case .file(let row, _):
            guard ControlFile.table.indices.contains(row) else { return root }
            // For who may do what the parts of a policy are the policy.
            if ControlFile.table[row].name == Self.policyPartsName { return root + "/policy" }
            if ControlFile.table[row].name == Self.hookPartsName { return root + "/hooks" }
            return (ControlNode(parent)?.path ?? root) + "/" + ControlFile.table[row].name
        }
    }

    init(_ kind: Kind) { self.kind = kind }

    /// Nil for a node of the tree.
    init?(_ node: UInt64) {
        guard node & Self.mark != 0 else { return nil }
        let version = UInt32(truncatingIfNeeded: node >> 16)
        let number = node & 0xffff
        switch number {
        case 0: kind = .root
        case 1: kind = .keys
        case 2: kind = .version(KEKVersion(rawValue: version))
        case 3: kind = .audit
        default:
            let row = ControlFile.row(ofNumber: UInt16(number)) ?? Int.max
            kind = .file(row, version == 0 ? nil : KEKVersion(rawValue: version))
        }
    }

    var number: UInt64 {
        switch kind {
        case .root: Self.mark
        case .keys: Self.mark | 1
        case .audit: Self.mark | 3
        case .version(let version): Self.mark | UInt64(version.rawValue) << 16 | 2
        case .file(let row, let version):
            Self.mark | UInt64(version?.rawValue ?? 0) << 16
                | UInt64(ControlFile.table.indices.contains(row) ? ControlFile.numbers[row] : .max)
        }
    }

    var isDirectory: Bool {
        if case .file = kind { false } else { true }
    }

    /// Where a file lies that is no version's.
    private static func directory(ofRow row: Int) -> ControlNode {
        guard ControlFile.table.indices.contains(row) else { return .root }
        return switch ControlFile.table[row].place {
        case .top, .version: .root
        case .keys: ControlNode(.keys)
        case .audit: ControlNode(.audit)
        }
    }

    var isHidden: Bool {
        guard case .file(let row, _) = kind, ControlFile.table.indices.contains(row) else { return false }
        return ControlFile.table[row].isHidden
    }

    /// The number of the directory that it lies in.
    var parent: UInt64 {
        switch kind {
        case .root: NodeID.root.rawValue
        case .keys, .audit: ControlNode.root.number
        case .version: ControlNode(.keys).number
        case .file(let row, let version):
            version.map { ControlNode(.version($0)).number } ?? Self.directory(ofRow: row).number
        }
    }

    /// What lies in a directory of the control directory, with its name.
    func children(of fileSystem: SecretFS) -> [(name: String, node: ControlNode)] {
        switch kind {
        case .root:
            [("keys", ControlNode(.keys)), ("audit", ControlNode(.audit))] + Self.files(at: .top, nil)
        case .audit: Self.files(at: .audit, nil)
        case .keys:
            Self.files(at: .keys, nil)
                + fileSystem.tree.keyring.lifecycle.versions.map {
                    (String($0.version.rawValue), ControlNode(.version($0.version)))
                }
        case .version(let version): Self.files(at: .version, version)
        case .file: []
        }
    }

    private static func files(at place: ControlFile.Place, _ version: KEKVersion?) -> [(String, ControlNode)] {
        ControlFile.table.indices.filter { ControlFile.table[$0].place == place }.map {
            (ControlFile.table[$0].name, ControlNode(.file($0, version)))
        }
    }

    func child(_ name: UnsafeRawBufferPointer, of fileSystem: SecretFS) throws(Errno) -> ControlNode {
        guard isDirectory else { throw .notADirectory }
        let name = String(decoding: name, as: UTF8.self)
        guard let found = children(of: fileSystem).first(where: { $0.name == name }) else { throw .notFound }
        return found.node
    }
}
