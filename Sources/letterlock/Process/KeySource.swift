import Glibc
import KeyServices
import Keyring
import Sodium

/// What opens a keyring, as it was asked for: on the command line, or among the mount options.
struct KeySource {
    /// Nil: a passphrase.
    var spec: String?
    var passphraseFile: String?
    var passphraseDescriptor: Int32?
    var allowsUnlockedMemory = false

    /// Mount options stand in for what the command line leaves open.
    mutating func take(_ options: MountOptions) {
        spec = spec ?? options.keyService
        if passphraseDescriptor == nil { passphraseFile = passphraseFile ?? options.passphraseFile }
        if options.allowsUnlockedMemory { allowsUnlockedMemory = true }
    }

    /// The key file, if one opens it.
    var keyFilePath: String? {
        guard case .keyfile(let path)? = try? parsedSpec() else { return nil }
        return path
    }

    /// Makes the key service; asks for the passphrase if that is what is wanted.
    ///
    /// - Parameter makesKeyring: The passphrase is a new one: it is asked for twice on a terminal.
    func service(makesKeyring: Bool = false) throws(Failure) -> any KeyService {
        let spec = try parsedSpec()
        do {
            try start()
            switch spec {
            case .passphrase: return PassphraseService(passphrase: try passphrase(isNew: makesKeyring))
            case .recovery: return RecoveryService(phrase: try passphrase(isNew: false))
            case .keyfile(let path): return FileKeyService(path: path)
            case .credential(let name): return try CredentialService(name: name)
            case .remote(let kind, let rest): return try RemoteKeyServices.service(kind, rest)
            }
        } catch {
            throw Messages.failure(for: error)
        }
    }

    /// An age recipient: what it opens is opened elsewhere, with its identity.
    static func recipient(_ text: String) throws(Failure) -> any KeyService {
        guard text.hasPrefix("age1") else {
            throw Failure(
                "'\(Output.printable(text))' is no age recipient", hint: "age-keygen -y tells that of an identity",
                code: .usage)
        }
        var source = KeySource()
        source.spec = "age:" + text
        return try source.service()
    }

    /// Somebody said what opens it.
    var isGiven: Bool { spec != nil || passphraseFile != nil || passphraseDescriptor != nil }

    /// Which keyrings the service's key opens, if it is the key of a service that several could ask.
    func memory() throws(Failure) -> ServiceMemory? {
        guard case .remote(let kind, let rest) = try parsedSpec() else { return nil }
        do throws(KeyringError) {
            return try RemoteKeyServices.service(kind, rest).keyName().map { ServiceMemory($0) }
        } catch { throw Messages.failure(error) }
    }

    /// Nobody shall type a passphrase for what takes none.
    func checkOpens(_ summary: KeyringSummary) throws(Failure) {
        guard try takesTyped(), passphraseFile == nil, passphraseDescriptor == nil else { return }
        let kind = try parsedSpec().kind
        guard summary.slots.contains(where: { $0.kind == kind }) else {
            throw Messages.failure(.noMatchingSlot(kinds: summary.keyServices))
        }
    }

    /// Makes the key service that opens the store in a directory.
    func service(of store: String) throws(Failure) -> any KeyService {
        if let summary = try StoreDescription(at: store).summary { try checkOpens(summary) }
        return try service()
    }

    /// Makes the key service of a keyring that is unlocked through its mount.
    ///
    /// - Parameter typed: What was written: a passphrase, or `1` where the key service is to be asked once more.
    func service(typed: UnsafeRawBufferPointer) throws(Failure) -> any KeyService {
        let isPassphrase = try takesTyped() || !typed.elementsEqual([UInt8(ascii: "1")])
        guard isPassphrase else { return try service() }
        do {
            try start()
            var secret = try SecretBytes(byteCount: typed.count)
            secret.withUnsafeMutableBytes { $0.copyMemory(from: typed) }
            if try parsedSpec() == .recovery { return RecoveryService(phrase: secret) }
            return PassphraseService(passphrase: secret)
        } catch {
            throw Messages.failure(for: error)
        }
    }

    /// What opens it is typed, or read from where a passphrase is read from.
    func takesTyped() throws(Failure) -> Bool {
        let spec = try parsedSpec()
        return spec == .passphrase || spec == .recovery
    }

    private func start() throws {
        LockedMemory.allowsUnlocked = allowsUnlockedMemory
        try Sodium.start()
    }

    func parsedSpec() throws(Failure) -> KeyServiceSpec {
        do {
            return try KeyServiceSpec.parse(spec ?? "passphrase")
        } catch {
            var failure = Messages.failure(error)
            failure.code = .usage
            throw failure
        }
    }

    /// What the server in the background is told: a path that holds in any working directory.
    func absoluteSpec() throws(Failure) -> String {
        switch try parsedSpec() {
        case .passphrase: "passphrase"
        case .recovery: "recovery"
        case .keyfile(let path): "keyfile:" + Paths.absolute(path)
        case .credential(let name): "credential:" + name
        case .remote(let kind, let rest):
            rest.isEmpty ? kind.name : "\(kind.name):\(RemoteKeyServices.pinned(kind, rest, Paths.absolute))"
        }
    }

    /// The end of a pipe that the passphrase comes out of, for a server in the background; nil if none is needed.
    ///
    /// The pipe's buffers are the kernel's: they never reach swap, and nobody else can open them.
    func passphrasePipe(for store: String) throws(Failure) -> Int32? {
        guard try takesTyped() else { return nil }
        if passphraseFile == nil, passphraseDescriptor == nil, let summary = try StoreDescription(at: store).summary {
            try checkOpens(summary)
        }
        let pipe = try Spawning.pipe()
        defer { close(pipe.writing) }
        do {
            try start()
            let secret = try passphrase(isNew: false)
            let isWhole = secret.withUnsafeBytes { write(pipe.writing, $0.baseAddress, $0.count) == $0.count }
            guard isWhole else { throw Failure("cannot hand the passphrase to the server", errno: errno) }
        } catch {
            close(pipe.reading)
            throw Messages.failure(for: error)
        }
        return pipe.reading
    }

    /// The passphrase for a keyring that is unlocked through its mount.
    func typedPassphrase() throws(Failure) -> SecretBytes {
        do {
            try start()
            return try passphrase(isNew: false)
        } catch { throw Messages.failure(for: error) }
    }

    private func passphrase(isNew: Bool) throws(KeyringError) -> SecretBytes {
        if let passphraseDescriptor { return try SecretInput.read(descriptor: passphraseDescriptor) }
        if let passphraseFile { return try SecretInput.read(path: passphraseFile) }
        let question =
            (try? parsedSpec()) == .recovery ? "recovery phrase: " : isNew ? "new passphrase: " : "passphrase: "
        return try SecretInput.ask(question, again: isNew ? "once more: " : nil)
    }
}
