package import Keyring
package import Sodium

/// The format of age, version 1 (age-encryption.org/v1), for what fits into one chunk:
///
///     age-encryption.org/v1
///     -> X25519 SHARE
///     FILE KEY, sealed for the recipient
///     --- MAC
///     nonce 16 | plaintext, sealed | tag 16
package enum AgeFile {
    /// One chunk, the first and last: all of a key, and of whatever else is small.
    static let plaintextLimit = 64 * 1024
    private static let headerLimit = 64 * 1024
    private static let fileKeyByteCount = 16
    private static let nonceByteCount = 16
    private static let magic = "age-encryption.org/v1\n"
    private static let columns = 64

    // MARK: Sealing

    package static func seal(_ plaintext: UnsafeRawBufferPointer, for recipient: AgeRecipient) throws(KeyringError)
        -> [UInt8]
    {
        precondition(plaintext.count <= plaintextLimit, "more than a chunk")
        return try withScratchKey { (scratch: UnsafeMutableRawBufferPointer) throws(KeyringError) -> [UInt8] in
            let fileKey = UnsafeMutableRawBufferPointer(rebasing: scratch[..<fileKeyByteCount])
            Randomness.fill(fileKey)
            let key = UnsafeRawBufferPointer(fileKey)
            var file = Array(magic.utf8) + (try AgeStanza.make(key, for: recipient).bytes) + Array("---".utf8)
            file += [UInt8(ascii: " ")] + AgeStanza.text(try mac(of: file[...], key)) + [UInt8(ascii: "\n")]
            var nonce = [UInt8](repeating: 0, count: nonceByteCount)
            nonce.withUnsafeMutableBytes { Randomness.fill($0) }
            let start = file.count + nonceByteCount
            file += nonce + [UInt8](repeating: 0, count: plaintext.count + ChaChaSeal.tagByteCount)
            let payloadKey = try derive(key, nonce, "payload")
            payloadKey.withKey { payloadKey in
                let borrowed = payloadKey.bytes
                file.withUnsafeMutableBytes { file in
                    ChaChaSeal.seal(
                        plaintext, into: UnsafeMutableRawBufferPointer(rebasing: file[start...]), nonce: lastChunk,
                        key: BorrowedKey(borrowed))
                }
            }
            return file
        }
    }

    // MARK: Opening

    /// Opens what may be anything, with or without armour.
    ///
    /// - Throws: `.wrongSecret` if it is for none of the identities; `.damaged` if it is for one, and no such file.
    package static func open(_ file: UnsafeRawBufferPointer, with identities: [AgeIdentity]) throws(KeyringError)
        -> SecretBytes
    {
        if AgeArmour.isThere(file) {
            let bytes = try AgeArmour.remove(file)
            let copy = UnsafeMutableRawBufferPointer.allocate(byteCount: bytes.count, alignment: 1)
            defer { copy.deallocate() }
            copy.copyBytes(from: bytes)
            return try openBinary(UnsafeRawBufferPointer(copy), with: identities)
        }
        return try openBinary(file, with: identities)
    }

    private static func openBinary(_ file: UnsafeRawBufferPointer, with identities: [AgeIdentity]) throws(KeyringError)
        -> SecretBytes
    {
        let (stanzas, macPlace) = try header(file)
        let headerBytes = [UInt8](file[..<(macPlace - 1)])
        let tag = try AgeStanza.bytes(file[macPlace..<macPlace + AgeStanza.characterCount], count: HMAC.byteCount)
        guard let tag, file.count > macPlace + AgeStanza.characterCount,
            file[macPlace + AgeStanza.characterCount] == UInt8(ascii: "\n")
        else { throw malformed }
        let payload = UnsafeRawBufferPointer(rebasing: file[(macPlace + AgeStanza.characterCount + 1)...])
        let overhead = nonceByteCount + ChaChaSeal.tagByteCount
        guard payload.count >= overhead, payload.count - overhead <= plaintextLimit else { throw malformed }
        guard let fileKey = try unwrap(stanzas, identities) else { throw .wrongSecret }
        let (expected, payloadKey) = try fileKey.withKey { key throws(KeyringError) in
            let key = UnsafeRawBufferPointer(rebasing: key.bytes[..<fileKeyByteCount])
            return (
                try mac(of: headerBytes[...], key), try derive(key, [UInt8](payload.prefix(nonceByteCount)), "payload")
            )
        }
        guard expected.withUnsafeBytes({ expected in tag.withUnsafeBytes { Memory.equal(expected, $0) } }) else {
            throw malformed
        }
        var plaintext: SecretBytes
        do { plaintext = try SecretBytes(byteCount: payload.count - overhead) } catch { throw .cannotLock }
        let sealed = UnsafeRawBufferPointer(rebasing: payload[nonceByteCount...])
        let isOpen = plaintext.withUnsafeMutableBytes { plaintext in
            payloadKey.withKey { ChaChaSeal.open(sealed, into: plaintext, nonce: lastChunk, key: $0) }
        }
        guard isOpen else { throw malformed }
        return plaintext
    }

    /// The stanzas, and where the text of the MAC begins.
    private static func header(_ file: UnsafeRawBufferPointer) throws(KeyringError) -> ([AgeStanza], Int) {
        guard file.starts(with: magic.utf8) else { throw malformed }
        var place = magic.utf8.count
        var stanzas: [AgeStanza] = []
        let limit = min(file.count, headerLimit)
        /// A line without its end; nil if there is none.
        func line() -> Slice<UnsafeRawBufferPointer>? {
            guard let end = file[place..<limit].firstIndex(of: UInt8(ascii: "\n")) else { return nil }
            defer { place = end + 1 }
            return file[place..<end]
        }
        while place < limit {
            if file[place..<limit].starts(with: "--- ".utf8) {
                guard place + 4 + AgeStanza.characterCount <= file.count, !stanzas.isEmpty else { throw malformed }
                return (stanzas, place + 4)
            }
            guard let first = line(), first.starts(with: "-> ".utf8) else { throw malformed }
            let words = first.dropFirst(3).split(separator: UInt8(ascii: " "), omittingEmptySubsequences: false)
                .map { [UInt8]($0) }
            guard words.allSatisfy({ !$0.isEmpty && $0.allSatisfy { (0x21...0x7E).contains($0) } }) else {
                throw malformed
            }
            var body: [UInt8] = []
            while true {
                guard let part = line(), part.count <= columns else { throw malformed }
                body += part
                if part.count < columns { break }
            }
            stanzas.append(AgeStanza(words: words, body: body))
        }
        throw malformed
    }

    /// The file's key, and zeros; nil if it is for others.
    private static func unwrap(_ stanzas: [AgeStanza], _ identities: [AgeIdentity]) throws(KeyringError) -> SecretKey? {
        try withScratchKey { (scratch: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey? in
            let fileKey = UnsafeMutableRawBufferPointer(rebasing: scratch[..<fileKeyByteCount])
            for stanza in stanzas where stanza.words[0] == Array("X25519".utf8) {
                for identity in identities where try stanza.open(with: identity, into: fileKey) {
                    do { return try SecretKey(copying: UnsafeRawBufferPointer(scratch)) } catch { throw .cannotLock }
                }
            }
            return nil
        }
    }

    // MARK: Keys

    /// Counter 0, and that it is the last.
    private static let lastChunk = [UInt8](repeating: 0, count: 11) + [1]

    private static func mac(of header: ArraySlice<UInt8>, _ fileKey: UnsafeRawBufferPointer) throws(KeyringError)
        -> [UInt8]
    {
        let key = try derive(fileKey, [], "header")
        var tag = [UInt8](repeating: 0, count: HMAC.byteCount)
        tag.withUnsafeMutableBytes { tag in
            header.withUnsafeBytes { header in key.withKey { HMAC.sha256([header], key: $0.bytes, into: tag) } }
        }
        return tag
    }

    private static func derive(_ secret: UnsafeRawBufferPointer, _ salt: [UInt8], _ info: StaticString)
        throws(KeyringError) -> SecretKey
    {
        do { return try HKDF.sha256(secret, salt: salt, info: info) } catch { throw .cannotLock }
    }

    static let malformed = KeyringError.damaged("what was sealed by age is malformed")
}
