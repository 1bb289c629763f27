import Sodium
import Testing

@testable import Keyring

/// Several services that open one keyring, and what becomes of one that does no more.
@Suite struct SlotTests {
    private let first = PlainKeyService(1)
    private let second = PlainKeyService(2)
    private let third = PlainKeyService(3)

    private func keyring() throws -> UnlockedKeyring {
        try UnlockedKeyring.create(name: "prod", service: first, now: start)
    }

    private func adding(_ service: any KeyService, to keyring: UnlockedKeyring) throws -> UnlockedKeyring {
        try unlock(try keyring.addingSlot(service), keyring.lifecycleBytes(), with: service)
    }

    private func opens(_ keyring: UnlockedKeyring, _ service: any KeyService) throws -> Bool {
        do {
            _ = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: service)
            return true
        } catch KeyringError.wrongSecret {
            return false
        } catch KeyringError.noMatchingSlot {
            return false
        }
    }

    @Test func `several key services open one keyring`() throws {
        let one = try keyring()
        let two = try adding(try passphrase("open sesame"), to: one)
        #expect(two.slots.map(\.kind) == [.keyfile, .passphrase] && two.lifecycle == one.lifecycle)
        #expect(two.keyServices == ["keyfile", "passphrase"])
        let opens = [try opens(two, first), try opens(two, try passphrase("open sesame")), try opens(two, second)]
        #expect(opens == [true, true, false])
        #expect(try two.slots(openedBy: first) == [0] && two.slots(openedBy: second) == [])
        // The keys are the same: nothing had to be written anew but the configuration.
        let (dek, context) = ([UInt8](repeating: 3, count: 32), Array("c".utf8))
        let wrapped = try one.wrapped(dek, context: context)
        #expect(try two.unwrapped(wrapped.bytes, wrapped.version, context: context) == dek)
    }

    @Test func `a removed one opens nothing any more, and the others follow without being asked`() throws {
        let keyring = try adding(try passphrase("open sesame"), to: adding(third, to: adding(second, to: keyring())))
        let wrapped = try keyring.wrapped([UInt8](repeating: 3, count: 32))
        let less = try keyring.rekeyed(1, .removed, opener: first, now: day(1))
        #expect(less.slots.map(\.index) == [0, 1, 2] && less.keyServices == ["keyfile", "keyfile", "passphrase"])
        let opens = [try opens(less, first), try opens(less, second), try opens(less, third)]
        #expect(opens == [true, false, true])
        #expect(try self.opens(less, try passphrase("open sesame")))
        // What was wrapped stays readable; what comes is under a version that nobody had before.
        #expect(try less.unwrapped(wrapped.bytes, wrapped.version).count == 32)
        #expect(less.lifecycle.primary == version(2) && less.lifecycle[version(1)]?.state == .enabled)
        #expect(keyring.lifecycle.primary == version(1))
        // An old copy of the configuration goes with the old lifecycle and with no newer one.
        #expect(try self.opens(keyring, second))
        #expect(throws: KeyringError.damaged("the key lifecycle does not authenticate")) {
            try unlock(keyring.configurationBytes, less.lifecycleBytes(), with: second)
        }
    }

    @Test func `the old root key is no way to the new one`() throws {
        let keyring = try adding(second, to: keyring())
        let less = try keyring.rekeyed(1, .removed, opener: first, now: day(1))
        let link = SlotLink(less.configuration)
        #expect(throws: KeyringError.damaged("a key slot does not authenticate")) {
            try link.renewed(less.configuration.slots[0].link, from: keyring.rootKey, to: keyring.rootKey)
        }
        // Nor does the old link, put in the place of the new one, lead anywhere but to the old key.
        var spliced = less.configuration
        spliced.slots[0].link = keyring.configuration.slots[0].link
        let bytes = try spliced.encoded(authenticatedBy: keyring.rootKey)
        #expect(throws: KeyringError.damaged("the key lifecycle does not authenticate")) {
            try unlock(bytes, less.lifecycleBytes(), with: first)
        }
    }

    @Test func `nobody puts a keyring of his own behind another's key`() throws {
        let keyring = try keyring()
        let own = try SecretKey.random()
        var forged = keyring.configuration
        // All that stands in the open: the slot's public key, and what its service sealed.
        let publicKey = forged.slots[0].link[..<32]
        forged.slots[0].link = try SlotLink(forged).make(try SecretKey.random(), to: own)
        for isSpliced in [false, true] {
            if isSpliced { forged.slots[0].link.replaceSubrange(..<32, with: publicKey) }
            let bytes = try forged.encoded(authenticatedBy: own)
            #expect(throws: KeyringError.damaged("a key slot does not authenticate")) {
                try unlock(bytes, keyring.lifecycleBytes(), with: first)
            }
        }
    }

    @Test func `a changed one opens in the place of the old`() throws {
        let keyring = try adding(second, to: keyring())
        let changed = try keyring.rekeyed(0, .replaced(by: third), opener: second, now: day(1))
        let opens = [try opens(changed, first), try opens(changed, second), try opens(changed, third)]
        #expect(opens == [false, true, true] && changed.slots.count == 2)
        #expect(changed.storeID == keyring.storeID && changed.created == start)
    }

    @Test func `the last one stays, and what is not there is not removed`() throws {
        let keyring = try keyring()
        #expect(throws: KeyringError.self) { try keyring.rekeyed(0, .removed, opener: first, now: day(1)) }
        #expect(throws: KeyringError.self) { try keyring.rekeyed(1, .removed, opener: first, now: day(1)) }
        // It can be changed, though.
        let changed = try keyring.rekeyed(0, .replaced(by: second), opener: first, now: day(1))
        #expect(try opens(changed, second))
    }

    @Test func `another history is told from the first`() throws {
        let keyring = try keyring()
        let branch = try unlock(keyring.branched(), keyring.lifecycleBytes(), with: first)
        let other = try unlock(keyring.branched(), keyring.lifecycleBytes(), with: first)
        #expect(keyring.lineage == nil && branch.lineage != nil && branch.lineage != other.lineage)
        #expect(branch.storeID == keyring.storeID)
    }

    // MARK: Recovery phrases

    /// What stands for the bytes 0 to 19.
    private func phrase() -> String {
        var text = [UInt8](repeating: 0, count: RecoveryPhrase.characterCount)
        let secret = (0..<20).map { UInt8($0) }
        text.withUnsafeMutableBytes { text in secret.withUnsafeBytes { RecoveryPhrase.write($0, into: text) } }
        return String(decoding: text, as: UTF8.self)
    }

    private func read(_ text: String) -> [UInt8]? {
        var secret = [UInt8](repeating: 0, count: 20)
        let isRead = secret.withUnsafeMutableBytes { secret in
            Array(text.utf8).withUnsafeBytes { RecoveryPhrase.read($0, into: secret) }
        }
        return isRead ? secret : nil
    }

    @Test func `a recovery phrase is read as it is written, or typed`() {
        let phrase = phrase()
        #expect(phrase.hasPrefix("000G-40R4-") && phrase.count == 44)
        let secret = (0..<20).map { UInt8($0) }
        for typed in [
            phrase, phrase.lowercased(), phrase.filter { $0 != "-" }, " " + phrase.replacing("-", with: " ") + "\n",
            phrase.replacing("0", with: "O").replacing("1", with: "l"), phrase.replacing("1", with: "I"),
        ] {
            #expect(read(typed) == secret, "\(typed)")
        }
    }

    @Test func `a wrong character, an exchange, one too few or too many are noticed`() {
        let phrase = Array(phrase().filter { $0 != "-" })
        for index in phrase.indices {
            for symbol in "0123456789ABCDEFGHJKMNPQRSTVWXYZU!é" where symbol != phrase[index] {
                var typed = phrase
                typed[index] = symbol
                #expect(read(String(typed)) == nil, "\(index) \(symbol)")
            }
            var typed = phrase
            typed.remove(at: index)
            #expect(read(String(typed)) == nil)
            if index + 1 < phrase.count, phrase[index] != phrase[index + 1] {
                typed = phrase
                typed.swapAt(index, index + 1)
                #expect(read(String(typed)) == nil, "\(index)")
            }
        }
        #expect(read(String(phrase) + "0") == nil && read("") == nil)
    }

    @Test func `a recovery phrase opens, and another does not`() throws {
        let phrase = try RecoveryPhrase.make()
        func copy() throws -> RecoveryService {
            var secret = try SecretBytes(byteCount: phrase.byteCount)
            phrase.withUnsafeBytes { phrase in secret.withUnsafeMutableBytes { $0.copyMemory(from: phrase) } }
            return RecoveryService(phrase: secret)
        }
        let keyring = try UnlockedKeyring.create(name: "prod", service: first, recovery: [copy()], now: start)
        #expect(keyring.keyServices == ["keyfile", "recovery"])
        #expect(try opens(keyring, try copy()) && opens(keyring, first))
        #expect(try !opens(keyring, RecoveryService(phrase: RecoveryPhrase.make())))
        var short = try SecretBytes(byteCount: 4)
        short.withUnsafeMutableBytes { $0.copyBytes(from: "ABCD".utf8) }
        let malformed = RecoveryService(phrase: short)
        #expect(throws: KeyringError.self) { try opens(keyring, malformed) }
    }
}
