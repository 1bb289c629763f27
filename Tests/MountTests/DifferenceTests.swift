import CLinux
import Glibc
import Testing

/// Does the same to a mount and to a directory on the disk, and expects them to answer alike.
@Suite("Random operations end as on the disk", .enabled(if: !Mounted.isPlain))
struct DifferenceTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    /// Seeds that are run always, and one that is given by MOUNTTESTS_SEED.
    static let seeds: [UInt64] =
        Workspace.variable("EXPLORE").flatMap { UInt64($0) }.map { Array($0..<$0 + 40) } ?? [1, 2, 3]
        + (Workspace.variable("MOUNTTESTS_SEED").flatMap { UInt64($0) }.map { [$0] } ?? [])

    @Test(arguments: ["kernel", "none"], seeds)
    func theMountAndTheDiskAgree(cache: String, seed: UInt64) throws {
        try mounted.remount("cache=\(cache)")
        let plain = mounted.workspace("plain")
        try check(mkdir(plain, 0o755))
        for root in [mounted.path, plain] { try check(chmod(root, 0o777)) }
        let before = umask(0o022)
        defer { umask(before) }
        var twins = Twins(roots: [mounted.path, plain], seed: seed)
        for step in 0..<2500 {
            let answers = twins.step()
            if Workspace.variable("SHOW") != nil { print(twins.what, answers) }
            guard answers[0] == answers[1] else {
                Issue.record("seed \(seed), step \(step), \(twins.what): \(answers[0]), on the disk \(answers[1])")
                return
            }
            guard step % 500 == 499 else { continue }
            twins.closeAll()
            if step == 1499 { try mounted.remount("cache=\(cache)") }
            let trees = try twins.roots.map { try tree($0) }
            let differing = zip(trees[0], trees[1]).first { $0 != $1 }
            guard differing == nil, trees[0].count == trees[1].count else {
                Issue.record(
                    "seed \(seed), step \(step): \(trees[0].count) and \(trees[1].count) entries; \(differing ?? ("", ""))"
                )
                return
            }
        }
    }

    /// Everything below a directory that a file system must keep, an entry a line.
    private func tree(_ root: String) throws -> [String] {
        var lines: [String] = []
        var numbers: [ino_t: Int] = [:]
        func walk(_ path: String) throws {
            for name in try names(path) {
                let entry = path + "/" + name
                let told = try attributes(entry)
                let number = numbers[told.st_ino, default: numbers.count]
                numbers[told.st_ino] = number
                var line =
                    "\(entry.dropFirst(root.count)) #\(number) \(String(told.st_mode, radix: 8)) \(told.st_uid):\(told.st_gid)"
                line += " \(told.st_nlink)"
                let own = try extendedAttributeNames(entry).filter { !$0.hasPrefix("user.letterlock.") }
                for name in own { line += " \(name)=\(try extendedAttributeText(entry, name))" }
                switch told.type {
                case S_IFREG:
                    var sum: UInt64 = 14_695_981_039_346_656_037
                    for byte in try contents(entry) { sum = (sum ^ UInt64(byte)) &* 1_099_511_628_211 }
                    line += " \(told.st_size) \(sum)"
                case S_IFLNK: line += " -> \(try linkTarget(entry))"
                default: break
                }
                if told.st_mtim.tv_sec < 1_500_000_000 { line += " \(told.modified)" }
                lines.append(line)
                if told.type == S_IFDIR { try walk(entry) }
            }
        }
        try walk(root)
        return lines
    }
}

/// Two directories that the same is done to.
private struct Twins {
    let roots: [String]
    /// What the last step did.
    private(set) var what = ""
    private var state: UInt64
    /// Open files, in each of the two.
    private var files: [[Int32]] = []

    init(roots: [String], seed: UInt64) {
        self.roots = roots
        state = seed &* 0x9E37_79B9_7F4A_7C15 | 1
    }

    private mutating func random(_ bound: Int) -> Int {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        return Int((state >> 11) % UInt64(bound))
    }

    private mutating func pick<Element>(_ choices: [Element]) -> Element { choices[random(choices.count)] }

    /// A short path of few names, so that steps meet.
    private mutating func path() -> String {
        (0...random(3)).map { _ in pick(["a", "b", "c", "d", "é"]) }.joined(separator: "/")
    }

    private mutating func size() -> Int { pick([0, 1, 100, 4095, 4096, 4097, 20_000, 65_536, 70_001]) }

    mutating func closeAll() {
        for pair in files { for file in pair { close(file) } }
        files = []
    }

    /// Makes both calls as the same user; the answers are results or negative error numbers.
    private mutating func both(_ what: String, as user: uid_t, _ call: (String) -> Int) -> [Int] {
        self.what = what + (user == 0 ? "" : " as \(user)")
        return roots.map { root in
            asUser(user, user) {
                let result = call(root + "/")
                return result == -1 ? -Int(errno) : result
            }
        }
    }

    /// Answers other than numbers, as a number.
    private static func sum(_ bytes: some Sequence<UInt8>) -> Int {
        bytes.reduce(7) { ($0 &* 31 &+ Int($1)) & 0xFFFF_FFFF }
    }

    mutating func step() -> [Int] {
        let user: uid_t = random(5) == 0 ? 1777 : 0
        let one = path()
        let other = path()
        switch random(24) {
        case 0, 1:
            let mode = mode_t(pick([0o644, 0o600, 0o666, 0o755, 0o4755]))
            return both("create \(one)", as: user) { root in
                let file = open(root + one, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode)
                return file == -1 ? -1 : Int(close(file))
            }
        case 2, 3:
            let mode = mode_t(pick([0o755, 0o777, 0o700, 0o1777, 0o2775]))
            return both("mkdir \(one)", as: user) { Int(mkdir($0 + one, mode)) }
        case 4: return both("rmdir \(one)", as: user) { Int(rmdir($0 + one)) }
        case 5: return both("unlink \(one)", as: user) { Int(unlink($0 + one)) }
        case 6, 7: return both("rename \(one) \(other)", as: user) { Int(rename($0 + one, $0 + other)) }
        case 8:
            let flags = UInt32(pick([1, 2]))
            return both("rename \(one) \(other) with \(flags)", as: user) {
                Int(ll_renameat2(AT_FDCWD, $0 + one, AT_FDCWD, $0 + other, flags))
            }
        case 9: return both("link \(one) \(other)", as: 0) { Int(link($0 + one, $0 + other)) }
        case 10:
            let target = pick(["a", "b", "../a", "c/d", "missing"])
            return both("symlink \(target) \(one)", as: user) { Int(symlink(target, $0 + one)) }
        case 11:
            return both("readlink \(one)", as: user) { root in
                (try? linkTarget(root + one)).map { Self.sum($0.utf8) } ?? -1
            }
        case 12:
            let mode = mode_t(pick([0o644, 0o600, 0o777, 0o000, 0o6755, 0o1777, 0o2775]))
            return both("chmod \(one) \(String(mode, radix: 8))", as: user) { Int(chmod($0 + one, mode)) }
        case 13:
            let (owner, group) = (pick([0, 1777, uid_t.max]), pick([0, 1777, gid_t.max]))
            return both("chown \(one) \(owner) \(group)", as: user) { Int(lchown($0 + one, owner, group)) }
        case 14:
            let length = size()
            return both("truncate \(one) \(length)", as: user) { Int(truncate($0 + one, length)) }
        case 15:
            let time = timespec(tv_sec: random(1_000_000_000), tv_nsec: random(1_000_000_000))
            return both("utimes \(one)", as: user) {
                Int(utimensat(AT_FDCWD, $0 + one, [time, time], AT_SYMLINK_NOFOLLOW))
            }
        case 16:
            let (name, value, flags) = (pick(["user.a", "user.b"]), "\(random(1000))", Int32(random(3)))
            return both("setxattr \(one) \(name) \(flags)", as: 0) {
                Int(setxattr($0 + one, name, value, value.utf8.count, flags))
            }
        case 17:
            let name = pick(["user.a", "user.b"])
            return both("removexattr \(one) \(name)", as: 0) { Int(removexattr($0 + one, name)) }
        case 18:
            return both("list \(one)", as: user) { root in
                do throws(Errno) { return Self.sum(try names(root + one).joined(separator: "/").utf8) } catch {
                    errno = error.value
                    return -1
                }
            }
        case 19:
            return both("stat \(one)", as: user) { root in
                var told = stat()
                guard lstat(root + one, &told) == 0 else { return -1 }
                let size = told.st_mode & S_IFMT == S_IFDIR ? 0 : told.st_size
                return Self.sum("\(told.st_mode) \(told.st_uid) \(told.st_gid) \(told.st_nlink) \(size)".utf8)
            }
        case 20:
            // A whole new value, or a longer one.
            let flags = pick([O_TRUNC, O_APPEND, 0]) | pick([O_WRONLY, O_RDWR])
            let bytes = pattern(size(), seed: UInt64(random(1000)))
            return both("write \(one) \(bytes.count) flags \(flags)", as: user) { root in
                let file = open(root + one, flags | O_CREAT | O_CLOEXEC, 0o666)
                guard file != -1 else { return -1 }
                let count = write(file, bytes, bytes.count)
                return close(file) == 0 ? count : -1
            }
        case 21:
            return both("read \(one)", as: user) { root in
                do throws(Errno) { return Self.sum(try contents(root + one)) } catch {
                    errno = error.value
                    return -1
                }
            }
        case 22:
            // Not with O_TRUNC: who reads such a file meanwhile finds the old value here.
            guard files.count < 6 else {
                let pair = files.remove(at: random(files.count))
                what = "close"
                return pair.map { Int(close($0)) }
            }
            let flags = pick([O_RDWR, O_RDWR | O_CREAT, O_RDWR | O_APPEND])
            var pair: [Int32] = []
            let answers = both("open \(one) flags \(flags)", as: user) { root in
                let file = open(root + one, flags | O_CLOEXEC, 0o644)
                if file >= 0 { pair.append(file) }
                return file >= 0 ? 0 : -1
            }
            if pair.count == 2 { files.append(pair) } else { for file in pair { close(file) } }
            return answers
        default: return stepOnOpenFile()
        }
    }

    /// Something with a file that is open, whatever has become of its names.
    private mutating func stepOnOpenFile() -> [Int] {
        guard !files.isEmpty else { return [0, 0] }
        let pair = files[random(files.count)]
        let (offset, length) = (size(), size())
        func on(_ what: String, _ call: (Int32) -> Int) -> [Int] {
            self.what = "\(what) at \(offset), \(length)"
            return pair.map { file in
                let result = call(file)
                return result == -1 ? -Int(errno) : result
            }
        }
        switch random(6) {
        case 0, 1:
            let bytes = pattern(length, seed: UInt64(random(1000)))
            return on("pwrite") { pwrite($0, bytes, length, offset) }
        case 2:
            return on("pread") { file in
                var bytes = [UInt8](repeating: 0, count: length)
                let count = pread(file, &bytes, length, offset)
                return count < 0 ? -1 : Self.sum(bytes[..<count]) &+ count
            }
        case 3: return on("ftruncate") { Int(ftruncate($0, length)) }
        case 4:
            let mode = pick([Int32(0), 1, 3])
            return on("fallocate \(mode)") { Int(fallocate($0, mode, offset, max(length, 1))) }
        default:
            return on("fstat") { file in
                var told = stat()
                return fstat(file, &told) == 0 ? Int(told.st_size) &+ Int(told.st_nlink) << 40 : -1
            }
        }
    }
}
