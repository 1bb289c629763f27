import KeyServices
import Keyring
import Sodium

/// What a sops file says of itself, in its member `sops`.
struct SopsMetadata {
    let macCovers: SopsMAC.Coverage
    private let mac: SecretValue
    /// What the MAC is bound to.
    private let lastModified: String
    /// The data key, sealed for one recipient each.
    private let sealedKeys: [SecretValue]

    init(of document: SecretNode, _ source: String) throws(Failure) {
        guard let node = document.member("sops"), case .map = node.content else {
            throw Failure("\(source) is no sops file")
        }
        func malformed(_ what: String) -> Failure { Failure("\(source), line \(node.line): \(what)") }
        for name in ["shamir_threshold", "key_groups"] {
            switch node.member(name)?.content {
            case nil, .null: continue
            case .list(let groups) where groups.isEmpty: continue
            case .text(let text) where Self.is(text, "0"), .bare(let text) where Self.is(text, "0"): continue
            default: throw malformed("its data key is in several parts ('\(name)'), which are not put together")
            }
        }
        guard case .text(let mac)? = node.member("mac")?.content, mac.byteCount > 0 else {
            throw malformed("it has no MAC, so that anybody could have changed it")
        }
        self.mac = mac
        switch node.member("lastmodified")?.content {
        case .text(let time), .bare(let time):
            lastModified = time.withBytes { String(decoding: $0, as: UTF8.self) }
        default: throw malformed("'lastmodified' is missing")
        }
        switch node.member("mac_only_encrypted")?.content {
        case nil, .null: macCovers = .everything
        case .text(let word) where Self.is(word, "false"), .bare(let word) where Self.is(word, "false"):
            macCovers = .everything
        case .text(let word) where Self.is(word, "true"), .bare(let word) where Self.is(word, "true"):
            macCovers = .sealedValues
        default: throw malformed("'mac_only_encrypted' is neither true nor false")
        }
        guard case .list(let recipients)? = node.member("age")?.content, !recipients.isEmpty else {
            throw malformed("it has no age recipient: what others seal sops itself opens")
        }
        var keys: [SecretValue] = []
        for recipient in recipients {
            guard case .text(let key)? = recipient.member("enc")?.content else {
                throw malformed("a recipient without a sealed key")
            }
            keys.append(key)
        }
        sealedKeys = keys
    }

    private static func `is`(_ text: SecretValue, _ word: String) -> Bool {
        text.withBytes { $0.elementsEqual(word.utf8) }
    }

    /// - Throws: With the code of a wrong secret if it is sealed for nobody of these.
    func dataKey(_ source: String, _ identities: [AgeIdentity]) throws(Failure) -> SecretKey {
        guard !identities.isEmpty else {
            throw Failure(
                "\(source): there is no identity of age to open it", hint: "name its file: --identity FILE",
                code: .usage)
        }
        var isDamaged = false
        for sealed in sealedKeys {
            do throws(KeyringError) { return try Self.open(sealed, identities) } catch {
                switch error {
                case .wrongSecret: continue
                case .damaged: isDamaged = true
                default: throw Messages.failure(error)
                }
            }
        }
        guard !isDamaged else { throw Failure("\(source): its data key is damaged", code: .integrity) }
        throw Failure("\(source) is sealed for nobody whose identity is here", code: .wrongSecret)
    }

    private static func open(_ sealed: SecretValue, _ identities: [AgeIdentity]) throws(KeyringError) -> SecretKey {
        try sealed.withBytes { (sealed: UnsafeRawBufferPointer) throws(KeyringError) -> SecretKey in
            let key = try AgeFile.open(sealed, with: identities)
            return try key.withUnsafeBytes { (key: UnsafeRawBufferPointer) throws(KeyringError) -> SecretKey in
                guard key.count == SecretKey.byteCount else { throw .damaged("a data key is malformed") }
                do { return try SecretKey(copying: key) } catch { throw .cannotLock }
            }
        }
    }

    /// - Parameter found: What the MAC has to be.
    func check(_ found: SecretValue, _ source: String, _ key: SecretKey) throws(Failure) {
        let said = try mac.withBytes { (mac: UnsafeRawBufferPointer) throws(Failure) in
            try SopsValue.open(mac, place: lastModified, key: key)
        }
        let isRight = said?.value.withBytes { said in found.withBytes { Memory.equal(said, $0) } } ?? false
        guard isRight else {
            throw Failure(
                "\(source): its MAC is wrong: it was changed since sops wrote it",
                hint: "nothing of the file is taken", code: .integrity)
        }
    }
}
