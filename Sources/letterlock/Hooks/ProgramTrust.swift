import Glibc

/// Whether others could change what a path leads to: the program itself, and every directory and link on the way to it.
enum ProgramTrust {
    private static let linkLimit = 40

    /// The first thing on the way to `path` that others than root and this process's user may change; nil if there is none.
    ///
    /// Each part has to belong to one of these two. A directory with the sticky bit may be written by others: what
    /// belongs to none of them stays where it is.
    ///
    /// - Parameter path: From the root on.
    /// - Throws: the error number if it cannot be followed.
    static func weakness(of path: String) throws(SystemErrorNumber) -> String? {
        var pending = names(in: path)
        var place: [Substring] = []
        var linkCount = 0
        if !isTrusted(try look(at: "/")) { return "/" }
        while !pending.isEmpty {
            let name = pending.removeFirst()
            if name == ".." {
                _ = place.popLast()
                continue
            }
            let next = "/" + (place + [name]).joined(separator: "/")
            let found = try look(at: next)
            if !isTrusted(found) { return next }
            if found.st_mode & S_IFMT == S_IFLNK {
                linkCount += 1
                guard linkCount <= linkLimit, let target = target(of: next) else { throw SystemErrorNumber(ELOOP) }
                if target.hasPrefix("/") { place = [] }
                pending = names(in: target) + pending
            } else {
                place.append(name)
            }
        }
        return nil
    }

    private static func names(in path: String) -> [Substring] { path.split(separator: "/").filter { $0 != "." } }

    private static func look(at path: String) throws(SystemErrorNumber) -> stat {
        var found = stat()
        guard lstat(path, &found) == 0 else { throw SystemErrorNumber(errno) }
        return found
    }

    private static func isTrusted(_ found: stat) -> Bool {
        guard found.st_uid == 0 || found.st_uid == geteuid() else { return false }
        switch found.st_mode & S_IFMT {
        // A link's mode says nothing.
        case S_IFLNK: return true
        case S_IFDIR: return found.st_mode & 0o022 == 0 || found.st_mode & S_ISVTX != 0
        default: return found.st_mode & 0o022 == 0
        }
    }

    private static func target(of path: String) -> String? {
        var bytes = [UInt8](repeating: 0, count: Int(PATH_MAX))
        let count = bytes.withUnsafeMutableBytes {
            readlink(path, $0.baseAddress!.assumingMemoryBound(to: CChar.self), $0.count)
        }
        guard count > 0, count < bytes.count else { return nil }
        return String(decoding: bytes[..<count], as: UTF8.self)
    }
}
