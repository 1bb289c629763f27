internal import Sodium

/// What opens a slot. The raw values are stored.
public enum KeySlotKind: UInt8, Sendable {
    case passphrase = 1
    /// 32 random bytes, from a file or a systemd credential.
    case keyfile = 2
    /// OpenBao's or HashiCorp Vault's transit engine.
    case vault = 3
    case awskms = 4
    case pkcs11 = 5
    case tpm2 = 6
    case age = 7
    /// A printed phrase.
    case recovery = 8

    public var name: String {
        switch self {
        case .passphrase: "passphrase"
        case .keyfile: "keyfile"
        case .vault: "vault"
        case .awskms: "awskms"
        case .pkcs11: "pkcs11"
        case .tpm2: "tpm2"
        case .age: "age"
        case .recovery: "recovery"
        }
    }
}

/// One way to open a keyring: a key, sealed by a key service.
public struct KeySlot: Sendable, Equatable {
    public var kind: KeySlotKind
    /// What the service needs to know again; bound into what it sealed. At most 1 KiB.
    public var parameters: [UInt8]
    /// The slot's key, or the root key itself where there is no link. At most 4 KiB.
    public var sealedKey: [UInt8]
    /// The way from the slot's key to the root key: see `SlotLink`. Empty in what format 1 has written.
    var link: [UInt8] = []

    public init(kind: KeySlotKind, parameters: [UInt8], sealedKey: [UInt8]) {
        self.kind = kind
        self.parameters = parameters
        self.sealedKey = sealedKey
    }

    /// Its kind, and which of a service's keys: `vault:transit/prod`. Not authenticated.
    public var label: String {
        switch kind {
        case .passphrase, .keyfile, .recovery: kind.name
        case .tpm2 where parameters.isEmpty: kind.name
        case .vault, .awskms, .pkcs11, .tpm2, .age:
            // Nobody vouches for these bytes: what a terminal might act on is not shown.
            "\(kind.name):\(String(decoding: parameters.map { (0x21...0x7E).contains($0) ? $0 : 0x3F }, as: UTF8.self))"
        }
    }

    static let parametersLimit = 1024
    static let sealedLimit = 4096
}

/// A keyring's configuration: plaintext, as it is needed before there is a key, and authenticated once there is one.
///
///     magic 8 "LTTRLOCK" | format 4 | suite 4 | store id 16 | created 12 | lineage 16 | name length 2 | name | slots 2 |
///     for each slot: kind 1 | parameters length 2 | parameters | sealed length 2 | sealed key | link length 2 | link |
///     authentication 32 | checksum 32
///
/// Format 1 has no lineage and no links; it is read, and becomes format 2 when the slots are changed.
///
/// The authentication is a hash keyed with a key of the root key's. The checksum is for damage: without it a flipped bit
/// in a slot would look like a wrong passphrase.
struct Configuration: Equatable, Sendable {
    static let magic: UInt64 = 0x4B43_4F4C_5254_544C
    static let format: UInt32 = 2
    /// XChaCha20-Poly1305 with keyed BLAKE2b.
    static let suite: UInt32 = 1
    static let nameLimit = 255
    static let slotLimit = 16
    static let byteLimit = 128 * 1024
    static let authenticationByteCount = 32
    static let checksumByteCount = 32

    var storeID: StoreID
    var name: String
    var created: Timestamp
    /// Which of the histories that begin with the same store; nil for the one that began with its making.
    var lineage: StoreID?
    var slots: [KeySlot]

    /// The store's id, and behind a dot the lineage if there is one.
    var historyName: String { storeID.description + (lineage.map { ".\($0)" } ?? "") }

    /// What a slot's sealed key belongs to.
    func context(of slot: KeySlot) -> SlotContext {
        SlotContext(store: storeID, keyring: name, purpose: slot.link.isEmpty ? .rootKey : .slotKey)
    }

    /// The bytes without their authentication.
    var body: [UInt8] {
        var writer = ByteWriter()
        writer.put(Self.magic)
        writer.put(Self.format)
        writer.put(Self.suite)
        storeID.withUnsafeBytes { writer.put($0) }
        writer.put(created)
        if let lineage {
            lineage.withUnsafeBytes { writer.put($0) }
        } else {
            writer.put([UInt8](repeating: 0, count: StoreID.byteCount))
        }
        writer.putCounted(Array(name.utf8))
        writer.put(UInt16(slots.count))
        for slot in slots {
            writer.put(slot.kind.rawValue)
            writer.putCounted(slot.parameters)
            writer.putCounted(slot.sealedKey)
            writer.putCounted(slot.link)
        }
        return writer.bytes
    }

    /// The bytes with their authentication under the root key.
    func encoded(authenticatedBy rootKey: SecretKey) throws(KeyringError) -> [UInt8] {
        let body = body
        let authenticated = body + (try Self.authentication(of: body, rootKey))
        return authenticated + Self.checksum(authenticated)
    }

    private static func checksum(_ bytes: [UInt8]) -> [UInt8] {
        [UInt8](unsafeUninitializedCapacity: checksumByteCount) { buffer, count in
            bytes.withUnsafeBytes {
                Checksum.blake2b(
                    $0,
                    into: UnsafeMutableRawBufferPointer(
                        rebasing: UnsafeMutableRawBufferPointer(buffer)[..<checksumByteCount]))
            }
            count = checksumByteCount
        }
    }

    init(storeID: StoreID, name: String, created: Timestamp, slots: [KeySlot]) {
        self.storeID = storeID
        self.name = name
        self.created = created
        self.slots = slots
    }

    /// Reads what may be anything. Nothing of it is to be believed before `authenticate`.
    init(_ bytes: UnsafeRawBufferPointer) throws(KeyringError) {
        var reader = ByteReader(bytes)
        guard bytes.count <= Self.byteLimit, reader.number(UInt64.self) == Self.magic,
            let format = reader.number(UInt32.self)
        else { throw .notAKeyring }
        guard format <= Self.format else { throw .newerFormat(format) }
        guard format >= 1, bytes.count > Self.checksumByteCount,
            bytes.suffix(Self.checksumByteCount).elementsEqual(
                Self.checksum([UInt8](bytes.dropLast(Self.checksumByteCount))))
        else { throw .damaged("the configuration is not what was stored") }
        guard let suite = reader.number(UInt32.self) else { throw .damaged("the configuration is too short") }
        guard suite == Self.suite else { throw .damaged("cipher suite \(suite) is not known") }
        guard let id = reader.take(StoreID.byteCount), let created = reader.timestamp(),
            let lineage = format == 1 ? .some(nil) : Self.lineage(&reader),
            let name = reader.counted(limit: Self.nameLimit), let slotCount = reader.number(UInt16.self),
            (1...Self.slotLimit).contains(Int(slotCount))
        else { throw .damaged("the configuration is malformed") }
        storeID = StoreID(id)
        self.created = created
        self.lineage = lineage
        guard let name = String(validating: name, as: UTF8.self) else {
            throw .damaged("the keyring's name is not UTF-8")
        }
        self.name = name
        slots = []
        for _ in 0..<slotCount {
            guard let kind = reader.number(UInt8.self),
                let parameters = reader.counted(limit: KeySlot.parametersLimit),
                let sealed = reader.counted(limit: KeySlot.sealedLimit),
                let link = format == 1 ? [] : SlotLink.bytes(&reader)
            else { throw .damaged("the configuration's key slots are malformed") }
            guard let kind = KeySlotKind(rawValue: kind) else {
                throw .damaged("a key slot of kind \(kind) is not known")
            }
            var slot = KeySlot(kind: kind, parameters: [UInt8](parameters), sealedKey: [UInt8](sealed))
            slot.link = link
            slots.append(slot)
        }
        guard reader.remaining == Self.authenticationByteCount + Self.checksumByteCount else {
            throw .damaged("the configuration is malformed")
        }
    }

    /// `.some(nil)` for zeros.
    private static func lineage(_ reader: inout ByteReader) -> StoreID?? {
        guard let bytes = reader.take(StoreID.byteCount) else { return nil }
        return .some(bytes.allSatisfy { $0 == 0 } ? nil : StoreID(bytes))
    }

    /// Holds the bytes against the root key that one of their slots gave.
    static func authenticate(_ bytes: UnsafeRawBufferPointer, _ rootKey: SecretKey) throws(KeyringError) {
        let body = [UInt8](bytes.dropLast(authenticationByteCount + checksumByteCount))
        let expected = try authentication(of: body, rootKey)
        let isSame = expected.withUnsafeBytes {
            Memory.equal($0, UnsafeRawBufferPointer(rebasing: bytes[body.count..<body.count + authenticationByteCount]))
        }
        guard isSame else { throw .damaged("the configuration does not authenticate") }
    }

    private static func authentication(of body: [UInt8], _ rootKey: SecretKey) throws(KeyringError) -> [UInt8] {
        let key = try rootKey.derived("letterlock configuration 1")
        return [UInt8](unsafeUninitializedCapacity: authenticationByteCount) { buffer, count in
            key.withKey { key in
                body.withUnsafeBytes { body in
                    KeyedHash.hash(
                        UnsafeRawBufferPointer(start: nil, count: 0), body, key: key,
                        into: UnsafeMutableRawBufferPointer(rebasing: UnsafeMutableRawBufferPointer(buffer)[0..<32]))
                }
            }
            count = authenticationByteCount
        }
    }
}

/// What can be told of a keyring without any key. Not authenticated.
public struct KeyringSummary: Sendable {
    public let storeID: StoreID
    public let name: String
    public let created: Timestamp
    /// As the unlocked keyring tells it.
    public let historyName: String
    public let slots: [SlotDescription]

    public var keyServices: [String] { slots.map(\.label) }

    public init(configuration bytes: UnsafeRawBufferPointer) throws(KeyringError) {
        let configuration = try Configuration(bytes)
        storeID = configuration.storeID
        name = configuration.name
        created = configuration.created
        historyName = configuration.historyName
        slots = configuration.slotDescriptions
    }
}

extension SecretKey {
    /// A key for one purpose.
    func derived(_ label: StaticString) throws(KeyringError) -> SecretKey {
        do {
            return try withKey { (key: borrowing BorrowedKey) throws(SodiumError) -> SecretKey in
                try Derivation.derive(label, context: UnsafeRawBufferPointer(start: nil, count: 0), from: key)
            }
        } catch { throw .cannotLock }
    }
}
