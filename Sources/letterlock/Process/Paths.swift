import Glibc

enum Paths {
    /// `path` from the root on, without asking the disk.
    static func absolute(_ path: String) -> String {
        guard !path.hasPrefix("/"), let directory = getcwd(nil, 0) else { return path }
        defer { free(directory) }
        return String(cString: directory) + "/" + path
    }

    /// A relative path in the environment means this process's working directory, not that of the server it starts.
    static func pinVariable(_ name: String) {
        guard let value = getenv(name), value.pointee != 0 else { return }
        setenv(name, absolute(String(cString: value)), 1)
    }

    /// `path` without links and dots; an error number if it cannot be followed.
    static func resolved(_ path: String) -> Result<String, SystemErrorNumber> {
        guard let bytes = realpath(path, nil) else { return .failure(SystemErrorNumber(errno)) }
        defer { free(bytes) }
        return .success(String(cString: bytes))
    }

    /// `path` with its parent resolved but its last component left alone: the way to name a dead mount.
    static func resolvedParent(_ path: String) -> String {
        var path = path
        while path.count > 1, path.hasSuffix("/") { path.removeLast() }
        let name = lastComponent(path)
        guard name != ".", name != "..", !name.isEmpty else { return path }
        let parent = path.hasSuffix(name) ? String(path.dropLast(name.count)) : ""
        guard case .success(let directory) = resolved(parent.isEmpty ? "." : parent) else {
            return absolute(path)
        }
        return directory == "/" ? "/" + name : directory + "/" + name
    }

    static func lastComponent(_ path: String) -> String {
        String(path.split(separator: "/").last ?? "")
    }

    /// True if `path` is `directory` or lies below it.
    static func contains(_ directory: String, _ path: String) -> Bool {
        path == directory || path.hasPrefix(directory == "/" ? "/" : directory + "/")
    }
}

/// An error number, as an error.
struct SystemErrorNumber: Error {
    let value: Int32
    init(_ value: Int32) { self.value = value }
}
