import Glibc

/// What is mounted where, by /proc/self/mountinfo (proc(5)).
struct MountTable {
    struct Entry: Equatable {
        var mountpoint: String
        var type: String
        var source: String
        var isLetterlock: Bool { type == MountTable.fileSystemType }
    }

    static let fileSystemType = "fuse.letterlock"

    /// In the order of mounting: of two at one place the later one is seen.
    let entries: [Entry]

    init() { self.init(text: SmallFile.text("/proc/self/mountinfo") ?? "") }

    init(text: String) {
        entries = text.split(separator: "\n").compactMap { line in
            // id parent major:minor root mountpoint options [tags…] - type source superoptions
            let fields = line.split(separator: " ", omittingEmptySubsequences: false)
            guard fields.count > 6, let dash = fields[6...].firstIndex(of: "-"), dash + 2 < fields.count
            else {
                return nil
            }
            return Entry(
                mountpoint: Self.unescaped(fields[4]), type: String(fields[dash + 1]),
                source: Self.unescaped(fields[dash + 2]))
        }
    }

    /// What a path walk finds at `path`, which is resolved.
    func entry(at path: String) -> Entry? { entries.last { $0.mountpoint == path } }

    var letterlocks: [Entry] { entries.filter(\.isLetterlock) }

    /// Space, tab, newline and backslash stand as `\040` and the like.
    private static func unescaped(_ field: Substring) -> String {
        guard field.contains("\\") else { return String(field) }
        let bytes = Array(field.utf8)
        var result: [UInt8] = []
        var index = 0
        while index < bytes.count {
            if bytes[index] == UInt8(ascii: "\\"), index + 3 < bytes.count,
                let value = UInt8(String(decoding: bytes[(index + 1)...(index + 3)], as: UTF8.self), radix: 8)
            {
                result.append(value)
                index += 4
            } else {
                result.append(bytes[index])
                index += 1
            }
        }
        return String(decoding: result, as: UTF8.self)
    }
}
