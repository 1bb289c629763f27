public import Keyring
public import Sodium

/// AWS KMS: a key that never leaves the service seals what seals a slot's key.
///
/// What is sealed there is a key made for the purpose, bound there to an encryption context of three names (what it is for, the
/// store, the keyring), which CloudTrail shows and policies can ask for; under it the slot's key is sealed and bound here. A
/// slot is `ciphertext length 2 | ciphertext | slot's key 72`, its parameter the ARN of the key that did it.
public final class KMSService: RemoteKeyService {
    public let kind = KeySlotKind.awskms
    private let client: KMSClient

    /// - Parameter text: What stands behind `awskms:`.
    /// - Throws: `.service(.malformedAddress)`.
    public init(_ text: String, settings: AWSSettings = .ofEnvironment()) throws(KeyringError) {
        client = KMSClient(settings: settings, key: try KMSKeyName(text))
    }

    /// An alias is another name of a key: the service is asked which.
    public func keyName() throws(KeyringError) -> String? {
        if client.key.isKeyARN { return client.service }
        var body = try SecretText(limit: Self.requestLimit)
        body.append("{\"KeyId\":\"\(client.key.text)\"}")
        return try client.post("DescribeKey", body) { (answer: JSONText) throws(KeyringError) -> String in
            guard let arn = answer.string("KeyMetadata", "Arn"), Self.isARN(arn) else { throw client.malformed() }
            return "awskms:" + String(decoding: arn, as: UTF8.self)
        }
    }

    public func opens(_ slot: KeySlot) -> Bool { slot.kind == kind && client.key.canBe(slot.parameters) }

    public func seal(_ key: SecretKey, for context: SlotContext) throws(KeyringError) -> KeySlot {
        let wrapping: SecretKey
        do { wrapping = try SecretKey.random() } catch { throw .cannotLock }
        var body = try SecretText(limit: Self.requestLimit)
        body.append("{\"KeyId\":\"\(client.key.text)\",\"Plaintext\":\"")
        wrapping.withKey { body.append(base64: $0.bytes) }
        body.append("\",\"EncryptionContext\":\(Self.members(of: context))}")
        let (ciphertext, arn) = try client.post("Encrypt", body) {
            (answer: JSONText) throws(KeyringError) -> ([UInt8], [UInt8]) in try self.ciphertext(in: answer)
        }
        return KeySlot(
            kind: kind, parameters: arn,
            sealedKey: RemoteSlot(ciphertext, LocalSlot.sealed(key, kind, arn, context, wrapping)).bytes)
    }

    /// The key that is asked is the one that was named, never the one that the slot names: nobody can put a key of his own there.
    public func unseal(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> SecretKey {
        let parts = try RemoteSlot(slot)
        var body = try SecretText(limit: Self.requestLimit)
        body.append("{\"KeyId\":\"\(client.key.text)\",\"CiphertextBlob\":\"")
        parts.ciphertext.withUnsafeBytes { body.append(base64: $0) }
        body.append("\",\"EncryptionContext\":\(Self.members(of: context))}")
        let wrapping = try client.post("Decrypt", body) {
            (answer: JSONText) throws(KeyringError) -> SecretKey in
            guard let text = answer.string("Plaintext") else { throw client.malformed() }
            return try withScratchKey { (key: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                guard Base64.decode(text, into: key) == SecretKey.byteCount else { throw client.malformed() }
                do { return try SecretKey(copying: UnsafeRawBufferPointer(key)) } catch { throw .cannotLock }
            }
        }
        return try LocalSlot.open(parts.local[...], kind, slot.parameters, context, wrapping)
    }

    /// The slot, sealed anew by the service itself: no key comes here. It does not say which version of its key sealed what, so that
    /// there is always something to renew.
    public func renewed(_ slot: KeySlot, for context: SlotContext) throws(KeyringError) -> KeySlot? {
        let parts = try RemoteSlot(slot)
        let members = Self.members(of: context)
        var body = try SecretText(limit: Self.requestLimit)
        body.append("{\"SourceKeyId\":\"\(client.key.text)\",\"DestinationKeyId\":\"\(client.key.text)\"")
        body.append(",\"SourceEncryptionContext\":\(members),\"DestinationEncryptionContext\":\(members)")
        body.append(",\"CiphertextBlob\":\"")
        parts.ciphertext.withUnsafeBytes { body.append(base64: $0) }
        body.append("\"}")
        let (ciphertext, _) = try client.post("ReEncrypt", body) {
            (answer: JSONText) throws(KeyringError) -> ([UInt8], [UInt8]) in try self.ciphertext(in: answer)
        }
        var renewed = slot
        renewed.sealedKey = RemoteSlot(ciphertext, parts.local).bytes
        return renewed
    }

    // MARK: Parts

    private static let requestLimit = 16 * 1024

    private func ciphertext(in answer: JSONText) throws(KeyringError) -> ([UInt8], [UInt8]) {
        guard let text = answer.string("CiphertextBlob"), let arn = answer.string("KeyId"), Self.isARN(arn) else {
            throw client.malformed()
        }
        var blob = [UInt8](repeating: 0, count: RemoteSlot.ciphertextLimit)
        guard let count = blob.withUnsafeMutableBytes({ Base64.decode(text, into: $0) }), count > 0 else {
            throw client.malformed()
        }
        return (Array(blob[..<count]), [UInt8](arn))
    }

    private static func isARN(_ text: UnsafeRawBufferPointer) -> Bool {
        guard let name = try? KMSKeyName(String(decoding: text, as: UTF8.self)) else { return false }
        return name.isKeyARN
    }

    /// The encryption context as a JSON object: AWS binds names and values apart, whatever is in them.
    static func members(of context: SlotContext) -> String {
        """
        {"letterlock:purpose":"\(context.purpose.rawValue)","letterlock:store":"\(context.store)",\
        "letterlock:keyring":\(JSONText.quoted(context.keyring))}
        """
    }
}
