internal import CPKCS11
internal import Glibc
internal import Keyring
internal import Sodium

/// One use of a token with all that it needs, so that a module that hangs keeps nobody else's memory.
final class PKCS11Call: @unchecked Sendable {
    // Used by one thread at a time: who makes it, then the module's, and when that has returned who made it.
    private let uri: PKCS11URI
    private let module: String
    private let pin: SecretBytes
    private let nonce: [UInt8]
    private let associatedData: [UInt8]
    private let input: SecretBytes
    private var output: SecretBytes
    private var request = ll_pkcs11()
    private var words = [CChar](repeating: 0, count: 256)
    private(set) var outcome = ll_pkcs11_failed

    /// - Parameter room: Bytes for what the token has to write.
    init(
        _ uri: PKCS11URI, module: String, pin: consuming SecretBytes, seals: Bool, nonce: [UInt8],
        associatedData: [UInt8],
        _ input: UnsafeRawBufferPointer, room: Int
    ) throws(KeyringError) {
        self.uri = uri
        self.module = module
        self.pin = pin
        self.nonce = nonce
        self.associatedData = associatedData
        do {
            var copy = try SecretBytes(byteCount: input.count)
            copy.withUnsafeMutableBytes { $0.copyMemory(from: input) }
            self.input = copy
            output = try SecretBytes(byteCount: room)
        } catch { throw .cannotLock }
        request.slot = uri.slot ?? -1
        request.seals = seals ? 1 : 0
    }

    /// What the module has answered, and why it could not be loaded.
    var answer: UInt { request.answer }
    var why: String { String(decoding: words.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self) }
    var outputByteCount: Int { request.output_count }

    func withOutput<R>(_ body: (UnsafeRawBufferPointer) -> R) -> R { output.withUnsafeBytes(body) }

    func perform() {
        input.withUnsafeBytes { input in
            request.input = input.baseAddress?.assumingMemoryBound(to: UInt8.self)
            request.input_count = input.count
            output.withUnsafeMutableBytes { output in
                request.output = output.baseAddress?.assumingMemoryBound(to: UInt8.self)
                request.output_count = output.count
                pin.withUnsafeBytes { pin in
                    request.pin = pin.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    request.pin_count = SecretFile.lineByteCount(pin)
                    performWithNames()
                }
            }
        }
    }

    private func performWithNames() {
        let copies = [module, uri.token, uri.manufacturer, uri.model, uri.serial, uri.object].map { text in
            text.map { strdup($0) } ?? nil
        }
        defer { for copy in copies { free(copy) } }
        let texts = copies.map { UnsafePointer($0) }
        (request.module, request.token, request.manufacturer) = (texts[0], texts[1], texts[2])
        (request.model, request.serial, request.object) = (texts[3], texts[4], texts[5])
        (uri.id ?? []).withUnsafeBufferPointer { id in
            request.id = uri.id == nil ? nil : id.baseAddress
            request.id_count = id.count
            nonce.withUnsafeBufferPointer { nonce in
                request.nonce = nonce.baseAddress
                request.nonce_count = nonce.count
                associatedData.withUnsafeBufferPointer { data in
                    request.associated = data.baseAddress
                    request.associated_count = data.count
                    outcome = ll_pkcs11_perform(&request, &words)
                }
            }
        }
    }
}
