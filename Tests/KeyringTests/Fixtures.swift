import Glibc
import Sodium

@testable import Keyring

let start = Timestamp(seconds: 1_800_000_000)

/// So many days after `start`.
func day(_ count: Int64) -> Timestamp { start.adding(seconds: count * 86_400) }

func version(_ number: UInt32) -> KEKVersion { KEKVersion(rawValue: number) }

/// A splitmix64 sequence: the same for the same seed.
struct Seeded: RandomNumberGenerator {
    var state: UInt64
    init(_ seed: UInt64) { state = seed }
    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }
}

/// A key service that costs nothing: 32 times the same byte.
struct PlainKeyService: KeyService {
    let kind = KeySlotKind.keyfile
    let byte: UInt8

    init(_ byte: UInt8 = 7) { self.byte = byte }

    private func key() throws(KeyringError) -> SecretKey {
        let bytes = [UInt8](repeating: byte, count: 32)
        do { return try bytes.withUnsafeBytes { bytes throws(SodiumError) in try SecretKey(copying: bytes) } } catch {
            throw .cannotLock
        }
    }

    func seal(_ rootKey: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        LocalSlot.seal(rootKey, kind, [], context, under: try key())
    }

    func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        try LocalSlot.open(slot, context, under: try key())
    }
}

func passphrase(_ text: String) throws -> PassphraseService {
    var secret = try SecretBytes(byteCount: text.utf8.count)
    secret.withUnsafeMutableBytes { $0.copyBytes(from: text.utf8) }
    return PassphraseService(passphrase: secret, parameters: .minimal)
}

func unlock(_ configuration: [UInt8], _ lifecycle: [UInt8], with service: any KeyService) throws -> UnlockedKeyring {
    try configuration.withUnsafeBytes { configuration in
        try lifecycle.withUnsafeBytes { lifecycle in
            try UnlockedKeyring.unlock(configuration: configuration, lifecycle: lifecycle, with: service)
        }
    }
}

extension UnlockedKeyring {
    /// Changes the lifecycle and takes the change into effect.
    func change(_ body: (inout KeyLifecycle) throws(LifecycleError) -> Void) throws(KeyringError) {
        commit(try prepare(body))
    }

    func wrapped(_ dek: [UInt8], context: [UInt8] = []) throws -> (bytes: [UInt8], version: KEKVersion) {
        var bytes = [UInt8](repeating: 0, count: Self.wrappedByteCount)
        let version = try bytes.withUnsafeMutableBytes { bytes in
            try dek.withUnsafeBytes { dek in
                try context.withUnsafeBytes { try wrap(BorrowedKey(dek), context: $0, into: bytes) }
            }
        }
        return (bytes, version)
    }

    func unwrapped(
        _ wrapped: [UInt8], _ version: KEKVersion, context: [UInt8] = [], forReencryption: Bool = false
    ) throws -> [UInt8] {
        var dek = [UInt8](repeating: 0xAA, count: 32)
        let result = Result {
            try dek.withUnsafeMutableBytes { dek in
                try wrapped.withUnsafeBytes { wrapped in
                    try context.withUnsafeBytes {
                        try unwrap(
                            wrapped, version: version, context: $0, into: dek, forReencryption: forReencryption)
                    }
                }
            }
        }
        if case .failure(KeyringError.doesNotAuthenticate) = result {
            // What failed to open leaves nothing of a key behind.
            precondition(dek.allSatisfy { $0 == 0 })
        }
        try result.get()
        return dek
    }
}

/// A directory of the test's own, removed with what is in it.
final class Scratch {
    let path: String

    init() {
        var template = Array("/tmp/keyring-tests-XXXXXX".utf8CString)
        guard let made = mkdtemp(&template) else { preconditionFailure("no directory") }
        path = String(cString: made)
    }

    deinit {
        if let directory = opendir(path) {
            while let entry = readdir(directory) {
                let name = withUnsafePointer(to: &entry.pointee.d_name) {
                    $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
                }
                unlink(path + "/" + name)
            }
            closedir(directory)
        }
        rmdir(path)
    }

    /// Writes a file with exactly this mode.
    func file(_ name: String, _ bytes: [UInt8], mode: mode_t = 0o600) -> String {
        let file = path + "/" + name
        let descriptor = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        precondition(write(descriptor, bytes, bytes.count) == bytes.count && fchmod(descriptor, mode) == 0)
        close(descriptor)
        return file
    }
}

func bytes(_ hex: String) -> [UInt8] {
    let digits = hex.compactMap(\.hexDigitValue)
    return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] << 4 | digits[$0 + 1]) }
}
