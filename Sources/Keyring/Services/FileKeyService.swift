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

    public func seal(_ rootKey: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        LocalSlot.seal(rootKey, kind, [], context, under: try key())
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        try LocalSlot.open(slot, context, under: try key())
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
            throw .service(KeyServiceFault(.malformedAddress, "'\(name)' is not the name of a credential"))
        }
        guard let directory = getenv("CREDENTIALS_DIRECTORY") else {
            throw .serviceUnavailable("CREDENTIALS_DIRECTORY is not set: systemd sets it for LoadCredential=")
        }
        // The access list for a unit's user shows as the group's bits of the mode.
        file = FileKeyService(path: String(cString: directory) + "/" + name, forbiddenMode: 0o006)
    }

    public func seal(_ rootKey: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        try file.seal(rootKey, for: context)
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        try file.unseal(slot, for: context)
    }
}
