public import Sodium

/// A key as a service sealed it.
public struct WrappedKey: Sendable, Equatable {
    /// Names the service's key, for people and for finding the slot again: UTF-8 without secrets, at most 1 KiB.
    public var name: String
    /// What the service gave, to be handed back to it. At most 3.5 KiB.
    public var bytes: [UInt8]

    public init(name: String, bytes: [UInt8]) {
        self.name = name
        self.bytes = bytes
    }
}

/// A key service that keeps its key to itself, and opens what it sealed.
///
/// It seals a slot key, made for that one slot, and the slot key seals the root key here. So the root key leaves the
/// machine in no form, the context is bound even where a service cannot, and a service's new key version concerns
/// only what it sealed. The slot: parameters are the wrapped key's name, and
/// `wrapped length 2 | wrapped key | nonce 24 | tag 16 | ciphertext 32` is what is sealed.
public protocol WrappingService: KeyService {
    /// A new key of 32 random bytes, and the same sealed for the context.
    func makeKey(for context: SlotContext) throws(KeyringError) -> (key: SecretKey, wrapped: WrappedKey)

    /// - Throws: `.wrongSecret` if it is not the key or not the context that it was sealed with.
    func unwrap(_ wrapped: WrappedKey, for context: SlotContext) throws(KeyringError) -> SecretKey

    /// The same key, sealed by the newest version of the service's key; nil if it is.
    func rewrap(_ wrapped: WrappedKey, for context: SlotContext) throws(KeyringError) -> WrappedKey?
}

extension WrappingService {
    public func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let (slotKey, wrapped) = try makeKey(for: context)
        let parameters = Array(wrapped.name.utf8)
        return try SlotBody(wrapped: wrapped, local: LocalSlot.sealed(key, kind, parameters, context, slotKey)[...])
            .slot(kind)
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let body = try SlotBody(slot)
        let slotKey = try unwrap(body.wrapped, for: context)
        return try LocalSlot.open(body.local, slot.kind, slot.parameters, context, slotKey)
    }

    public func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? {
        var body = try SlotBody(slot)
        guard let wrapped = try rewrap(body.wrapped, for: context) else { return nil }
        // The name is bound into what the slot key sealed; a new version of a key has its name.
        body.wrapped.bytes = wrapped.bytes
        return try body.slot(kind)
    }

    public func rewrap(_ wrapped: WrappedKey, for context: SlotContext) throws(KeyringError) -> WrappedKey? { nil }
}

/// The parts of a slot whose key a service sealed.
private struct SlotBody {
    var wrapped: WrappedKey
    let local: ArraySlice<UInt8>

    init(wrapped: WrappedKey, local: ArraySlice<UInt8>) {
        self.wrapped = wrapped
        self.local = local
    }

    /// Takes apart what may be anything.
    init(_ slot: KeySlot) throws(KeyringError) {
        let sealed = slot.sealedRootKey
        guard sealed.count >= 2, let name = String(validating: slot.parameters, as: UTF8.self) else {
            throw .damaged("a key slot is malformed")
        }
        let count = Int(sealed[0]) | Int(sealed[1]) << 8
        guard sealed.count == 2 + count + SealedKey.byteCount else { throw .damaged("a key slot is malformed") }
        wrapped = WrappedKey(name: name, bytes: Array(sealed[2..<2 + count]))
        local = sealed[(2 + count)...]
    }

    func slot(_ kind: KeySlotKind) throws(KeyringError) -> KeySlot {
        let parameters = Array(wrapped.name.utf8)
        var writer = ByteWriter()
        guard parameters.count <= KeySlot.parametersLimit,
            2 + wrapped.bytes.count + local.count <= KeySlot.sealedLimit
        else { throw .serviceUnavailable("the key service's answer is too long to be kept") }
        writer.putCounted(wrapped.bytes)
        writer.put(Array(local))
        return KeySlot(kind: kind, parameters: parameters, sealedRootKey: writer.bytes)
    }
}
