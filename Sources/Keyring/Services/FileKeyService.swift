internal import Glibc
public import Sodium

/// A key of 32 random bytes in a file that its owner alone can read.
public final class FileKeyService: KeyService {
    public let kind = KeySlotKind.keyfile
    private let path: String
    private let forbiddenMode: UInt32

    /// The file is read when the service is used. Neither group nor others may read or write it.
    public convenience init(path: String) { self.init(path: path, forbiddenMode: 0o066) }

    init(path: String, forbiddenMode: UInt32) {
        self.path = path
        self.forbiddenMode = forbiddenMode
    }

    public func seal(_ rootKey: SecretKey, for store: StoreID) throws(KeyringError) -> KeySlot {
        LocalSlot.seal(rootKey, kind, [], store, under: try key())
    }

    public func unseal(_ slot: KeySlot, for store: StoreID) throws(KeyringError) -> SecretKey {
        try LocalSlot.open(slot, store, under: try key())
    }

    private func key() throws(KeyringError) -> SecretKey {
        let text = try SecretFile.read(path, limit: 128, forbiddenMode: forbiddenMode)
        return try text.withUnsafeBytes { text throws(KeyringError) in
            try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                if text.count == SecretKey.byteCount {
                    key.copyMemory(from: text)
                } else {
                    let line = UnsafeRawBufferPointer(rebasing: text[0..<SecretFile.lineByteCount(text)])
                    guard Base64.decode(line, into: key) == SecretKey.byteCount else {
                        throw .malformedKeyFile(path: path)
                    }
                }
                // The file's bytes never serve as a key themselves.
                let bytes = UnsafeRawBufferPointer(key)
                do { return try SecretKey(copying: bytes).derived("letterlock key file 1") } catch { throw .cannotLock }
            }
        }
    }
}

/// A key file that systemd hands to a service: `$CREDENTIALS_DIRECTORY/NAME`. It opens the slots of key files.
public final class CredentialService: KeyService {
    public let kind = KeySlotKind.keyfile
    private let file: FileKeyService

    public init(name: String) throws(KeyringError) {
        guard !name.isEmpty, !name.contains("/"), name != ".", name != ".." else {
            throw .serviceUnavailable("'\(name)' is not the name of a credential")
        }
        guard let directory = getenv("CREDENTIALS_DIRECTORY") else {
            throw .serviceUnavailable("CREDENTIALS_DIRECTORY is not set: systemd sets it for LoadCredential=")
        }
        // The access list for a unit's user shows as the group's bits of the mode.
        file = FileKeyService(path: String(cString: directory) + "/" + name, forbiddenMode: 0o006)
    }

    public func seal(_ rootKey: SecretKey, for store: StoreID) throws(KeyringError) -> KeySlot {
        try file.seal(rootKey, for: store)
    }

    public func unseal(_ slot: KeySlot, for store: StoreID) throws(KeyringError) -> SecretKey {
        try file.unseal(slot, for: store)
    }
}

/// Reading small secret files without a copy in ordinary memory.
enum SecretFile {
    /// Reads a file whole into locked memory.
    ///
    /// - Parameter forbiddenMode: Permissions that a key file must not have, and be a regular file; nil for a file that
    ///   may be a pipe, too.
    static func read(_ path: String, limit: Int, forbiddenMode: UInt32?) throws(KeyringError) -> SecretBytes {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | (forbiddenMode == nil ? 0 : O_NONBLOCK))
        guard descriptor >= 0 else { throw .io(path: path, errno: errno) }
        defer { close(descriptor) }
        var status = stat()
        guard fstat(descriptor, &status) == 0 else { throw .io(path: path, errno: errno) }
        let type = status.st_mode & S_IFMT
        let mode = UInt32(status.st_mode & 0o7777)
        if let forbiddenMode {
            guard type == S_IFREG else { throw .malformedKeyFile(path: path) }
            guard mode & forbiddenMode == 0 else { throw .insecureFile(path: path, mode: mode) }
        } else if type == S_IFDIR {
            throw .io(path: path, errno: EISDIR)
        }
        return try read(descriptor, path, limit: limit)
    }

    /// Reads until the end.
    ///
    /// - Throws: `.malformedKeyFile` if there is more than `limit` bytes.
    static func read(_ descriptor: Int32, _ path: String, limit: Int) throws(KeyringError) -> SecretBytes {
        do {
            var buffer = try SecretBytes(byteCount: limit + 1)
            var count = 0
            while count <= limit {
                let got = buffer.withUnsafeMutableBytes {
                    Glibc.read(descriptor, $0.baseAddress! + count, limit + 1 - count)
                }
                if got < 0, errno == EINTR { continue }
                guard got >= 0 else { throw KeyringError.io(path: path, errno: errno) }
                if got == 0 { break }
                count += got
            }
            guard count <= limit else { throw KeyringError.malformedKeyFile(path: path) }
            var bytes = try SecretBytes(byteCount: count)
            buffer.withUnsafeBytes { source in
                bytes.withUnsafeMutableBytes {
                    $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: source[0..<count]))
                }
            }
            return bytes
        } catch let error as KeyringError {
            throw error
        } catch {
            throw .cannotLock
        }
    }

    /// How many bytes there are before one newline at the end.
    static func lineByteCount(_ text: UnsafeRawBufferPointer) -> Int {
        text.last == UInt8(ascii: "\n") ? text.count - 1 : text.count
    }
}
