internal import CLinux
internal import Glibc

/// One file, whatever it is called.
struct FileIdentity: Hashable, Sendable {
    var device: UInt64
    var inode: UInt64
    var size: UInt64
    /// Nanoseconds since 1970.
    var modified: Int64
    var changed: Int64
    /// The mount that it was found through; 0 if not told.
    var mount: UInt64

    /// Asks no file system: the caller of ours may be one, or wait for one.
    init?(at path: String, in directory: Int32 = AT_FDCWD, flags: Int32 = 0) {
        var found = ll_file_identity()
        guard ll_stat_cached(directory, path, flags, &found) == 0 else { return nil }
        device = found.device
        inode = found.inode
        size = found.size
        modified = found.modified
        changed = found.changed
        mount = found.mount
    }

    func isSameFile(as other: FileIdentity) -> Bool { device == other.device && inode == other.inode }
}

/// A descriptor that is closed when nobody uses it any more.
final class Descriptor: Sendable {
    let number: Int32
    init?(_ number: Int32) {
        guard number >= 0 else { return nil }
        self.number = number
    }
    deinit { Glibc.close(number) }
}

/// A thread's directory in /proc, held open: it stays that thread's, and is empty when the thread has ended, whoever
/// gets its number.
///
/// Only files that wait for nothing of the process are read: never `cmdline` or `environ`, which lock its memory.
struct ProcDirectory: Sendable {
    let descriptor: Descriptor

    init(_ descriptor: Descriptor) { self.descriptor = descriptor }

    init?(_ number: Int32) {
        guard number > 0, let descriptor = Descriptor(open("/proc/\(number)", O_PATH | O_DIRECTORY | O_CLOEXEC)) else {
            return nil
        }
        self.descriptor = descriptor
    }

    /// Which file the program is; nil for kernel threads and for who may not know.
    var program: FileIdentity? { FileIdentity(at: "exe", in: descriptor.number) }

    /// What the link to the program says.
    var programPath: String? {
        withUnsafeTemporaryAllocation(byteCount: Int(PATH_MAX), alignment: 1) { buffer in
            let count = readlinkat(
                descriptor.number, "exe", buffer.baseAddress!.assumingMemoryBound(to: CChar.self), buffer.count)
            guard count > 0, count < buffer.count else { return nil }
            return String(decoding: buffer[..<count], as: UTF8.self)
        }
    }

    /// A file of the directory, of so many bytes at most.
    func text(_ name: String, limit: Int = 65_536) -> String? {
        guard let file = Descriptor(openat(descriptor.number, name, O_RDONLY | O_CLOEXEC)) else { return nil }
        var bytes: [UInt8] = []
        let ended = withUnsafeTemporaryAllocation(byteCount: 8192, alignment: 1) { buffer in
            while bytes.count < limit {
                let count = read(file.number, buffer.baseAddress, buffer.count)
                if count < 0, errno == EINTR { continue }
                guard count >= 0 else { return false }
                guard count > 0 else { break }
                bytes.append(contentsOf: buffer[..<count])
            }
            return true
        }
        return ended ? String(decoding: bytes, as: UTF8.self) : nil
    }

    /// When it was started, in clock ticks since boot: field 22 of `stat` (proc_pid_stat(5)).
    var startTime: UInt64? {
        // The command's name may hold anything, but it ends with the last bracket.
        guard let stat = text("stat"), let bracket = stat.lastIndex(of: ")") else { return nil }
        let fields = stat[stat.index(after: bracket)...].split(separator: " ")
        let startTimePlace = 19
        return fields.count > startTimePlace ? UInt64(fields[startTimePlace]) : nil
    }

    /// The process that the thread belongs to, and its supplementary groups.
    var status: (process: Int32, groups: [UInt32])? {
        guard let status = text("status") else { return nil }
        var process: Int32?
        var groups: [UInt32] = []
        for line in status.split(separator: "\n") {
            if line.hasPrefix("Tgid:") {
                process = Int32(line.dropFirst(5).trimmingSpace)
            } else if line.hasPrefix("Groups:") {
                groups = line.dropFirst(7).split(separator: " ").compactMap { UInt32($0.trimmingSpace) }
                break
            }
        }
        return process.map { ($0, groups) }
    }

    /// The control group: of systemd's own hierarchy if the process is anywhere but at its root, else of the unified one, else of the
    /// first where it is: without systemd its hierarchy may be there, and nobody in it.
    var controlGroup: String? { text("cgroup").flatMap(Self.controlGroup) }

    static func controlGroup(_ table: String) -> String? {
        var systemd: Substring?
        var unified: Substring?
        var other: Substring?
        for line in table.split(separator: "\n") {
            let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
            guard parts.count == 3 else { continue }
            if parts[1] == "name=systemd" {
                systemd = parts[2]
            } else if parts[0] == "0", parts[1].isEmpty {
                unified = parts[2]
            } else if other == nil, parts[2] != "/" {
                other = parts[2]
            }
        }
        let found = [systemd, unified, other].compactMap(\.self)
        return (found.first { $0 != "/" } ?? found.first).map(String.init)
    }
}

extension Substring {
    var trimmingSpace: Substring {
        var text = drop { $0 == " " || $0 == "\t" }
        while text.last == " " || text.last == "\t" { text.removeLast() }
        return text
    }
}
