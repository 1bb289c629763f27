/// One of the ways to open a keyring, as a listing shows it.
public struct SlotDescription: Sendable, Equatable {
    /// Its place: what `removingSlot` takes.
    public let index: Int
    public let kind: KeySlotKind
}

/// Further ways to open the keyring, and fewer. The keys stay; to change a passphrase is to add one and remove one.
extension UnlockedKeyring {
    public var slots: [SlotDescription] {
        configuration.slots.enumerated().map { SlotDescription(index: $0.offset, kind: $0.element.kind) }
    }

    /// The configuration with one more slot, to be stored in the place of the old one. This value stays as it is.
    public func addingSlot(_ service: any KeyService) throws(KeyringError) -> [UInt8] {
        guard configuration.slots.count < Configuration.slotLimit else {
            throw .serviceUnavailable("a keyring has at most \(Configuration.slotLimit) key services")
        }
        var changed = configuration
        changed.slots.append(try service.seal(rootKey, for: configuration.context))
        return try changed.encoded(authenticatedBy: rootKey)
    }

    /// The configuration without a slot, to be stored in the place of the old one. This value stays as it is.
    public func removingSlot(_ index: Int) throws(KeyringError) -> [UInt8] {
        guard configuration.slots.indices.contains(index) else {
            throw .serviceUnavailable("there is no key service \(index)")
        }
        guard configuration.slots.count > 1 else {
            throw .serviceUnavailable("the last key service of a keyring cannot be removed")
        }
        var changed = configuration
        changed.slots.remove(at: index)
        return try changed.encoded(authenticatedBy: rootKey)
    }
}
