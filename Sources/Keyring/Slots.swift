internal import Sodium

/// One of the ways to open a keyring, as a listing shows it.
public struct SlotDescription: Sendable, Equatable {
    /// Its place, from 0.
    public let index: Int
    public let kind: KeySlotKind
    /// Its kind, and which of a service's keys.
    public let label: String
}

/// Further ways to open the keyring, and fewer. Each change is made aside and has to be stored to be one.
extension UnlockedKeyring {
    public var slots: [SlotDescription] { configuration.slotDescriptions }

    /// The slots that a service opens: their places.
    public func slots(openedBy service: any KeyService) throws(KeyringError) -> [Int] {
        var found: [Int] = []
        for (index, slot) in configuration.slots.enumerated() where service.opens(slot) {
            do throws(KeyringError) {
                _ = try configuration.rootKey(in: slot, with: service)
                found.append(index)
            } catch {
                guard error == .wrongSecret else { throw error }
            }
        }
        return found
    }

    /// The slots that are a service's own, whether or not they open: their places. Asks nobody.
    public func slots(of service: any KeyService) -> [Int] {
        configuration.slots.indices.filter { service.opens(configuration.slots[$0]) }
    }

    /// The configuration with a service's slots sealed by the newest version of its own key, to be stored in the place of the
    /// old one; nil if they are. The keys stay.
    public func renewingSlots(of service: any KeyService) throws(KeyringError) -> (configuration: [UInt8], count: Int)?
    {
        var changed = configuration
        var count = 0
        for index in slots(of: service) {
            let old = changed.slots[index]
            guard var renewed = try service.renewed(old, for: configuration.context(of: old)) else { continue }
            renewed.link = old.link
            let isSame = try configuration.rootKey(in: renewed, with: service).withKey { opened in
                let bytes = opened.bytes
                return rootKey.withKey { Memory.equal(bytes, $0.bytes) }
            }
            guard isSame else { throw .damaged("what the key service sealed opens to something else") }
            changed.slots[index] = renewed
            count += 1
        }
        return count == 0 ? nil : (try changed.encoded(authenticatedBy: rootKey), count)
    }

    /// The configuration with one more slot, to be stored in the place of the old one. The keys stay.
    ///
    /// - Throws: `.noFreeSlot` if there is no room; `.damaged` if the new slot would not open.
    public func addingSlot(_ service: any KeyService) throws(KeyringError) -> [UInt8] {
        guard configuration.slots.count < Configuration.slotLimit else {
            throw .noFreeSlot(limit: Configuration.slotLimit)
        }
        var changed = configuration
        changed.slots.append(try changed.slot(of: service, for: rootKey))
        return try changed.encoded(authenticatedBy: rootKey)
    }

    /// What is to become of a slot.
    public enum SlotChange: Sendable {
        case removed
        case replaced(by: any KeyService)
    }

    /// The keyring under a new root key, without the slot or with another in its place: what the old slot opened opens
    /// nothing that is sealed from now on. There is a new primary KEK version, and every KEK is sealed anew.
    ///
    /// - Parameter opener: What opened the keyring. Slots that format 1 has written cannot follow to the new root key by
    ///   themselves; this one's are made anew.
    /// - Throws: `.serviceUnavailable` if it is the last one, or if another is a slot of format 1.
    public func rekeyed(_ index: Int, _ change: SlotChange, opener: any KeyService, now: Timestamp) throws(KeyringError)
        -> UnlockedKeyring
    {
        guard configuration.slots.indices.contains(index) else {
            throw .serviceUnavailable("there is no key service \(index + 1)")
        }
        let newRoot = try Self.random()
        var changed = configuration
        let link = SlotLink(configuration)
        for (place, slot) in configuration.slots.enumerated() where place != index {
            if slot.link.isEmpty {
                guard opener.opens(slot), (try? configuration.rootKey(in: slot, with: opener)) != nil else {
                    throw .serviceUnavailable(
                        "key service \(place + 1) (\(slot.label)) was added by an earlier version and cannot follow: "
                            + "open the keyring with it, or remove it first")
                }
                changed.slots[place] = try changed.slot(of: opener, for: newRoot)
            } else {
                changed.slots[place].link = try link.renewed(slot.link, from: rootKey, to: newRoot)
            }
        }
        switch change {
        case .removed:
            guard configuration.slots.count > 1 else {
                throw .serviceUnavailable("the last key service of a keyring cannot be removed")
            }
            changed.slots.remove(at: index)
        case .replaced(let service): changed.slots[index] = try changed.slot(of: service, for: newRoot)
        }
        let prepared = try prepare { lifecycle throws(LifecycleError) in _ = try lifecycle.rotate(now: now) }
        return try UnlockedKeyring(changed, changed.encoded(authenticatedBy: newRoot), newRoot, prepared.state)
    }

    /// The keyring as the beginning of another history of the same store: what a restore makes of a backup.
    public func branched() throws(KeyringError) -> [UInt8] {
        var changed = configuration
        changed.lineage = .random()
        return try changed.encoded(authenticatedBy: rootKey)
    }
}

extension Configuration {
    var slotDescriptions: [SlotDescription] {
        slots.enumerated().map { SlotDescription(index: $0.offset, kind: $0.element.kind, label: $0.element.label) }
    }

    /// A new slot that has been seen to open, where that can be seen here.
    func slot(of service: any KeyService, for rootKey: SecretKey) throws(KeyringError) -> KeySlot {
        let slotKey = try UnlockedKeyring.random()
        var slot = try service.seal(slotKey, for: SlotContext(store: storeID, keyring: name, purpose: .slotKey))
        slot.link = try SlotLink(self).make(slotKey, to: rootKey)
        guard slot.parameters.count <= KeySlot.parametersLimit, slot.sealedKey.count <= KeySlot.sealedLimit else {
            throw .damaged("what the key service sealed is too long")
        }
        // A passphrase takes its time, and it is this very process that has it.
        guard slot.kind != .passphrase, service.canUnseal else { return slot }
        let opened = try self.rootKey(in: slot, with: service)
        let isSame = opened.withKey { opened in
            let bytes = opened.bytes
            return rootKey.withKey { Memory.equal(bytes, $0.bytes) }
        }
        guard isSame else { throw .damaged("what the key service sealed opens to something else") }
        return slot
    }

    /// The root key, by way of one slot.
    ///
    /// - Throws: `.wrongSecret` if it does not open with what the service holds.
    func rootKey(in slot: KeySlot, with service: any KeyService) throws(KeyringError) -> SecretKey {
        let key = try service.unseal(slot, for: context(of: slot))
        return slot.link.isEmpty ? key : try SlotLink(self).open(slot.link, with: key)
    }
}
