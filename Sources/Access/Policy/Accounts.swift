internal import Glibc

/// The users and groups of this machine's own files, passwd(5) and group(5). Names that a directory service would tell
/// are not asked for: a request for a secret must not wait for a network.
public struct Accounts: Sendable {
    public var users: [String: UInt32]
    public var groups: [String: UInt32]

    public init(users: [String: UInt32], groups: [String: UInt32]) {
        self.users = users
        self.groups = groups
    }

    public static func ofThisMachine() -> Accounts {
        Accounts(users: read("/etc/passwd"), groups: read("/etc/group"))
    }

    private static func read(_ path: String) -> [String: UInt32] {
        guard let file = Descriptor(open(path, O_RDONLY | O_CLOEXEC)) else { return [:] }
        var bytes: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while bytes.count < 16 << 20 {
            let count = Glibc.read(file.number, &chunk, chunk.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { break }
            bytes += chunk[..<count]
        }
        return parse(String(decoding: bytes, as: UTF8.self))
    }

    /// Lines of `name:password:number:…`; of two lines for one name the first holds.
    static func parse(_ table: String) -> [String: UInt32] {
        var numbers: [String: UInt32] = [:]
        for line in table.split(separator: "\n") {
            let fields = line.split(separator: ":", maxSplits: 3, omittingEmptySubsequences: false)
            guard fields.count >= 3, !fields[0].isEmpty, let number = UInt32(fields[2]) else { continue }
            if numbers[String(fields[0])] == nil { numbers[String(fields[0])] = number }
        }
        return numbers
    }
}
