import Glibc
import Sodium

/// Variables out of a tree of secrets: of each file `NAME_FILE`, its path, and `NAME`, its value.
///
/// A value lies in memory of its own until the program that it is for has taken this process's place, or is wiped.
final class SecretEnvironment {
    /// Environments take no longer ones (MAX_ARG_STRLEN), and no zero bytes.
    private static let limit = 128 * 1024
    private static let depthLimit = 32

    private struct Variable {
        var name: String
        /// The file that it comes of, below the directory.
        var origin: String
        /// `NAME=value`, ended by a zero byte.
        var text: UnsafeMutableBufferPointer<CChar>
    }

    private let withValues: Bool
    private let root: String
    private let device: dev_t
    private var variables: [String: Variable] = [:]

    /// - Parameters:
    ///   - directory: A mount, or a directory of it.
    ///   - withValues: Else `NAME_FILE` alone.
    init(of directory: String, withValues: Bool) throws(Failure) {
        let path: String
        switch Paths.resolved(directory) {
        case .success(let resolved): path = resolved
        case .failure(let number): throw Self.failure(directory, number.value)
        }
        var status = stat()
        guard stat(path, &status) == 0 else { throw Self.failure(path, errno) }
        root = path
        device = status.st_dev
        self.withValues = withValues
        try add(path, below: "", depth: 0)
    }

    deinit {
        for variable in variables.values {
            Memory.wipe(UnsafeMutableRawBufferPointer(variable.text))
            variable.text.deallocate()
        }
    }

    // MARK: The tree

    private func add(_ path: String, below prefix: String, depth: Int) throws(Failure) {
        guard depth < Self.depthLimit else { throw Failure("\(path): too deep") }
        guard let directory = opendir(path) else {
            // What others own is theirs.
            guard errno != EACCES || depth == 0 else { return }
            throw Self.failure(path, errno)
        }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) { names.append(ProcessTable.name(of: entry)) }
        for name in names.sorted() where !name.hasPrefix(".") {
            try addEntry("\(path)/\(name)", prefix.isEmpty ? name : "\(prefix)/\(name)", depth)
        }
    }

    private func addEntry(_ path: String, _ origin: String, _ depth: Int) throws(Failure) {
        var own = stat()
        guard lstat(path, &own) == 0 else {
            // It may have gone since the directory was read.
            guard errno != ENOENT else { return }
            throw Self.failure(path, errno)
        }
        if own.st_mode & S_IFMT == S_IFDIR { return try add(path, below: origin, depth: depth + 1) }
        var target = stat()
        // A link stands for the file that it leads to, in this very mount.
        guard stat(path, &target) == 0, target.st_mode & S_IFMT == S_IFREG, target.st_dev == device else { return }
        try addFile(path, origin)
    }

    private func addFile(_ path: String, _ origin: String) throws(Failure) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else {
            guard errno != EACCES, errno != ENOENT else { return }
            throw Self.failure(path, errno)
        }
        defer { close(descriptor) }
        let name = Self.name(of: origin)
        try set(name + "_FILE", origin, path)
        guard withValues else { return }
        let value = ScratchBuffer(byteCount: Self.limit)
        var count = 0
        while count < value.byteCount {
            let got = read(descriptor, value.bytes.baseAddress! + count, value.byteCount - count)
            if got < 0, errno == EINTR { continue }
            guard got >= 0 else { throw Self.failure(path, errno) }
            if got == 0 { break }
            count += got
        }
        // The newline that `echo` leaves is not of the value.
        if count > 0, value.bytes[count - 1] == UInt8(ascii: "\n") { count -= 1 }
        let bytes = UnsafeRawBufferPointer(rebasing: value.bytes[..<count])
        guard count + name.utf8.count + 2 < Self.limit, !bytes.contains(0) else { return }
        try set(name, origin, bytes)
    }

    /// `web/db-password` is WEB_DB_PASSWORD.
    static func name(of origin: String) -> String {
        let name = String(
            decoding: origin.utf8.map { byte -> UInt8 in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"): byte - 0x20
                case UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"): byte
                default: UInt8(ascii: "_")
                }
            }, as: UTF8.self)
        return name.first?.isNumber == true ? "_" + name : name
    }

    // MARK: Variables

    private func set(_ name: String, _ origin: String, _ value: String) throws(Failure) {
        let bytes = Array(value.utf8)
        let result = bytes.withUnsafeBytes { bytes in
            Result { () throws(Failure) in try set(name, origin, bytes) }
        }
        try result.get()
    }

    private func set(_ name: String, _ origin: String, _ value: UnsafeRawBufferPointer) throws(Failure) {
        if let other = variables[name] {
            throw Failure(
                "'\(other.origin)' and '\(origin)' would both be \(name)",
                hint: "rename one of them, or run with a directory that holds one of them alone")
        }
        guard !Self.steers(name) else {
            throw Failure(
                "'\(origin)' would be \(name), which decides what is run",
                hint: "rename it, or run with another directory")
        }
        let text = UnsafeMutableBufferPointer<CChar>.allocate(capacity: name.utf8.count + value.count + 2)
        let bytes = UnsafeMutableRawBufferPointer(text)
        bytes.copyBytes(from: Array(name.utf8) + [UInt8(ascii: "=")])
        UnsafeMutableRawBufferPointer(rebasing: bytes[(name.utf8.count + 1)...]).copyBytes(from: value)
        bytes[bytes.count - 1] = 0
        variables[name] = Variable(name: name, origin: origin, text: text)
    }

    /// What the loader or a shell takes for an order.
    private static func steers(_ name: String) -> Bool {
        name.hasPrefix("LD_") || name.hasPrefix("GLIBC_")
            || ["PATH", "IFS", "ENV", "BASH_ENV", "SHELLOPTS", "GCONV_PATH"].contains(name)
    }

    // MARK: The program

    /// Runs a program in this process's place: what it ends with, this process ends with.
    ///
    /// - Throws: if it cannot be run.
    func execute(_ command: [String]) throws(Failure) {
        ProcessHygiene.restoreForOthers()
        var pointers: [UnsafeMutablePointer<CChar>?] = []
        var place = environ
        while let text = place.pointee {
            let name = String(cString: text).prefix { $0 != "=" }
            if variables[String(name)] == nil { pointers.append(text) }
            place += 1
        }
        pointers += variables.values.sorted { $0.name < $1.name }.map { $0.text.baseAddress }
        pointers.append(nil)
        var words: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) }
        words.append(nil)
        defer { for word in words { free(word) } }
        execvpe(command[0], words, pointers)
        let number = errno
        throw Failure(
            "cannot run \(command[0])", errno: number,
            hint: number == E2BIG ? "the values are too many for an environment: run it with --files-only" : nil,
            code: number == ENOENT ? .commandNotFound : .commandNotExecutable)
    }

    static func failure(_ path: String, _ number: Int32) -> Failure {
        switch number {
        case ENOKEY: Failure("\(path): locked, or its key is destroyed", code: .locked)
        case EKEYREVOKED:
            Failure("\(path): its KEK version is disabled, compromised or pending destruction", code: .locked)
        case EKEYEXPIRED: Failure("\(path): its KEK version is below min_decryption_version", code: .locked)
        case EBADMSG: Failure("\(path) does not authenticate", hint: "run 'letterlock verify'", code: .integrity)
        default: Failure(path, errno: number)
        }
    }
}
