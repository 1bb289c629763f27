public import Keyring
public import Sodium

/// OpenBao's or HashiCorp Vault's transit engine: a key that never leaves the service seals what seals a slot's key.
///
/// The service is told the context, so that with a derived key (`derived=true`) it binds it as well; what it seals is a key made for
/// the purpose, under which the slot's key is sealed here and bound here. A slot is `ciphertext length 2 | ciphertext |
/// slot's key 72`, its parameter `MOUNT/KEY`.
public final class VaultService: KeyService {
    public let kind = KeySlotKind.vault
    private let address: VaultAddress
    private let client: VaultClient

    /// - Parameter text: What stands behind `vault:`.
    /// - Throws: `.service(.misconfigured)`.
    public init(_ text: String, settings: VaultSettings = .ofEnvironment()) throws(KeyringError) {
        address = try VaultAddress(text, address: settings.address)
        client = VaultClient(address, settings)
    }

    /// Where its key is, for people and for telling keys apart.
    public var keyName: String { "vault:\(address.base)/\(address.name)" }

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
        return slot(ciphertext, LocalSlot.sealed(key, kind, parameters, context, wrapping))
    }

    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let (ciphertext, local) = try parts(of: slot)
        let body = try Self.request(ciphertext, context)
        let wrapping = try client.post("\(address.mount)/decrypt/\(address.key)", body) {
            (answer: JSONText) throws(KeyringError) -> SecretKey in
            guard let text = answer.string("data", "plaintext") else { throw client.malformed() }
            return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                guard Base64.decode(text, into: key) == SecretKey.byteCount else { throw client.malformed() }
                do { return try SecretKey(copying: UnsafeRawBufferPointer(key)) } catch { throw .cannotLock }
            }
        }
        return try LocalSlot.open(local, kind, slot.parameters, context, wrapping)
    }

    /// The slot under the newest version of the service's key, which does that by itself: no key comes here.
    public func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? {
        let (old, local) = try parts(of: slot)
        let body = try Self.request(old, context)
        let new = try client.post("\(address.mount)/rewrap/\(address.key)", body) {
            (answer: JSONText) throws(KeyringError) -> [UInt8] in try self.ciphertext(in: answer)
        }
        guard Self.version(new[...]) != Self.version(old) else { return nil }
        return self.slot(new, Array(local))
    }

    // MARK: Parts

    private static let localByteCount = 72
    private static let ciphertextLimit = 2048
    private static let requestLimit = 8192

    private static func request(_ ciphertext: ArraySlice<UInt8>, _ context: SlotContext) throws(KeyringError)
        -> SecretText
    {
        var body = try SecretText(limit: requestLimit)
        body.append("{\"ciphertext\":\"" + String(decoding: ciphertext, as: UTF8.self))
        appendContext(context, to: &body)
        return body
    }

    private func slot(_ ciphertext: [UInt8], _ local: [UInt8]) -> KeySlot {
        let count = UInt16(ciphertext.count)
        return KeySlot(
            kind: kind, parameters: parameters,
            sealedKey: [UInt8(truncatingIfNeeded: count), UInt8(truncatingIfNeeded: count >> 8)] + ciphertext + local)
    }

    private func parts(of slot: KeySlot) throws(KeyringError) -> (
        ciphertext: ArraySlice<UInt8>, local: ArraySlice<UInt8>
    ) {
        let sealed = slot.sealedKey
        guard sealed.count > 2 + Self.localByteCount,
            sealed.count == 2 + Int(sealed[0]) + Int(sealed[1]) << 8 + Self.localByteCount
        else { throw .damaged("a key slot is malformed") }
        let ciphertext = sealed[2..<sealed.count - Self.localByteCount]
        guard ciphertext.count <= Self.ciphertextLimit, Self.isCiphertext(ciphertext) else {
            throw .damaged("a key slot is malformed")
        }
        return (ciphertext, sealed[(sealed.count - Self.localByteCount)...])
    }

    private func ciphertext(in answer: JSONText) throws(KeyringError) -> [UInt8] {
        guard let text = answer.string("data", "ciphertext"), text.count <= Self.ciphertextLimit,
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

    private static func version(_ ciphertext: ArraySlice<UInt8>) -> [UInt8] {
        Array(ciphertext.dropFirst("vault:v".utf8.count).prefix { $0 != UInt8(ascii: ":") })
    }

    /// `length 8 | part` for what it is for, the store and the keyring.
    private static func appendContext(_ context: SlotContext, to body: inout SecretText) {
        var bytes: [UInt8] = []
        func append(_ part: [UInt8]) {
            withUnsafeBytes(of: UInt64(part.count).littleEndian) { bytes += $0 }
            bytes += part
        }
        append(Array("letterlock".utf8))
        append(Array(context.purpose.rawValue.utf8))
        context.store.withUnsafeBytes { append([UInt8]($0)) }
        append(Array(context.keyring.utf8))
        body.append("\",\"context\":\"")
        bytes.withUnsafeBytes { body.append(base64: $0) }
        body.append("\"}")
    }
}
