import CCrypto
import Sodium

/// A value of a sops file: `ENC[AES256_GCM,data:…,iv:…,tag:…,type:…]`, sealed by the file's data key and bound to its place.
enum SopsValue {
    private static let start: StaticString = "ENC[AES256_GCM,data:"
    private static let nonceByteCount = 32

    /// What stands for what: nothing that is empty is sealed.
    static func isSealed(_ text: UnsafeRawBufferPointer) -> Bool {
        text.starts(with: "\(start)".utf8) && text.last == UInt8(ascii: "]")
    }

    enum Kind: String {
        case string = "str"
        case integer = "int"
        case float, bool, time, bytes, comment
    }

    // MARK: Opening

    /// - Parameter place: What it is bound to.
    /// - Returns: Nil if it does not authenticate, or is malformed.
    static func open(_ text: UnsafeRawBufferPointer, place: String, key: SecretKey) throws(Failure) -> (
        value: SecretValue, kind: Kind
    )? {
        guard isSealed(text) else { return nil }
        let parts = text.dropFirst("\(start)".utf8.count).dropLast().split(
            separator: UInt8(ascii: ","), omittingEmptySubsequences: false)
        guard parts.count == 4, let nonce = field(parts[1], "iv:"), let tag = field(parts[2], "tag:"),
            parts[3].starts(with: "type:".utf8),
            let kind = Kind(rawValue: String(decoding: parts[3].dropFirst(5), as: UTF8.self)),
            let sealed = decoded(parts[0]), tag.byteCount == Int(ll_gcm_tag_count), nonce.byteCount > 0
        else { return nil }
        let value = SecretValue()
        let outcome = perform(
            seals: false, sealed, into: value, nonce: nonce, tag: tag, place: place, key: key)
        guard outcome != ll_gcm_no_library else { throw missingLibrary }
        return outcome == ll_gcm_done ? (value, kind) : nil
    }

    private static func field(_ part: Slice<UnsafeRawBufferPointer>, _ name: String) -> SecretValue? {
        part.starts(with: name.utf8) ? decoded(part.dropFirst(name.utf8.count)) : nil
    }

    private static func decoded(_ base64: Slice<UnsafeRawBufferPointer>) -> SecretValue? {
        let text = SecretValue()
        text.append(UnsafeRawBufferPointer(rebasing: base64))
        return text.decodedBase64()
    }

    // MARK: Sealing

    /// Appends the sealed text; nothing for what is empty.
    static func seal(_ value: SecretValue, place: String, key: SecretKey, into text: SecretValue) throws(Failure) {
        guard value.byteCount > 0 else { return }
        let nonce = SecretValue()
        nonce.appendUninitialized(nonceByteCount) { room in
            Randomness.fill(room)
            return nonceByteCount
        }
        let tag = SecretValue()
        tag.appendUninitialized(Int(ll_gcm_tag_count)) { _ in Int(ll_gcm_tag_count) }
        let sealed = SecretValue()
        let outcome = perform(
            seals: true, value, into: sealed, nonce: nonce, tag: tag, place: place, key: key)
        guard outcome == ll_gcm_done else { throw missingLibrary }
        text.append("\(start)")
        text.appendBase64(of: sealed)
        text.append(",iv:")
        text.appendBase64(of: nonce)
        text.append(",tag:")
        text.appendBase64(of: tag)
        text.append(",type:str]")
    }

    private static let missingLibrary = Failure(
        "sops files need libcrypto's AES-256-GCM, which is missing", hint: "install the package libssl3")

    /// - Parameter tag: Written when it seals.
    private static func perform(
        seals: Bool, _ input: SecretValue, into output: SecretValue, nonce: SecretValue, tag: SecretValue,
        place: String, key: SecretKey
    ) -> ll_gcm_outcome {
        var request = ll_gcm()
        request.seals = seals ? 1 : 0
        request.nonce_count = nonce.byteCount
        request.count = input.byteCount
        var outcome = ll_gcm_no_library
        let place = Array(place.utf8)
        input.withBytes { input in
            nonce.withBytes { nonce in
                tag.withMutableBytes { tag in
                    place.withUnsafeBytes { place in
                        key.withKey { key in
                            request.input = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
                            request.nonce = nonce.baseAddress?.assumingMemoryBound(to: UInt8.self)
                            request.tag = tag.baseAddress?.assumingMemoryBound(to: UInt8.self)
                            request.associated = place.baseAddress?.assumingMemoryBound(to: UInt8.self)
                            request.associated_count = place.count
                            request.key = key.bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                            output.appendUninitialized(input.count) { room in
                                request.output = room.baseAddress?.assumingMemoryBound(to: UInt8.self)
                                outcome = ll_gcm_perform(&request)
                                return outcome == ll_gcm_done ? input.count : nil
                            }
                        }
                    }
                }
            }
        }
        return outcome
    }
}
