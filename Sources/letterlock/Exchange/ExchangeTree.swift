import Glibc

/// Files below a directory, read and written as they are.
enum ExchangeTree {
    private static let depthLimit = 64

    /// Every regular file, in the order of the paths.
    ///
    /// - Parameter skipped: Told of what is none: links, pipes, sockets, devices.
    static func read(_ directory: String, skipped: (String) -> Void) throws(Failure) -> [ExchangeEntry] {
        var entries: [ExchangeEntry] = []
        try visit(directory, skipped: skipped) { (path, descriptor, place) throws(Failure) in
            entries.append(ExchangeEntry(path: path, value: try SecretValue.read(descriptor, place)))
        }
        return entries
    }

    /// Shows every regular file, open, in the order of the paths.
    ///
    /// - Parameters:
    ///   - enters: Which names are looked at.
    ///   - body: Gets the names of directories and the file, a descriptor, and the path.
    static func visit(
        _ directory: String, enters: (String) -> Bool = { _ in true }, skipped: (String) -> Void,
        _ body: ([String], Int32, String) throws(Failure) -> Void
    ) throws(Failure) {
        try visit(directory, [], enters, skipped, body)
    }

    /// One regular file.
    static func readFile(_ path: String) throws(Failure) -> ExchangeEntry {
        let descriptor = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
        guard descriptor >= 0 else { throw SecretEnvironment.failure(path, errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0, status.st_mode & S_IFMT == S_IFREG else {
            throw Failure("\(path) is no regular file")
        }
        return ExchangeEntry(path: [Paths.lastComponent(path)], value: try SecretValue.read(descriptor, path))
    }

    private static func visit(
        _ path: String, _ prefix: [String], _ enters: (String) -> Bool, _ skipped: (String) -> Void,
        _ body: ([String], Int32, String) throws(Failure) -> Void
    ) throws(Failure) {
        guard prefix.count < depthLimit else { throw Failure("\(path): too deep") }
        guard let directory = opendir(path) else { throw SecretEnvironment.failure(path, errno) }
        defer { closedir(directory) }
        var names: [String] = []
        while let entry = readdir(directory) {
            let name = ProcessTable.name(of: entry)
            if name == "." || name == ".." { continue }
            guard !name.unicodeScalars.contains("\u{FFFD}") else {
                throw Failure("\(path)/\(name): its name is not UTF-8")
            }
            names.append(name)
        }
        for name in names.sorted() where enters(name) {
            let place = path + "/" + name
            let descriptor = open(place, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC)
            if descriptor < 0, [ELOOP, ENXIO].contains(errno) {
                skipped(place)
                continue
            }
            guard descriptor >= 0 else { throw SecretEnvironment.failure(place, errno) }
            defer { close(descriptor) }
            var status = stat()
            guard fstat(descriptor, &status) == 0 else { throw SecretEnvironment.failure(place, errno) }
            switch status.st_mode & S_IFMT {
            case S_IFDIR: try visit(place, prefix + [name], enters, skipped, body)
            case S_IFREG: try body(prefix + [name], descriptor, place)
            default: skipped(place)
            }
        }
    }

    /// What must not be there: of files those that are, unless they are to be replaced.
    static func check(_ entries: [ExchangeEntry], below directory: String, replaces: Bool) throws(Failure) {
        var files: Set<String> = []
        var directories: Set<String> = []
        for entry in entries {
            guard files.insert(entry.name).inserted else { throw Failure("'\(entry.name)' is there twice") }
            for count in 1..<max(entry.path.count, 1) {
                directories.insert(entry.path[..<count].joined(separator: "/"))
            }
        }
        if let both = files.intersection(directories).min() {
            throw Failure("'\(both)' is both a file and a directory")
        }
        for name in files.sorted() {
            var status = stat()
            guard lstat("\(directory)/\(name)", &status) == 0 else { continue }
            guard replaces, status.st_mode & S_IFMT == S_IFREG else {
                throw Failure(
                    "\(directory)/\(name) exists", hint: "nothing was changed; --replace gives a file another value")
            }
        }
        for name in directories.sorted() {
            var status = stat()
            guard lstat("\(directory)/\(name)", &status) == 0, status.st_mode & S_IFMT != S_IFDIR else { continue }
            throw Failure("\(directory)/\(name) is no directory", hint: "nothing was changed")
        }
    }

    /// Writes each value whole, into files of that mode and directories of their owner's alone.
    static func write(_ entries: [ExchangeEntry], below directory: String, mode: mode_t) throws(Failure) {
        for entry in entries {
            var place = directory
            for name in entry.path.dropLast() {
                place += "/" + name
                guard mkdir(place, 0o700) == 0 || errno == EEXIST else {
                    throw Failure("cannot make \(place)", errno: errno)
                }
            }
            place += "/" + entry.path[entry.path.count - 1]
            let descriptor = open(place, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
            guard descriptor >= 0 else { throw SecretEnvironment.failure(place, errno) }
            do throws(Failure) {
                try entry.value.write(to: descriptor, place)
                guard fchmod(descriptor, mode) == 0, fsync(descriptor) == 0 else {
                    throw Failure("cannot write \(place)", errno: errno)
                }
            } catch {
                close(descriptor)
                throw error
            }
            // A value takes its place when its file is closed.
            guard close(descriptor) == 0 else { throw Failure("cannot write \(place)", errno: errno) }
        }
    }
}
