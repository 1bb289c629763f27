import Glibc

/// The directory that a keyring is to be made in.
enum StoreDirectory {
    private static let hints = [
        ENOENT: "its parent directory has to be there, and on a file system that takes new directories",
        EROFS: "a keyring lies where it can be written to; a copy of one is mounted with -o ro",
        EACCES: "run it as the user to whom its parent directory belongs",
    ]

    /// Makes the directory, or sees that it is empty. True if it is a new one.
    static func prepare(_ path: String) throws(Failure) -> Bool {
        if mkdir(path, 0o700) == 0 { return true }
        let number = errno
        guard number == EEXIST else {
            throw Failure(
                "cannot make \(path)", errno: number,
                hint: hints[number])
        }
        guard let directory = opendir(path) else { throw Failure(path, errno: errno) }
        defer { closedir(directory) }
        try checkEmpty(directory, path)
        guard fchmod(dirfd(directory), 0o700) == 0 else { throw Failure(path, errno: errno) }
        return false
    }

    /// Takes away what a failed making left: the directory was empty before.
    static func clear(_ path: String, removesDirectory: Bool) {
        guard let directory = opendir(path) else { return }
        while let entry = readdir(directory) { unlinkat(dirfd(directory), ProcessTable.name(of: entry), 0) }
        closedir(directory)
        if removesDirectory { rmdir(path) }
    }

    /// Nothing is made: true of a directory that is not there, or is empty.
    static func checkFree(_ path: String) throws(Failure) {
        guard let directory = opendir(path) else {
            guard errno == ENOENT else { throw Failure(path, errno: errno) }
            return
        }
        defer { closedir(directory) }
        try checkEmpty(directory, path)
    }

    private static func checkEmpty(_ directory: OpaquePointer, _ path: String) throws(Failure) {
        var count = 0
        while readdir(directory) != nil { count += 1 }
        guard count <= 2 else {
            throw Failure(
                "\(path) is not empty", hint: "a keyring is made in a directory that is new or empty")
        }
    }
}
