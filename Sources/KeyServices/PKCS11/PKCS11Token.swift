internal import CPKCS11
internal import Keyring
internal import Sodium

/// A token that has an AES key which cannot leave it: seals and opens with it, each time from login to logout.
struct PKCS11Token: Sendable {
    let uri: PKCS11URI
    let module: String
    let pinFile: String

    static let nonceByteCount = 12
    static let tagByteCount = 16
    private static let pinLimit = 256
    private static let turns = LibraryTurns()

    /// Seconds: as many as an answer over the network may take.
    static let patience = 15
    private let patience: Int

    /// As messages call it.
    var service: String { "pkcs11:" + uri.name }

    init(_ uri: PKCS11URI, _ variable: (String) -> String?, patience: Int) throws(KeyringError) {
        self.uri = uri
        self.patience = patience
        guard let module = uri.module ?? variable("PKCS11_MODULE_PATH") else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "pkcs11:\(uri.name): no module is named",
                    hint: "add ?module-path=/PATH, or set PKCS11_MODULE_PATH"))
        }
        guard let pinFile = uri.pinFile ?? variable("CREDENTIALS_DIRECTORY").map({ $0 + "/pkcs11-pin" }) else {
            throw .service(
                KeyServiceFault(
                    .misconfigured, "pkcs11:\(uri.name): there is no PIN",
                    hint: "add pin-source=file:/PATH, or give the service the credential 'pkcs11-pin'"))
        }
        self.module = module
        self.pinFile = pinFile
    }

    /// - Parameters:
    ///   - output: Has room for what the token has to write.
    ///   - count: What comes out has so many bytes.
    func perform(
        seals: Bool, nonce: [UInt8], associatedData: [UInt8], _ input: UnsafeRawBufferPointer,
        into output: UnsafeMutableRawBufferPointer, count: Int
    ) throws(KeyringError) {
        let pin: SecretBytes
        do { pin = try SecretFile.read(pinFile, limit: Self.pinLimit, forbiddenMode: 0o006) } catch {
            guard case .malformedKeyFile = error else { throw error }
            throw .service(KeyServiceFault(.misconfigured, "\(pinFile) is no PIN"))
        }
        let call = try PKCS11Call(
            uri, module: module, pin: pin, seals: seals, nonce: nonce, associatedData: associatedData, input,
            room: output.count)
        guard Self.turns.run(milliseconds: patience * 1000, call.perform) else {
            throw .service(
                KeyServiceFault(
                    .timedOut, "\(service): the token does not answer", hint: "the keyring stays as it is; try again"))
        }
        if let error = error(call.outcome, seals: seals, call.answer, call.why) { throw error }
        guard call.outputByteCount == count else {
            throw .service(KeyServiceFault(.malformedAnswer, "\(service): its answer makes no sense"))
        }
        call.withOutput { output.copyMemory(from: $0) }
    }

    // MARK: Errors

    private func error(_ outcome: ll_pkcs11_outcome, seals: Bool, _ answer: UInt, _ why: String) -> KeyringError? {
        func fault(_ reason: KeyServiceFault.Reason, _ what: String, _ hint: String? = nil) -> KeyringError {
            .service(KeyServiceFault(reason, "\(service): \(what)", hint: hint))
        }
        switch outcome {
        case ll_pkcs11_done: return nil
        case ll_pkcs11_no_module: return fault(.misconfigured, "its module cannot be loaded: \(why)")
        case ll_pkcs11_no_token: return fault(.unreachable, "the token is not there", "put it in, or name it otherwise")
        case ll_pkcs11_many_tokens: return fault(.misconfigured, "several tokens are called so", "add serial=")
        case ll_pkcs11_no_key: return fault(.keyMissing, "the token has no such AES key")
        case ll_pkcs11_many_keys: return fault(.misconfigured, "several keys are called so", "add id=")
        case ll_pkcs11_loose_key:
            return fault(
                .misconfigured, "the key could leave its token", "make one that is sensitive and not extractable")
        case ll_pkcs11_no_login: return login(answer, fault)
        case ll_pkcs11_refused where !seals && !Self.notTheKey.contains(answer): return .wrongSecret
        default: return other(answer, fault)
        }
    }

    private func login(
        _ answer: UInt, _ fault: (KeyServiceFault.Reason, String, String?) -> KeyringError
    ) -> KeyringError {
        switch answer {
        case 0xA0, 0xA1, 0xA2: fault(.denied, "the PIN is wrong", "a token takes only so many")
        case 0xA3: fault(.denied, "the PIN has expired", nil)
        case 0xA4: fault(.denied, "the PIN is locked: it was wrong too often", nil)
        default: other(answer, fault)
        }
    }

    /// Answers that tell nothing of what was to be opened: of the token's memory, its device, the room for its answer.
    private static let notTheKey: [UInt] = [0x02, 0x30, 0x31, 0x32, 0xE0, 0x150]

    private func other(
        _ answer: UInt, _ fault: (KeyServiceFault.Reason, String, String?) -> KeyringError
    ) -> KeyringError {
        switch answer {
        case 0x68, 0x63: fault(.keyDisabled, "the key may not be used to seal and open", "see its attributes there")
        case 0x70, 0x71: fault(.misconfigured, "the token has no AES-GCM", nil)
        default: fault(.unreachable, "the token does not do it (0x\(String(answer, radix: 16)))", "try again")
        }
    }
}
