/// A POSIX access control list, as its extended attribute has it (acl(5); <linux/posix_acl_xattr.h>): version 4, then
/// entries of `tag 2 | permissions 2 | id 4`, all little-endian.
struct AccessControlList {
    /// In the order in which entries stand.
    private enum Tag: UInt16 {
        case owner = 1
        case user = 2
        case owningGroup = 4
        case group = 8
        case mask = 16
        case other = 32
    }

    private struct Entry {
        var tag: Tag
        var permissions: UInt16
        var id: UInt32
    }

    private static let version: UInt32 = 2
    private static let headerByteCount = 4
    private static let entryByteCount = 8
    private var entries: [Entry] = []

    /// Nil for what is no valid list: the kernel has judged it, but who knows which one.
    init?(_ bytes: UnsafeRawBufferPointer) {
        let body = bytes.count - Self.headerByteCount
        guard body > 0, body % Self.entryByteCount == 0, bytes.number(UInt32.self, at: 0) == Self.version else {
            return nil
        }
        for place in stride(from: Self.headerByteCount, to: bytes.count, by: Self.entryByteCount) {
            guard let tag = Tag(rawValue: bytes.number(UInt16.self, at: place)),
                tag.rawValue >= entries.last?.tag.rawValue ?? 0
            else { return nil }
            let permissions = bytes.number(UInt16.self, at: place + 2)
            guard permissions <= 7 else { return nil }
            entries.append(Entry(tag: tag, permissions: permissions, id: bytes.number(UInt32.self, at: place + 4)))
        }
        func count(_ tag: Tag) -> Int { entries.count { $0.tag == tag } }
        guard count(.owner) == 1, count(.owningGroup) == 1, count(.other) == 1 else { return nil }
        guard count(.mask) == 1 || count(.mask) == 0 && count(.user) == 0 && count(.group) == 0 else { return nil }
    }

    var byteCount: Int { Self.headerByteCount + entries.count * Self.entryByteCount }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.put(Self.version, at: 0)
        for (index, entry) in entries.enumerated() {
            let place = Self.headerByteCount + index * Self.entryByteCount
            bytes.put(entry.tag.rawValue, at: place)
            bytes.put(entry.permissions, at: place + 2)
            bytes.put(entry.id, at: place + 4)
        }
    }

    /// It says no more than a mode does.
    var isMinimal: Bool { entries.count == 3 }

    /// The tag whose entry stands for the mode's group bits.
    private var groupClass: Tag { entries.contains { $0.tag == .mask } ? .mask : .owningGroup }

    /// The low nine bits of a mode.
    var permissions: UInt16 {
        get {
            entries.reduce(0) { bits, entry in
                switch entry.tag {
                case .owner: bits | entry.permissions << 6
                case groupClass: bits | entry.permissions << 3
                case .other: bits | entry.permissions
                default: bits
                }
            }
        }
        set {
            let groupClass = groupClass
            for index in entries.indices {
                switch entries[index].tag {
                case .owner: entries[index].permissions = newValue >> 6 & 7
                case groupClass: entries[index].permissions = newValue >> 3 & 7
                case .other: entries[index].permissions = newValue & 7
                default: break
                }
            }
        }
    }
}

/// Which of a node's lists is meant; the name of its extended attribute.
enum AccessControlListKind: CaseIterable {
    /// Who may do what with a node; the mode shows its gist.
    case access
    /// What is made in a directory begins with it, in place of the umask.
    case initial

    init?(_ name: UnsafeRawBufferPointer) {
        guard let kind = Self.allCases.first(where: { name.elementsEqual($0.name) }) else { return nil }
        self = kind
    }

    var name: UnsafeRawBufferPointer {
        let name: StaticString =
            switch self {
            case .access: "system.posix_acl_access"
            case .initial: "system.posix_acl_default"
            }
        return UnsafeRawBufferPointer(start: name.utf8Start, count: name.utf8CodeUnitCount)
    }
}
