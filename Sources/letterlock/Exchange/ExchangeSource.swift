import Glibc
import KeyServices
import Keyring
import Sodium

/// Where secrets come from: a directory, a file, or standard input.
struct ExchangeSource {
    private let path: String
    /// Nil for what it looks like.
    private let format: ExchangeFormat?
    private let identityFiles: [String]

    init(_ path: String, _ format: ExchangeFormat?, identityFiles: [String]) {
        self.path = path
        self.format = format
        self.identityFiles = identityFiles
    }

    /// All of them, and nothing if one cannot be read.
    func read() throws(Failure) -> [ExchangeEntry] {
        let guessed = format ?? ExchangeFormat(ofSource: path)
        switch guessed {
        case .directory:
            return try ExchangeTree.read(path) { Output.warn("\($0) is no regular file, and is left out") }
        case .pass: return try PassStore.read(path) { Output.warn("\($0) is no secret of pass, and is left out") }
        case .dotenv, .json, .kubernetes, .sops: return try readFile(guessed)
        }
    }

    private func readFile(_ guessed: ExchangeFormat) throws(Failure) -> [ExchangeEntry] {
        let descriptor = path == "-" ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(path, errno: errno) }
        defer { if path != "-" { close(descriptor) } }
        let name = path == "-" ? "standard input" : path
        let text = try SecretValue.read(descriptor, name)
        return try text.withBytes { (bytes: UnsafeRawBufferPointer) throws(Failure) -> [ExchangeEntry] in
            try read(bytes, guessed, name)
        }
    }

    private func read(_ bytes: UnsafeRawBufferPointer, _ guessed: ExchangeFormat, _ name: String) throws(Failure)
        -> [ExchangeEntry]
    {
        let isSops = (format == nil || format == .kubernetes) && SopsFile.seemsToBe(bytes)
        if isSops, guessed == .kubernetes {
            // sops seals manifests as well, and leaves what they are in clear.
            let documents = try SecretYAML.read(bytes, name)
            if format == .kubernetes || documents.contains(where: { $0.member("kind")?.plainText != nil }) {
                return try KubernetesSecrets.read(try SopsFile.open(documents, name, try identities()), name) {
                    Output.warn($0)
                }
            }
        }
        switch isSops && format == nil ? .sops : guessed {
        case .json: return try SecretJSON.read(bytes, name)
        case .kubernetes:
            return try KubernetesSecrets.read(try SecretYAML.read(bytes, name), name) { Output.warn($0) }
        case .sops: return try SopsFile.read(bytes, name, try identities(), single: nameOfSingle) { Output.warn($0) }
        case .dotenv, .directory, .pass: return try DotEnv.read(bytes, name)
        }
    }

    // MARK: sops

    /// What a file is called whose one value sops has sealed as a whole; nil for a file in JSON or YAML.
    private var nameOfSingle: String? {
        guard path != "-", SopsWriter.Form(ofFile: path) == .binary else { return nil }
        let name = Paths.lastComponent(path)
        let ending = [".sops", ".enc"].first { name.hasSuffix($0) && name.count > $0.count }
        return String(name.dropLast(ending?.count ?? 0))
    }

    /// Of the files that are named; else where sops looks for them.
    private func identities() throws(Failure) -> [AgeIdentity] {
        var files = identityFiles
        if files.isEmpty {
            let place = ["SOPS_AGE_KEY_FILE", "AGE_IDENTITY_FILE"].lazy.compactMap { Self.variable($0) }.first
            let directory = Self.variable("XDG_CONFIG_HOME") ?? Self.variable("HOME").map { $0 + "/.config" }
            if let place {
                files = [place]
            } else if let own = directory.map({ $0 + "/sops/age/keys.txt" }), access(own, F_OK) == 0 {
                files = [own]
            }
        }
        do throws(KeyringError) {
            var identities: [AgeIdentity] = []
            for file in files { identities += try AgeIdentityFile.read(file) }
            return identities
        } catch { throw Messages.failure(error) }
    }

    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }
}
