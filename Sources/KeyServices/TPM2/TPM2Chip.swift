internal import CTSS2
internal import Keyring
internal import Sodium

/// A TPM, asked once for each sealing and opening.
struct TPM2Chip: Sendable {
    let spec: TPM2Spec
    let patience: Int

    /// Seconds: as many as an answer over the network may take.
    static let patience = 15
    private static let pinLimit = 256
    /// The libraries are loaded once for a whole process, and what they leave is wiped for all of it.
    private static let turns = LibraryTurns()

    func seal(_ key: SecretKey) throws(KeyringError) -> [UInt8] {
        let room = [UInt8](repeating: 0, count: RemoteSlot.ciphertextLimit)
        let call = try TPM2Call(spec, try authorization(), key: key, blob: room)
        try perform(call, seals: true)
        return Array(call.blob.prefix(call.blobByteCount))
    }

    /// - Throws: `.wrongSecret` for what another TPM has sealed, or nobody.
    func unseal(_ sealed: [UInt8]) throws(KeyringError) -> SecretKey {
        let call = try TPM2Call(spec, try authorization(), key: nil, blob: sealed)
        try perform(call, seals: false)
        return try call.withKey { (bytes: UnsafeRawBufferPointer) throws(KeyringError) -> SecretKey in
            do { return try SecretKey(copying: bytes) } catch { throw .cannotLock }
        }
    }

    private func perform(_ call: TPM2Call, seals: Bool) throws(KeyringError) {
        guard Self.turns.run(milliseconds: patience * 1000, call.perform) else {
            throw .service(
                KeyServiceFault(
                    .timedOut, "tpm2: it does not answer", hint: "the keyring stays as it is; try again"))
        }
        if let error = error(call.outcome, seals: seals, call.answer) { throw error }
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
        case ll_tpm2_no_parent where Self.isOfParameter(answer) && answer & 0xBF == 0x85:
            return fault(.keyDisabled, "its owner hierarchy is disabled", "enable it in the firmware, or restart")
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
