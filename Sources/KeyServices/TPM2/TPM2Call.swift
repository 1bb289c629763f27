internal import CTSS2
internal import Glibc
internal import Keyring
internal import Sodium

/// One use of a TPM with all that it needs, so that a TPM that hangs keeps nobody else's memory.
final class TPM2Call: @unchecked Sendable {
    // Used by one thread at a time: who makes it, then the library's, and when that has returned who made it.
    private let tcti: String?
    private let authorization: SecretKey?
    private var key: SecretBytes
    private(set) var blob: [UInt8]
    private var request = ll_tpm2()
    private(set) var outcome = ll_tpm2_failed

    /// - Parameters:
    ///   - key: What is to be sealed; nil to open.
    ///   - blob: What is to be opened; as long as there is room for what is sealed.
    init(_ spec: TPM2Spec, _ authorization: SecretKey?, key sealing: SecretKey?, blob: [UInt8]) throws(KeyringError) {
        tcti = spec.tcti
        self.authorization = authorization
        self.blob = blob
        do { key = try SecretBytes(byteCount: SecretKey.byteCount) } catch { throw .cannotLock }
        request.seals = sealing == nil ? 0 : 1
        request.pcrs = spec.pcrs
        request.bank = spec.bank
        request.blob_count = blob.count
        // Its own copy: the library writes to where it reads.
        sealing?.withKey { sealing in
            let bytes = sealing.bytes
            key.withUnsafeMutableBytes { $0.copyMemory(from: bytes) }
        }
    }

    /// What the TPM has answered, and how long the blob is.
    var answer: UInt32 { request.answer }
    var blobByteCount: Int { request.blob_count }

    func withKey<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try key.withUnsafeBytes(body)
    }

    func perform() {
        let tcti = tcti.map { strdup($0) } ?? nil
        defer { free(tcti) }
        request.tcti = UnsafePointer(tcti)
        key.withUnsafeMutableBytes { key in
            request.key = key.baseAddress?.assumingMemoryBound(to: UInt8.self)
            blob.withUnsafeMutableBufferPointer { blob in
                request.blob = blob.baseAddress
                guard let authorization else {
                    outcome = ll_tpm2_perform(&request)
                    return
                }
                authorization.withKey { authorization in
                    request.auth = authorization.bytes.baseAddress?.assumingMemoryBound(to: UInt8.self)
                    request.auth_count = authorization.bytes.count
                    outcome = ll_tpm2_perform(&request)
                }
            }
        }
    }
}
