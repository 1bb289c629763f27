import Keyring
import Sodium
import Testing

/// What every key service has to do, each against the real one.
@Suite("Key services", .enabled(if: !Mounted.isPlain))
struct ConformanceTests {
    private let store = StoreID.random()

    private func context(_ keyring: String = "k", _ purpose: SlotContext.Purpose = .slotKey) -> SlotContext {
        SlotContext(store: store, keyring: keyring, purpose: purpose)
    }

    @Test(arguments: House.allCases)
    func conforms(_ house: House) throws {
        guard house.isInstalled else {
            let missing = House.allCases.filter { !$0.isInstalled }.count
            let words: Comment =
                "\(house) is not installed, and \(missing) key services are not tested: run .ci/install-packages test"
            return withKnownIssue(words) {
                Issue.record(words)
            } when: {
                !TestTools.mustBeThere
            }
        }
        let work = try Workspace()
        let place = try house.open(work)
        let key = try SecretKey.random()
        let service = try place.service()
        let slot = try service.seal(key, for: context())
        #expect(slot.kind == service.kind && service.opens(slot))
        #expect(slot.parameters.count <= 1024 && slot.sealedKey.count <= 4096)
        #expect(try same(service.unseal(slot, for: context()), key))
        // Another slot of the same key is not the same.
        #expect(try service.seal(key, for: context()) != slot)

        try opensInItsContextAlone(service, slot)
        let other = try place.otherService()
        #expect(!other.opens(slot) || refuses(other, slot) == .wrongSecret)
        if place.sealsForReal {
            try opensUnchangedAlone(service, slot)
            try outlivesARotation(place, service, slot, key)
        }
        if try place.disableKey() {
            #expect(reason(service, slot) == .keyDisabled)
            try place.enableKey()
            #expect(try same(service.unseal(slot, for: context()), key))
        }
        if let stranger = try place.strangersService() { #expect(reason(stranger, slot) == .denied) }
        if let absent = try place.absentService() { #expect(reason(absent, slot) == .unreachable) }
        let port = try SilentPort(andNext: true)
        let silent = try place.silentService(port)
        withExtendedLifetime(port) { if let silent { #expect(reason(silent, slot) == .timedOut) } }
    }

    /// A library that hangs holds up nobody for ever, and works again as soon as it returns.
    @Test(arguments: [House.softHSM, .softTPM]) func aLibraryThatReturnsLateIsUsedAgain(house: House) throws {
        let work = try Workspace()
        let place = try house.open(work)
        let service = try place.service()
        let key = try SecretKey.random()
        let slot = try service.seal(key, for: context())
        do {
            let port = try SilentPort(andNext: true)
            let silent = try #require(try place.silentService(port))
            withExtendedLifetime(port) {
                #expect(reason(silent, slot) == .timedOut)
                // It keeps its turn, for others as well.
                #expect(reason(service, slot) == .timedOut)
            }
        }
        // The port is closed, and the call returns.
        #expect(eventually { (try? same(service.unseal(slot, for: context()), key)) == true })
    }

    private func opensInItsContextAlone(_ service: any KeyService, _ slot: KeySlot) throws {
        let others = [
            SlotContext(store: .random(), keyring: "k", purpose: .slotKey), context("l"), context("k", .backup),
        ]
        for other in others {
            #expect(throws: KeyringError.wrongSecret) { try service.unseal(slot, for: other) }
        }
    }

    /// Each byte of it counts, and what is too short or too long is seen before anybody is asked.
    private func opensUnchangedAlone(_ service: any KeyService, _ slot: KeySlot) throws {
        let count = slot.sealedKey.count
        for index in [0, 2, count / 3, count - 72, count - 40, count - 1] where index < count {
            var changed = slot
            changed.sealedKey[index] ^= 1
            #expect(throws: KeyringError.self, "byte \(index)") { try service.unseal(changed, for: context()) }
        }
        for length in [0, 1, 71, count - 1, count + 1] where length != count {
            var cut = slot
            cut.sealedKey = Array((cut.sealedKey + [0]).prefix(length))
            #expect(throws: KeyringError.damaged("a key slot is malformed"), "\(length) bytes") {
                try service.unseal(cut, for: context())
            }
        }
    }

    private func outlivesARotation(
        _ place: any ServiceHouse, _ service: any KeyService, _ slot: KeySlot, _ key: SecretKey
    ) throws {
        guard try place.rotateKey() else {
            #expect(try service.renewed(slot, for: context()) == nil)
            return
        }
        #expect(try same(service.unseal(slot, for: context()), key))
        let renewed = try #require(try service.renewed(slot, for: context()))
        #expect(renewed != slot && renewed.parameters == slot.parameters)
        #expect(try same(service.unseal(renewed, for: context()), key))
        for other in [context("l"), context("k", .backup)] {
            #expect(throws: KeyringError.self) { try service.renewed(slot, for: other) }
        }
    }

    private func refuses(_ service: any KeyService, _ slot: KeySlot) -> KeyringError? {
        do throws(KeyringError) {
            _ = try service.unseal(slot, for: context())
            return nil
        } catch { return error }
    }

    private func reason(_ service: any KeyService, _ slot: KeySlot) -> KeyServiceFault.Reason? {
        if case .service(let fault)? = refuses(service, slot) { fault.reason } else { nil }
    }

    private func same(_ a: SecretKey, _ b: SecretKey) -> Bool {
        a.withKey { a in
            let bytes = a.bytes
            return b.withKey { Memory.equal(bytes, $0.bytes) }
        }
    }
}
