import Glibc
import Keyring
import Sodium
import Testing

@testable import KeyServices

/// The format of age, as far as Letterlock speaks it. Against the program itself: see MountTests.
@Suite struct AgeTests {
    /// BIP 173's letters of X25519 keys that age-keygen has made.
    private static let identity = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
    private static let recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"

    private func identity(_ text: String = AgeTests.identity) throws -> AgeIdentity? {
        try Array(text.utf8).withUnsafeBytes { bytes in
            try Result { () throws(KeyringError) in try AgeIdentity(bytes) }.get()
        }
    }

    private func seal(_ plaintext: [UInt8], for recipient: AgeRecipient) throws -> [UInt8] {
        try plaintext.withUnsafeBytes { bytes in
            try Result { () throws(KeyringError) in try AgeFile.seal(bytes, for: recipient) }.get()
        }
    }

    private func open(_ file: [UInt8], _ identities: [AgeIdentity]) throws -> [UInt8] {
        try file.withUnsafeBytes { bytes in
            try Result { () throws(KeyringError) in
                try AgeFile.open(bytes, with: identities).withUnsafeBytes { [UInt8]($0) }
            }.get()
        }
    }

    /// The identity is 32 bytes of 0x42, the one of age's own test vectors.
    @Test func `keys are written as age writes them`() throws {
        let identity = try #require(try identity())
        identity.key.withKey { #expect($0.bytes.allSatisfy { $0 == 0x42 }) }
        #expect(identity.recipient.text == Self.recipient)
        #expect(AgeRecipient(Self.recipient) == identity.recipient)
        #expect(try self.identity(Self.identity.lowercased()) != nil)
    }

    @Test func `a character that is wrong, missing or too many is noticed`() throws {
        let text = Array(Self.recipient)
        for index in text.indices {
            for other in ["q", "z", "b", "1", "Q", "é"] as [Character] where other != text[index] {
                var changed = text
                changed[index] = other
                #expect(AgeRecipient(String(changed)) == nil, "\(index) \(other)")
            }
            var cut = text
            cut.remove(at: index)
            #expect(AgeRecipient(String(cut)) == nil)
        }
        #expect(AgeRecipient("") == nil && AgeRecipient(Self.recipient + "q") == nil)
        #expect(AgeRecipient(Self.identity) == nil)
        #expect(try identity(Self.recipient) == nil)
    }

    @Test(arguments: [0, 1, 32, 1000, AgeFile.plaintextLimit])
    func `what is sealed opens to the same, with the identity alone`(count: Int) throws {
        let identity = try #require(try identity())
        let plaintext = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 7) }
        let file = try seal(plaintext, for: identity.recipient)
        #expect(file.count == 168 + 32 + count)
        let other = Bech32.encode([UInt8](repeating: 7, count: 32), prefix: "age-secret-key-")
        let stranger = try #require(try self.identity(other))
        #expect(try open(file, [stranger, identity]) == plaintext)
        #expect(throws: KeyringError.wrongSecret) { try open(file, [stranger]) }
        #expect(throws: KeyringError.wrongSecret) { try open(file, []) }
    }

    @Test func `nobody seals for a key that everybody could open`() throws {
        #expect(throws: KeyringError.self) {
            try seal([1], for: AgeRecipient(publicKey: [UInt8](repeating: 0, count: 32)))
        }
    }

    @Test func `other stanzas are passed over`() throws {
        let identity = try #require(try identity())
        let file = try seal([1, 2, 3], for: identity.recipient)
        let text = String(decoding: file.prefix(168), as: UTF8.self)
        #expect(text.hasPrefix("age-encryption.org/v1\n-> X25519 "))
        // With one more the MAC is another: it is found to be for this identity, and not authentic.
        let more = text.replacing("v1\n->", with: "v1\n-> grease a b\nAAAA\n-> empty\n\n->")
        #expect(throws: AgeFile.malformed) { try open(Array(more.utf8) + file[168...], [identity]) }
    }

    @Test func `every byte counts, and nothing may be missing or more`() throws {
        let identity = try #require(try identity())
        let file = try seal([1, 2, 3], for: identity.recipient)
        for index in file.indices {
            var changed = file
            changed[index] ^= 1
            #expect(throws: KeyringError.self, "byte \(index)") { try open(changed, [identity]) }
            #expect(throws: KeyringError.self, "\(index) bytes") { try open(Array(file.prefix(index)), [identity]) }
        }
        #expect(throws: KeyringError.self) { try open(file + [0], [identity]) }
    }

    @Test func `whatever is cut or changed neither traps nor runs on`() throws {
        let identity = try #require(try identity())
        let file = try seal([1, 2, 3], for: identity.recipient)
        var state: UInt64 = 11
        func random() -> Int {
            state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            return Int(state >> 33)
        }
        let pieces = ["\n", " ", "-> ", "--- ", "X25519", "=", "age-encryption.org/v1\n"].map { Array($0.utf8) }
        for _ in 0..<5000 {
            var bytes = Array(file.prefix(22 + random() % (file.count - 22)))
            for _ in 0..<random() % 4 {
                let piece = pieces[random() % pieces.count]
                let place = random() % bytes.count
                bytes.replaceSubrange(place..<min(bytes.count, place + random() % 8), with: piece)
            }
            _ = try? open(bytes, [identity])
        }
    }

    @Test func `a file of identities is as age-keygen writes it`() throws {
        let profiles = Profiles()
        let path = profiles.write("other", "# created: now\n# public key: x\n\(Self.identity)\r\n\n\(Self.identity)\n")
        #expect(try AgeIdentityFile.read(path).map(\.recipient.text) == [Self.recipient, Self.recipient])
        for text in [
            "", "# nothing\n", "AGE-SECRET-KEY-1QQ\n", "age-encryption.org/v1\n", "\(Self.identity) x\n",
            Self.recipient,
        ] {
            profiles.write("other", text)
            #expect(throws: KeyringError.self, "\(text)") { try AgeIdentityFile.read(path) }
        }
        profiles.write("other", Self.identity, mode: 0o644)
        #expect(throws: KeyringError.insecureFile(path: path, mode: 0o644)) { try AgeIdentityFile.read(path) }
    }

    @Test func `a recipient alone seals, and its identity opens`() throws {
        let profiles = Profiles()
        let context = SlotContext(store: .random(), keyring: "k", purpose: .slotKey)
        let alone = try AgeService(Self.recipient) { _ in nil }
        #expect(!alone.canUnseal)
        let slot = try alone.seal(try SecretKey.random(), for: context)
        #expect(throws: KeyringError.self) { try alone.unseal(slot, for: context) }
        let path = profiles.write("other", Self.identity)
        for service in [
            try AgeService(path) { _ in nil },
            try AgeService(Self.recipient) { $0 == "AGE_IDENTITY_FILE" ? path : nil },
        ] {
            #expect(service.canUnseal && service.opens(slot))
            _ = try service.unseal(slot, for: context)
        }
        for text in ["", "identity", "age1", Self.recipient + "q", "/nowhere/identity"] {
            #expect(throws: KeyringError.self) { try AgeService(text) { _ in nil } }
        }
    }

    // MARK: Armour

    private static let header = "-----BEGIN AGE ENCRYPTED FILE-----"
    private static let footer = "-----END AGE ENCRYPTED FILE-----"

    @Test(arguments: [0, 1, 2, 3, 48, 1000]) func `armour is opened, with space around it`(count: Int) throws {
        let identity = try #require(try identity())
        let plaintext = [UInt8](repeating: 7, count: count)
        let text = String(
            decoding: AgeArmour.add(to: try seal(plaintext, for: identity.recipient)), as: UTF8.self)
        #expect(text.hasPrefix(Self.header + "\n") && text.hasSuffix("\n\(Self.footer)\n"))
        for text in [
            text, String(text.dropLast()), "\n \t" + text + "\r\n \n", text.replacing("\n", with: "\r\n"),
        ] {
            #expect(try open(Array(text.utf8), [identity]) == plaintext)
        }
    }

    @Test func `armour of any other form is refused`() throws {
        let identity = try #require(try identity())
        let text = String(
            decoding: AgeArmour.add(to: try seal([1, 2, 3], for: identity.recipient)), as: UTF8.self)
        let lines = text.split(separator: "\n").map(String.init)
        let others = [
            Self.header, Self.header + "\n" + Self.footer, Self.header + "\n\n" + Self.footer,
            lines.dropLast().joined(separator: "\n"), (lines[..<2] + lines[3...]).joined(separator: "\n"),
            text.replacing(lines[1], with: lines[1].dropLast(4)), text.replacing(lines[1], with: lines[1] + "\n"),
            text.replacing(lines[1], with: " " + lines[1]), text.replacing(lines[1], with: "=" + lines[1].dropFirst()),
            text.replacing(Self.footer, with: "-----END AGE FILE-----"), text + "x",
            text.replacing(lines[1] + "\n", with: lines[1]),
        ]
        for other in others {
            #expect(throws: AgeFile.malformed, "\(other)") { try open(Array(other.utf8), [identity]) }
        }
    }
}
