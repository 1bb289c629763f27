import Sodium
import Testing

@testable import Keyring

/// The two records of a keyring, whole and in every way broken.
@Suite struct RecordTests {
    private func keyring() throws -> UnlockedKeyring {
        let keyring = try UnlockedKeyring.create(name: "prod", service: PlainKeyService(), now: start)
        try keyring.change { lifecycle throws(LifecycleError) in
            for count in 1...4 { try lifecycle.rotate(now: day(Int64(count))) }
            lifecycle.setDeletionAllowed(true)
            try lifecycle.compromise(version(1), reason: "laptop lost", now: day(5))
            try lifecycle.disable(version(2), now: day(5))
            try lifecycle.scheduleDestruction(of: version(3), days: 7, force: false, files: 0, now: day(5))
            lifecycle.destroyDue(now: day(12))
            try lifecycle.setMinEncryption(version(4))
            try lifecycle.setAutoRotatePeriod(86_400)
            try lifecycle.setDisableAfter(30 * 86_400)
            try lifecycle.setDestroyAfter(90 * 86_400)
        }
        return keyring
    }

    @Test func `a keyring opens as it was`() throws {
        let keyring = try keyring()
        let opened = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: PlainKeyService())
        #expect(opened.lifecycle == keyring.lifecycle)
        #expect(opened.storeID == keyring.storeID && opened.name == "prod" && opened.created == start)
        #expect(
            opened.slots == [SlotDescription(index: 0, kind: .keyfile, label: "keyfile")]
                && opened.keyServices == ["keyfile"])
        #expect(
            opened.lifecycle.versions.map(\.state)
                == [.compromised, .disabled, .destroyed, .decryptOnly, .primary].map {
                    $0 == .decryptOnly ? .enabled : $0
                })
        func subkey(_ keyring: UnlockedKeyring, _ label: StaticString) throws -> [UInt8] {
            try keyring.deriveKey(label).withKey { [UInt8]($0.bytes) }
        }
        #expect(try subkey(opened, "a") == subkey(keyring, "a"))
        #expect(try subkey(opened, "a") != subkey(keyring, "b"))
    }

    @Test func `without a key the configuration tells what it is`() throws {
        let keyring = try keyring()
        let summary = try keyring.configurationBytes.withUnsafeBytes { try KeyringSummary(configuration: $0) }
        #expect(summary.name == "prod" && summary.storeID == keyring.storeID && summary.created == start)
        #expect(summary.keyServices == ["keyfile"])
    }

    @Test func `another key opens nothing`() throws {
        let keyring = try keyring()
        #expect(throws: KeyringError.wrongSecret) {
            try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: PlainKeyService(8))
        }
        #expect(throws: KeyringError.noMatchingSlot(kinds: ["keyfile"])) {
            try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: try passphrase("x"))
        }
    }

    @Test func `the records of two keyrings do not mix`() throws {
        let (one, two) = (try keyring(), try keyring())
        #expect(throws: KeyringError.self) {
            try unlock(one.configurationBytes, two.lifecycleBytes(), with: PlainKeyService())
        }
    }

    @Test func `every truncation is refused`() throws {
        let keyring = try keyring()
        let (configuration, lifecycle) = (keyring.configurationBytes, keyring.lifecycleBytes())
        for count in 0..<configuration.count {
            #expect(throws: KeyringError.self) {
                try unlock(Array(configuration[..<count]), lifecycle, with: PlainKeyService())
            }
        }
        for count in 0..<lifecycle.count {
            #expect(throws: KeyringError.self) {
                try unlock(configuration, Array(lifecycle[..<count]), with: PlainKeyService())
            }
        }
        #expect(throws: KeyringError.self) { try unlock(configuration + [0], lifecycle, with: PlainKeyService()) }
        #expect(throws: KeyringError.self) { try unlock(configuration, lifecycle + [0], with: PlainKeyService()) }
    }

    @Test func `a flipped bit is damage, and never looks like a wrong key`() throws {
        let keyring = try keyring()
        let (configuration, lifecycle) = (keyring.configurationBytes, keyring.lifecycleBytes())
        for (index, bit) in bits(of: configuration) {
            var changed = configuration
            changed[index] ^= bit
            do {
                _ = try unlock(changed, lifecycle, with: PlainKeyService())
                Issue.record("byte \(index), bit \(bit) makes no difference")
            } catch let error as KeyringError {
                switch error {
                case .damaged, .notAKeyring, .newerFormat: break
                default: Issue.record("byte \(index), bit \(bit): \(error)")
                }
            }
        }
        for (index, bit) in bits(of: lifecycle) {
            var changed = lifecycle
            changed[index] ^= bit
            #expect(throws: KeyringError.damaged("the key lifecycle does not authenticate")) {
                try unlock(configuration, changed, with: PlainKeyService())
            }
        }
    }

    @Test func `a forged configuration with a right checksum is refused, too`() throws {
        let keyring = try keyring()
        let (configuration, lifecycle) = (keyring.configurationBytes, keyring.lifecycleBytes())
        let body = Array(configuration.dropLast(Configuration.checksumByteCount))
        for (index, bit) in bits(of: body) {
            var changed = body
            changed[index] ^= bit
            #expect(throws: KeyringError.self, "byte \(index), bit \(bit)") {
                try unlock(changed + checksum(changed), lifecycle, with: PlainKeyService())
            }
        }
    }

    @Test func `a hostile lifecycle in a right seal is refused or sound`() throws {
        let keyring = try keyring()
        let plaintext = keyring.coding.encode(
            keyring.lifecycle,
            Dictionary(uniqueKeysWithValues: try [1, 2, 4, 5].map { (version($0), try SecretKey.random()) }))
        func decode(_ bytes: [UInt8]) -> KeyLifecycle? {
            try? bytes.withUnsafeBytes { try keyring.coding.decode($0).0 }
        }
        #expect(decode(plaintext) == keyring.lifecycle)
        for (index, bit) in bits(of: plaintext) {
            var changed = plaintext
            changed[index] ^= bit
            if let lifecycle = decode(changed) { #expect(lifecycle.isConsistent, "byte \(index), bit \(bit)") }
        }
        for count in 0..<plaintext.count { #expect(decode(Array(plaintext[..<count])) == nil) }
        #expect(decode(plaintext + [0]) == nil)
        var random = Seeded(11)
        for _ in 0..<2000 {
            var changed = plaintext
            for _ in 0..<Int.random(in: 1...8, using: &random) {
                changed[Int.random(in: 0..<changed.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
            }
            if let lifecycle = decode(changed) { #expect(lifecycle.isConsistent, "seed 11") }
        }
    }

    @Test func `a thousand versions are stored and opened`() throws {
        let keyring = try UnlockedKeyring.create(name: "", service: PlainKeyService(), now: start)
        try keyring.change { lifecycle throws(LifecycleError) in
            for _ in 1..<1000 { try lifecycle.rotate(now: day(1)) }
        }
        let opened = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: PlainKeyService())
        #expect(opened.lifecycle == keyring.lifecycle && opened.lifecycle.latest == version(1000))
    }

    @Test func `there are at most 16 slots`() throws {
        var keyring = try keyring()
        let lifecycle = keyring.lifecycleBytes()
        for byte in 1..<16 {
            let more = try keyring.addingSlot(PlainKeyService(UInt8(100 + byte)))
            keyring = try unlock(more, lifecycle, with: PlainKeyService(UInt8(100 + byte)))
        }
        #expect(throws: KeyringError.noFreeSlot(limit: 16)) { try keyring.addingSlot(PlainKeyService(99)) }
    }

    private func bits(of bytes: [UInt8]) -> [(Int, UInt8)] {
        bytes.indices.flatMap { index in (0..<8).map { (index, 1 << $0) } }
    }

    private func checksum(_ bytes: [UInt8]) -> [UInt8] {
        var sum = [UInt8](repeating: 0, count: Configuration.checksumByteCount)
        sum.withUnsafeMutableBytes { sum in bytes.withUnsafeBytes { Checksum.blake2b($0, into: sum) } }
        return sum
    }
}
