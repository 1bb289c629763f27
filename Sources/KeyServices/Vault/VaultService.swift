public import Keyring
public import Sodium

/// OpenBao's or HashiCorp Vault's transit engine: a key that never leaves the service seals what seals a slot's key.
///
/// The service is told the context, so that with a derived key (`derived=true`) it binds it as well; what it seals is a key made for
/// the purpose, under which the slot's key is sealed here and bound here. A slot is `ciphertext length 2 | ciphertext |
/// slot's key 72`, its parameter `MOUNT/KEY`.
public final class VaultService: RemoteKeyService {
    public let kind = KeySlotKind.vault
    private let address: VaultAddress
    private let client: VaultClient

    /// - Parameter text: What stands behind `vault:`.
    /// - Throws: `.service(.malformedAddress)`, or `.misconfigured` if nothing says where it is.
    public init(_ text: String, settings: VaultSettings = .ofEnvironment()) throws(KeyringError) {
        address = try VaultAddress(text, address: settings.address)
        client = VaultClient(address, settings)
    }

    public func keyName() -> String? { "vault:\(address.base)/\(address.name)" }

    private var parameters: [UInt8] { Array(address.name.utf8) }

    /// By the name of its key, wherever the service was reached when the slot was made.
    public func opens(_ slot: KeySlot) -> Bool { slot.kind == kind && slot.parameters == parameters }

    public func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let wrapping: SecretKey
        do { wrapping = try SecretKey.random() } catch { throw .cannotLock }
        var body = try SecretText(limit: Self.requestLimit)
        body.append("{\"plaintext\":\"")
        wrapping.withKey { body.append(base64: $0.bytes) }
        Self.appendContext(context, to: &body)
        let ciphertext = try client.post("\(address.mount)/encrypt/\(address.key)", body) {
            (answer: JSONText) throws(KeyringError) -> [UInt8] in try self.ciphertext(in: answer)
        }
        return slot(RemoteSlot(ciphertext, LocalSlot.sealed(key, kind, parameters, context, wrapping)))
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let parts = try parts(of: slot)
        let body = try Self.request(parts.ciphertext, context)
        let wrapping = try client.post("\(address.mount)/decrypt/\(address.key)", body) {
            (answer: JSONText) throws(KeyringError) -> SecretKey in
            guard let text = answer.string("data", "plaintext") else { throw client.malformed() }
            return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                guard Base64.decode(text, into: key) == SecretKey.byteCount else { throw client.malformed() }
                do { return try SecretKey(copying: UnsafeRawBufferPointer(key)) } catch { throw .cannotLock }
            }
        }
        return try LocalSlot.open(parts.local[...], kind, slot.parameters, context, wrapping)
    }

    /// The slot under the newest version of the service's key, which does that by itself: no key comes here.
    public func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? {
        let old = try parts(of: slot)
        let body = try Self.request(old.ciphertext, context)
        let new = try client.post("\(address.mount)/rewrap/\(address.key)", body) {
            (answer: JSONText) throws(KeyringError) -> [UInt8] in try self.ciphertext(in: answer)
        }
        guard Self.version(new) != Self.version(old.ciphertext) else { return nil }
        return self.slot(RemoteSlot(new, old.local))
    }

    // MARK: Parts

    private static let requestLimit = 8192

    private static func request(_ ciphertext: [UInt8], _ context: SlotContext) throws(KeyringError)
        -> SecretText
    {
        var body = try SecretText(limit: requestLimit)
        body.append("{\"ciphertext\":\"" + String(decoding: ciphertext, as: UTF8.self))
        appendContext(context, to: &body)
        return body
    }

    private func slot(_ parts: RemoteSlot) -> KeySlot {
        KeySlot(kind: kind, parameters: parameters, sealedKey: parts.bytes)
    }

    private func parts(of slot: KeySlot) throws(KeyringError) -> RemoteSlot {
        let parts = try RemoteSlot(slot)
        guard Self.isCiphertext(parts.ciphertext) else { throw .damaged("a key slot is malformed") }
        return parts
    }

    private func ciphertext(in answer: JSONText) throws(KeyringError) -> [UInt8] {
        guard let text = answer.string("data", "ciphertext"), text.count <= RemoteSlot.ciphertextLimit,
            Self.isCiphertext(text)
        else { throw client.malformed() }
        return [UInt8](text)
    }

    /// `vault:v1:` and base64: nothing that means anything between quotes.
    private static func isCiphertext(_ text: some Collection<UInt8>) -> Bool {
        text.starts(with: "vault:v".utf8)
            && text.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "+"), UInt8(ascii: "/"), UInt8(ascii: "="),
                    UInt8(ascii: ":"):
                    true
                default: false
                }
            }
    }

    private static func version(_ ciphertext: [UInt8]) -> [UInt8] {
        Array(ciphertext.dropFirst("vault:v".utf8.count).prefix { $0 != UInt8(ascii: ":") })
    }

    private static func appendContext(_ context: SlotContext, to body: inout SecretText) {
        body.append("\",\"context\":\"")
        context.bytes.withUnsafeBytes { body.append(base64: $0) }
        body.append("\"}")
    }
}
