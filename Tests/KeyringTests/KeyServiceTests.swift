import Glibc
import Sodium
import Testing

@testable import Keyring

@Suite struct KeyServiceTests {
    private let key = (0..<32).map { UInt8($0 * 7 + 1) }
    /// The same as `base64` prints it.
    private let line = "AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09o="

    private func open(_ keyring: UnlockedKeyring, with service: any KeyService) throws {
        _ = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: service)
    }

    private func keyring(_ service: any KeyService) throws -> UnlockedKeyring {
        try UnlockedKeyring.create(name: "test", service: service, now: start)
    }

    @Test func `a passphrase opens, another does not`() throws {
        let keyring = try keyring(try passphrase("open sesame"))
        try open(keyring, with: try passphrase("open sesame"))
        for wrong in ["open sesam", "open sesame ", "Open sesame"] {
            #expect(throws: KeyringError.wrongSecret) { try open(keyring, with: try passphrase(wrong)) }
        }
    }

    @Test func `parameters of Argon2id out of bounds are refused before they are used`() throws {
        let context = SlotContext(store: .random(), keyring: "test", purpose: .rootKey)
        let slot = try passphrase("x").seal(try SecretKey.random(), for: context)
        for place in [0, 8] {
            for value in [0, .max] as [UInt64] {
                var parameters = slot.parameters
                parameters.withUnsafeMutableBytes { $0.storeBytes(of: value, toByteOffset: place, as: UInt64.self) }
                let hostile = KeySlot(kind: .passphrase, parameters: parameters, sealedKey: slot.sealedKey)
                #expect(throws: KeyringError.damaged("a key slot asks for Argon2id parameters out of bounds")) {
                    try passphrase("x").unseal(hostile, for: context)
                }
            }
        }
    }

    @Test func `a key file is raw or a line of base64`() throws {
        let scratch = Scratch()
        let keyring = try keyring(FileKeyService(path: scratch.file("raw", key)))
        for (name, text) in [("line", line + "\n"), ("bare", line)] {
            try open(keyring, with: FileKeyService(path: scratch.file(name, Array(text.utf8))))
        }
        var other = key
        other[31] ^= 1
        #expect(throws: KeyringError.wrongSecret) {
            try open(keyring, with: FileKeyService(path: scratch.file("other", other)))
        }
    }

    @Test(arguments: [
        [], [1], [UInt8](repeating: 65, count: 31), [UInt8](repeating: 65, count: 33),
        [UInt8](repeating: 65, count: 44),
        [UInt8](repeating: 65, count: 5000), Array("AQgPFh0kKzI5QEdOVVxjanF4f4aNlJuiqbC3vsXM09o=\n\n".utf8),
    ])
    func `what is neither is refused`(bytes: [UInt8]) throws {
        let scratch = Scratch()
        let path = scratch.file("key", bytes)
        #expect(throws: KeyringError.malformedKeyFile(path: path)) { try keyring(FileKeyService(path: path)) }
    }

    @Test(arguments: [0o640, 0o604, 0o660, 0o602, 0o644, 0o777] as [mode_t])
    func `a key file that others can get at is refused`(mode: mode_t) throws {
        let scratch = Scratch()
        let path = scratch.file("key", key, mode: mode)
        #expect(throws: KeyringError.insecureFile(path: path, mode: UInt32(mode))) {
            try keyring(FileKeyService(path: path))
        }
    }

    @Test(arguments: [0o600, 0o400, 0o700] as [mode_t])
    func `a key file of its owner's alone is taken`(mode: mode_t) throws {
        let scratch = Scratch()
        #expect(throws: Never.self) { try keyring(FileKeyService(path: scratch.file("key", key, mode: mode))) }
    }

    @Test func `what is no regular file is no key file, and nobody waits for it`() throws {
        let scratch = Scratch()
        let pipe = scratch.path + "/pipe"
        #expect(mkfifo(pipe, 0o600) == 0)
        for path in [pipe, scratch.path, "/dev/null"] {
            #expect(throws: KeyringError.malformedKeyFile(path: path)) { try keyring(FileKeyService(path: path)) }
        }
        let absent = scratch.path + "/absent"
        #expect(throws: KeyringError.io(path: absent, errno: ENOENT)) { try keyring(FileKeyService(path: absent)) }
    }

    @Test func `a credential opens the slot of its key file`() async throws {
        await #expect(processExitsWith: .success) {
            let scratch = Scratch()
            let bytes = (0..<32).map { UInt8($0) }
            _ = scratch.file("master", bytes, mode: 0o440)
            setenv("CREDENTIALS_DIRECTORY", scratch.path, 1)
            let keyring = try UnlockedKeyring.create(
                name: "test", service: try CredentialService(name: "master"), now: start)
            let file = FileKeyService(path: scratch.file("copy", bytes))
            _ = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: file)
            unsetenv("CREDENTIALS_DIRECTORY")
            do {
                _ = try CredentialService(name: "master")
                exit(1)
            } catch KeyringError.serviceUnavailable {}
        }
        for name in ["", "a/b", ".", ".."] {
            #expect(throws: KeyringError.self) { try CredentialService(name: name) }
        }
    }

    @Test func `reads what names a key service`() throws {
        #expect(try KeyServiceSpec.parse("passphrase") == .passphrase)
        #expect(try KeyServiceSpec.parse("keyfile:/etc/a:b") == .keyfile(path: "/etc/a:b"))
        #expect(try KeyServiceSpec.parse("credential:master") == .credential(name: "master"))
        #expect(try KeyServiceSpec.parse("vault:https://h:1/m/k") == .remote(.vault, "https://h:1/m/k"))
        #expect(try KeyServiceSpec.parse("pkcs11:token=a:b?c=d") == .remote(.pkcs11, "token=a:b?c=d"))
        #expect(try KeyServiceSpec.parse("tpm2") == .remote(.tpm2, ""))
        for text in [
            "", "x", "passphrase:", "keyfile", "keyfile:", "credential:", "vault", "vault:", "awskms:", "pkcs11",
            "TPM2",
        ] {
            #expect(throws: KeyringError.self) { try KeyServiceSpec.parse(text) }
        }
    }
}
