import ArgumentParser

/// What opens a keyring, as `init`, `mount` and `verify` are told.
struct KeyOptions: ParsableArguments {
    @Option(
        help: ArgumentHelp(
            "What opens the keyring: passphrase (default), recovery, keyfile:PATH, credential:NAME, vault:https://HOST:PORT/MOUNT/KEY, awskms:KEY, pkcs11:URI, tpm2 or age:RECIPIENT.",
            valueName: "spec"))
    var keyService: String?

    @Option(help: ArgumentHelp("Read the passphrase from a file.", valueName: "file"), completion: .file())
    var passphraseFile: String?

    @Option(help: ArgumentHelp("Read the passphrase from an open descriptor.", valueName: "n"))
    var passphraseFd: Int32?

    @Flag(help: "Go on if keys cannot be locked into memory, so that they may reach swap.")
    var allowUnlockedMemory = false

    func source() throws(Failure) -> KeySource {
        guard passphraseFile == nil || passphraseFd == nil else {
            throw Failure("--passphrase-file and --passphrase-fd exclude each other", code: .usage)
        }
        if let passphraseFd, passphraseFd < 0 {
            throw Failure("--passphrase-fd \(passphraseFd) is no descriptor", code: .usage)
        }
        var source = KeySource()
        source.spec = keyService
        source.passphraseFile = passphraseFile
        source.passphraseDescriptor = passphraseFd
        source.allowsUnlockedMemory = allowUnlockedMemory
        return source
    }
}

/// For commands that have a key service open one more keyring.
struct SharingOptions: ParsableArguments {
    @Flag(help: "Take a key service's key that opens another keyring already.")
    var shared = false
}
