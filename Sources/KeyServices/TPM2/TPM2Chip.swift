internal import CTSS2
internal import Glibc
internal import Keyring
internal import Sodium
internal import Synchronization

/// A TPM, asked once for each sealing and opening.
struct TPM2Chip: Sendable {
    let spec: TPM2Spec

    private static let pinLimit = 256
    /// The libraries are loaded once for a whole process, and what they leave is wiped for all of it.
    private static let turn = Mutex<Void>(())

    func seal(_ key: SecretKey) throws(KeyringError) -> [UInt8] {
        var blob = [UInt8](repeating: 0, count: RemoteSlot.ciphertextLimit)
        // Its own copy: the library writes to where it reads.
        var copy = try scratch()
        key.withKey { key in
            let bytes = key.bytes
            copy.withUnsafeMutableBytes { $0.copyMemory(from: bytes) }
        }
        let count = try perform(seals: true, &copy, &blob, count: RemoteSlot.ciphertextLimit)
        return Array(blob.prefix(count))
    }

    /// - Throws: `.wrongSecret` for what another TPM has sealed, or nobody.
    func unseal(_ sealed: [UInt8]) throws(KeyringError) -> SecretKey {
        var blob = sealed
        var key = try scratch()
        _ = try perform(seals: false, &key, &blob, count: sealed.count)
        return try key.withUnsafeBytes { (bytes: UnsafeRawBufferPointer) throws(KeyringError) -> SecretKey in
            do { return try SecretKey(copying: bytes) } catch { throw .cannotLock }
        }
    }

    private func scratch() throws(KeyringError) -> SecretBytes {
        do { return try SecretBytes(byteCount: SecretKey.byteCount) } catch { throw .cannotLock }
    }

    /// - Returns: The blob's length.
    private func perform(
        seals: Bool, _ key: inout SecretBytes, _ blob: inout [UInt8], count: Int
    ) throws(KeyringError) -> Int {
        var request = ll_tpm2()
        request.seals = seals ? 1 : 0
        request.pcrs = spec.pcrs
        request.bank = spec.bank
        request.blob_count = count
        let authorization = try self.authorization()
        let tcti = spec.tcti.map { strdup($0) } ?? nil
        defer { free(tcti) }
        request.tcti = UnsafePointer(tcti)
        let outcome = key.withUnsafeMutableBytes { key in
            request.key = key.baseAddress?.assumingMemoryBound(to: UInt8.self)
            return blob.withUnsafeMutableBufferPointer { blob in
                request.blob = blob.baseAddress
                return ask(authorization, &request)
            }
        }
        if let error = error(outcome, seals: seals, request.answer) { throw error }
        return request.blob_count
    }

    private func ask(_ authorization: SecretKey?, _ request: inout ll_tpm2) -> ll_tpm2_outcome {
        guard let authorization else { return Self.turn.withLock { _ in ll_tpm2_perform(&request) } }
        return authorization.withKey { key in
            request.auth = key.bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
            request.auth_count = key.bytes.count
            return Self.turn.withLock { _ in ll_tpm2_perform(&request) }
        }
    }

    /// What the PIN is to the TPM: 32 bytes of hash, as many as it takes; nil without one.
    private func authorization() throws(KeyringError) -> SecretKey? {
        guard let file = spec.pinFile else { return nil }
        let pin: SecretBytes
        do { pin = try SecretFile.read(file, limit: Self.pinLimit, forbiddenMode: 0o006) } catch {
            guard case .malformedKeyFile = error else { throw error }
            throw .service(KeyServiceFault(.misconfigured, "\(file) is no PIN"))
        }
        return try pin.withUnsafeBytes { (pin: UnsafeRawBufferPointer) throws(KeyringError) -> SecretKey in
            let line = UnsafeRawBufferPointer(rebasing: pin[..<SecretFile.lineByteCount(pin)])
            guard !line.isEmpty else { throw .service(KeyServiceFault(.misconfigured, "\(file) is no PIN")) }
            return try withScratchKey { (hash: UnsafeMutableRawBufferPointer) throws(KeyringError) -> SecretKey in
                Checksum.blake2b(line, into: hash)
                // A TPM drops zeros at the end of such a value.
                hash[hash.count - 1] |= 1
                do { return try SecretKey(copying: UnsafeRawBufferPointer(hash)) } catch { throw .cannotLock }
            }
        }
    }

    // MARK: Errors

    private func error(_ outcome: ll_tpm2_outcome, seals: Bool, _ answer: UInt32) -> KeyringError? {
        func fault(_ reason: KeyServiceFault.Reason, _ what: String, _ hint: String? = nil) -> KeyringError {
            .service(KeyServiceFault(reason, "tpm2: \(what)", hint: hint))
        }
        switch outcome {
        case ll_tpm2_done: return nil
        case ll_tpm2_no_library:
            return fault(
                .misconfigured, "the libraries for it are missing",
                "install the packages libtss2-esys-3.0.2-0, libtss2-tctildr0 and libtss2-mu0")
        case ll_tpm2_no_device:
            return fault(
                .unreachable, "there is no TPM, or not for this user (\(Self.hexadecimal(answer)))",
                "see /dev/tpmrm0, or name another one in TPM2TOOLS_TCTI")
        case ll_tpm2_no_parent where Self.isWrongPIN(answer):
            return fault(.denied, "its owner hierarchy has a password", "clear it, or use another key service")
        case ll_tpm2_no_pcr: return fault(.misconfigured, "it has no such PCRs in the bank sha\(spec.bank)")
        case ll_tpm2_malformed: return .damaged("a key slot is malformed")
        case ll_tpm2_other: return .wrongSecret
        // What it was shown to load is nothing that it has sealed.
        case ll_tpm2_not_loaded where Self.isOfParameter(answer): return .wrongSecret
        case ll_tpm2_refused where Self.isWrongPIN(answer):
            return fault(.denied, "the PIN is wrong", "a TPM takes only so many")
        case ll_tpm2_refused where Self.isOfPolicy(answer):
            return fault(
                .denied, "its PCRs are not what they were when the key was sealed",
                "open the keyring with another key service, then remove and add this one")
        default:
            if answer & 0xFFF == 0x921 {
                return fault(.denied, "it is locked: PINs were wrong too often", "see 'tpm2_dictionarylockout'")
            }
            return fault(.unreachable, "it does not do it (\(Self.hexadecimal(answer)))", "try again")
        }
    }

    private static func hexadecimal(_ answer: UInt32) -> String { "0x" + String(answer, radix: 16) }

    /// Whether it is the TPM itself that speaks, of a handle, a session or a parameter (TPM 2.0, part 2, 6.6).
    private static func isOfParameter(_ answer: UInt32) -> Bool { answer >> 16 == 0 && answer & 0x80 != 0 }

    private static func isWrongPIN(_ answer: UInt32) -> Bool {
        isOfParameter(answer) && [0x8E, 0xA2].contains(answer & 0xBF)
    }

    private static func isOfPolicy(_ answer: UInt32) -> Bool {
        answer & 0xFFF == 0x128 || isOfParameter(answer) && answer & 0xBF == 0x9D
    }
}
