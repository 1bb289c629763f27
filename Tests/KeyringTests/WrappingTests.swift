import Sodium
import Testing

@testable import Keyring

@Suite struct WrappingTests {
    private let dek = (0..<32).map { UInt8($0 * 3) }
    private let context = [UInt8]("content 12".utf8)

    private func keyring() throws -> UnlockedKeyring {
        try UnlockedKeyring.create(name: "test", service: PlainKeyService(), now: start)
    }

    @Test func `what is wrapped unwraps`() throws {
        let keyring = try keyring()
        let (wrapped, version) = try keyring.wrapped(dek, context: context)
        #expect(version == keyring.lifecycle.primary)
        #expect(try keyring.unwrapped(wrapped, version, context: context) == dek)
        #expect(try keyring.wrapped(dek, context: context).bytes != wrapped)
    }

    @Test func `a flipped bit anywhere does not authenticate`() throws {
        let keyring = try keyring()
        let (wrapped, version) = try keyring.wrapped(dek, context: context)
        for index in wrapped.indices {
            for bit in 0..<8 {
                var changed = wrapped
                changed[index] ^= 1 << bit
                #expect(throws: KeyringError.doesNotAuthenticate) {
                    try keyring.unwrapped(changed, version, context: context)
                }
            }
        }
    }

    @Test func `a wrap is bound to its store, its version and its context`() throws {
        let keyring = try keyring()
        try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.rotate(now: day(1)) }
        let (wrapped, two) = try keyring.wrapped(dek, context: context)
        #expect(throws: KeyringError.doesNotAuthenticate) {
            try keyring.unwrapped(wrapped, version(1), context: context)
        }
        #expect(throws: KeyringError.doesNotAuthenticate) { try keyring.unwrapped(wrapped, two, context: []) }
        #expect(throws: KeyringError.doesNotAuthenticate) {
            try keyring.unwrapped(wrapped, two, context: context + [0])
        }
        let other = try self.keyring()
        try other.change { lifecycle throws(LifecycleError) in try lifecycle.rotate(now: day(1)) }
        #expect(throws: KeyringError.doesNotAuthenticate) { try other.unwrapped(wrapped, two, context: context) }
    }

    @Test func `a wrap without the right commitment is refused though it is sealed well`() throws {
        let keyring = try keyring()
        let (wrapped, version) = try keyring.wrapped(dek, context: context)
        let (other, _) = try keyring.wrapped(dek.reversed(), context: context)
        let mixed = Array(wrapped[..<72] + other[72...])
        #expect(throws: KeyringError.doesNotAuthenticate) {
            try keyring.unwrapped(mixed, version, context: context)
        }
    }

    @Test func `each state unwraps or refuses as the table says`() throws {
        let keyring = try keyring()
        let (wrapped, one) = try keyring.wrapped(dek)
        try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.rotate(now: day(1)) }
        #expect(try keyring.unwrapped(wrapped, one) == dek)
        #expect(keyring.isEverythingReadable)

        func expect(_ error: KeyringError, reencryption: KeyringError?) throws {
            #expect(!keyring.isEverythingReadable)
            #expect(throws: error) { try keyring.check(one) }
            #expect(throws: error) { try keyring.unwrapped(wrapped, one) }
            if let reencryption {
                #expect(throws: reencryption) { try keyring.unwrapped(wrapped, one, forReencryption: true) }
            } else {
                #expect(try keyring.unwrapped(wrapped, one, forReencryption: true) == dek)
            }
        }
        try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.disable(one, now: day(2)) }
        try expect(.revoked(.disabled), reencryption: .revoked(.disabled))
        try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.enable(one, now: day(2)) }
        #expect(keyring.isEverythingReadable)
        #expect(try keyring.unwrapped(wrapped, one) == dek)
        try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.setMinDecryption(version(2)) }
        try expect(.expired, reencryption: .expired)
        try keyring.change { lifecycle throws(LifecycleError) in
            try lifecycle.compromise(one, reason: "lost", now: day(2))
        }
        try expect(.revoked(.compromised), reencryption: nil)
        try keyring.change { lifecycle throws(LifecycleError) in
            lifecycle.setDeletionAllowed(true)
            try lifecycle.scheduleDestruction(of: one, days: 7, force: true, files: 1, now: day(3))
        }
        try expect(.revoked(.pendingDestruction), reencryption: .revoked(.pendingDestruction))
        try keyring.change { lifecycle throws(LifecycleError) in lifecycle.destroyDue(now: day(10)) }
        try expect(.destroyed, reencryption: .destroyed)
        #expect(throws: KeyringError.noSuchVersion) { try keyring.unwrapped(wrapped, version(3)) }
    }

    @Test func `a prepared change has no effect before it is committed`() throws {
        let keyring = try keyring()
        let before = keyring.lifecycle
        let prepared = try keyring.prepare { lifecycle throws(LifecycleError) in try lifecycle.rotate(now: day(1)) }
        #expect(keyring.lifecycle == before)
        #expect(try keyring.wrapped(dek).version == version(1))
        // What was prepared and stored, but not taken into effect before a crash, is what the next one reads.
        let next = try unlock(keyring.configurationBytes, prepared.lifecycleBytes, with: PlainKeyService())
        #expect(next.lifecycle.latest == version(2))
        keyring.commit(prepared)
        let (wrapped, two) = try keyring.wrapped(dek)
        #expect(two == version(2))
        #expect(try next.unwrapped(wrapped, two) == dek)
    }

    @Test func `a refused change changes nothing`() throws {
        let keyring = try keyring()
        #expect(throws: KeyringError.lifecycle(.isPrimary)) {
            try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.disable(version(1), now: day(1)) }
        }
        #expect(keyring.lifecycle == KeyLifecycle(now: start))
    }

    @Test func `a destroyed version's key is stored no more`() throws {
        let keyring = try keyring()
        let (wrapped, one) = try keyring.wrapped(dek)
        try keyring.change { lifecycle throws(LifecycleError) in
            try lifecycle.rotate(now: day(1))
            lifecycle.setDeletionAllowed(true)
            try lifecycle.scheduleDestruction(of: one, days: 7, force: false, files: 0, now: day(1))
        }
        let before = keyring.lifecycleBytes()
        try keyring.change { lifecycle throws(LifecycleError) in lifecycle.destroyDue(now: day(8)) }
        #expect(keyring.lifecycleBytes().count == before.count - SealedKey.byteCount)
        let opened = try unlock(keyring.configurationBytes, keyring.lifecycleBytes(), with: PlainKeyService())
        #expect(opened.lifecycle == keyring.lifecycle)
        #expect(throws: KeyringError.destroyed) { try opened.unwrapped(wrapped, one) }
    }

    @Test func `readers and a changer get along`() async throws {
        let keyring = try keyring()
        let (wrapped, one) = try keyring.wrapped(dek)
        let dek = dek
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<3 {
                group.addTask {
                    for _ in 0..<2000 {
                        do {
                            let opened = try keyring.unwrapped(wrapped, one)
                            #expect(opened == dek)
                        } catch KeyringError.revoked(.disabled) {}
                    }
                }
            }
            group.addTask {
                for _ in 0..<50 {
                    try keyring.change { lifecycle throws(LifecycleError) in
                        try lifecycle.rotate(now: day(1))
                        try lifecycle.disable(one, now: day(1))
                    }
                    try keyring.change { lifecycle throws(LifecycleError) in try lifecycle.enable(one, now: day(2)) }
                }
            }
            try await group.waitForAll()
        }
        #expect(keyring.lifecycle.latest == version(51))
    }
}
