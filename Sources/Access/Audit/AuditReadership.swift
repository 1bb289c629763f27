internal import Glibc

/// Who has opened what under one KEK version, as a log tells it: a row for each file and program, so many at most.
///
/// Texts are kept as the log has them, escaped for JSON.
public struct AuditReadership: Sendable {
    public struct Row: Sendable {
        public var path: [UInt8]
        public var uid: UInt32
        public var exe: [UInt8]?
        public var unit: [UInt8]?
        /// The last process.
        public var pid: Int32 = 0
        /// Accesses that the version's key was needed for.
        public var unwraps = 0
        /// Accesses since the revocation has begun, to what it concerns.
        public var since = 0
        /// The times of the first and of the last access.
        public var first: [UInt8] = []
        public var last: [UInt8] = []
    }

    private struct Who: Hashable {
        var path: [UInt8]
        var uid: UInt32
        var exe: [UInt8]?
        var unit: [UInt8]?
    }

    private static let rowLimit = 4096
    private static let chunkByteCount = 1 << 18

    private let version: UInt32
    /// In the log's own form, so that texts can be compared.
    private let began: [UInt8]
    private let keyring: String
    private var rowsByWho: [Who: Row] = [:]
    /// How far each file of the log is read, by inode number.
    private var places: [UInt64: Int64] = [:]
    public private(set) var unwraps = 0
    /// Accesses of programs that there was no row for any more.
    public private(set) var leftOut = 0
    /// Files of the log that are not texts any more: compressed ones.
    public private(set) var unreadFiles = 0
    /// How much of the log is read.
    public private(set) var byteCount = 0
    /// False as long as there is more of it.
    public private(set) var isWhole = false

    /// - Parameters:
    ///   - began: When the revocation did: RFC 3339, whole seconds.
    ///   - microseconds: And so many besides.
    public init(version: UInt32, began: String, microseconds: Int, keyring: String) {
        self.version = version
        let digits = String(1_000_000 + microseconds).dropFirst()
        self.began = Array(began.utf8.prefix(19)) + Array(".\(digits)Z".utf8)
        self.keyring = keyring
    }

    /// Those who have read last come first.
    public var rows: [Row] { rowsByWho.values.sorted { $1.last.lexicographicallyPrecedes($0.last) } }

    /// Goes on reading a log to its end, those of its files that were rotated away among them.
    ///
    /// - Parameters:
    ///   - limit: Stops after about so many bytes, with `isWhole` false; the next call goes on there.
    ///   - isConcerned: Whether a path is one of the revocation's.
    public mutating func read(_ path: String, limit: Int = .max, isConcerned: (ArraySlice<UInt8>) -> Bool) {
        unreadFiles = 0
        var left = limit
        for file in Self.files(of: path) {
            if [".gz", ".xz", ".bz2", ".zst"].contains(where: file.hasSuffix) {
                unreadFiles += 1
            } else {
                readFile(file, &left, isConcerned)
            }
        }
        isWhole = left > 0
    }

    /// As logrotate names them: `PATH.1`, `PATH-20260301`.
    private static func files(of path: String) -> [String] {
        guard let slash = path.lastIndex(of: "/"), let directory = opendir(String(path[...slash])) else {
            return [path]
        }
        defer { closedir(directory) }
        let name = path[path.index(after: slash)...]
        var found = [path]
        while let entry = readdir(directory) {
            let other = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard other.hasPrefix(name), let next = other.dropFirst(name.count).first, ".-".contains(next),
                other.dropFirst(name.count + 1).first?.isNumber == true
            else { continue }
            found.append(path[...slash] + other)
        }
        return found
    }

    private mutating func readFile(_ path: String, _ left: inout Int, _ isConcerned: (ArraySlice<UInt8>) -> Bool) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
        guard descriptor >= 0 else { return }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else { return }
        var place = places[UInt64(status.st_ino)] ?? 0
        // A file that is shorter now is another one.
        if place > Int64(status.st_size) { place = 0 }
        var rest: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: Self.chunkByteCount)
        while left > 0 {
            let count = pread(descriptor, &chunk, chunk.count, off_t(place) + off_t(rest.count))
            guard count > 0 else { break }
            rest += chunk[..<count]
            guard let end = rest.lastIndex(of: UInt8(ascii: "\n")) else {
                // No record is that long.
                guard rest.count < 1 << 22 else { break }
                continue
            }
            for line in rest[...end].split(separator: UInt8(ascii: "\n")) { take(line, isConcerned) }
            place += Int64(end + 1)
            byteCount += end + 1
            left -= end + 1
            rest.removeFirst(end + 1)
        }
        places[UInt64(status.st_ino)] = place
    }

    /// A record of an access that was let through and needed the key of what it opened.
    private mutating func take(_ line: ArraySlice<UInt8>, _ isConcerned: (ArraySlice<UInt8>) -> Bool) {
        guard let record = AuditAccess(line), record.errno == 0, record.keyring.elementsEqual(keyring.utf8) else {
            return
        }
        let isUnwrap = record.kekVersion == version
        let who = Who(
            path: Array(record.path), uid: record.uid, exe: record.exe.map { Array($0) },
            unit: record.unit.map { Array($0) })
        let isSince = !record.time.lexicographicallyPrecedes(began)
        guard isUnwrap || isSince && (rowsByWho[who] != nil || isConcerned(record.path)) else { return }
        if isUnwrap { unwraps += 1 }
        guard rowsByWho[who] != nil || rowsByWho.count < Self.rowLimit else {
            leftOut += 1
            return
        }
        var row = rowsByWho[who] ?? Row(path: who.path, uid: who.uid, exe: who.exe, unit: who.unit)
        if isUnwrap { row.unwraps += 1 }
        if isSince { row.since += 1 }
        if row.first.isEmpty || record.time.lexicographicallyPrecedes(row.first) { row.first = Array(record.time) }
        if !record.time.lexicographicallyPrecedes(row.last) {
            row.last = Array(record.time)
            row.pid = record.pid
        }
        rowsByWho[who] = row
    }
}

/// What a response record says of an opening or a read.
private struct AuditAccess {
    var time: ArraySlice<UInt8> = []
    var keyring: ArraySlice<UInt8> = []
    var path: ArraySlice<UInt8> = []
    var uid: UInt32 = 0
    var pid: Int32 = 0
    var exe: ArraySlice<UInt8>?
    var unit: ArraySlice<UInt8>?
    var kekVersion: UInt32?
    var errno: Int32 = -1

    private static let calls = ["open", "create", "read"].map { Array($0.utf8) }

    /// Nil for any other line.
    init?(_ line: ArraySlice<UInt8>) {
        var isAccess = false
        var isResponse = false
        let isObject = Self.members(of: line) { name, value in
            switch name {
            case "time": time = value
            case "type": isResponse = value.elementsEqual("response".utf8)
            case "keyring": keyring = value
            case "call": isAccess = Self.calls.contains { value.elementsEqual($0) }
            case "path": path = value
            case "uid": uid = Self.number(value) ?? 0
            case "pid": pid = Self.number(value) ?? 0
            case "exe": exe = value
            case "unit": unit = value
            case "kek_version": kekVersion = Self.number(value)
            case "errno": errno = Self.number(value) ?? -1
            default: break
            }
            // Most lines are something else.
            return name != "type" || isResponse
        }
        guard isObject, isResponse, isAccess, !path.isEmpty, kekVersion != nil else { return nil }
    }

    private static func number<N: FixedWidthInteger>(_ text: ArraySlice<UInt8>) -> N? {
        N(String(decoding: text, as: UTF8.self))
    }

    /// The members of an object without objects in it: names, and values without their quotes, escaped as they are.
    private static func members(of line: ArraySlice<UInt8>, _ body: (String, ArraySlice<UInt8>) -> Bool) -> Bool {
        let quote = UInt8(ascii: "\"")
        var place = line.startIndex
        func string() -> ArraySlice<UInt8>? {
            guard place < line.endIndex, line[place] == quote else { return nil }
            place += 1
            let start = place
            while place < line.endIndex, line[place] != quote { place += line[place] == UInt8(ascii: "\\") ? 2 : 1 }
            guard place < line.endIndex else { return nil }
            place += 1
            return line[start..<place - 1]
        }
        guard line.first == UInt8(ascii: "{"), line.last == UInt8(ascii: "}") else { return false }
        while place < line.endIndex - 1 {
            place += 1
            guard let name = string(), place < line.endIndex, line[place] == UInt8(ascii: ":") else { return false }
            place += 1
            let value: ArraySlice<UInt8>
            if place < line.endIndex, line[place] == quote {
                guard let text = string() else { return false }
                value = text
            } else {
                let start = place
                while place < line.endIndex - 1, line[place] != UInt8(ascii: ",") { place += 1 }
                value = line[start..<place]
            }
            // As if it were not there.
            let isNull = line[value.startIndex - 1] != quote && value.elementsEqual("null".utf8)
            guard isNull || body(String(decoding: name, as: UTF8.self), value) else { return false }
            guard place < line.endIndex, line[place] == UInt8(ascii: ",") || place == line.endIndex - 1 else {
                return false
            }
        }
        return true
    }
}
