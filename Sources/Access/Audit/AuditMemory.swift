internal import Glibc
internal import Sodium
internal import Synchronization

/// What of a log outlives the server that writes it, in memory that the next one gets: the mount's number, and the last
/// record.
///
///     mount 8 | number 8 | hash 32
public struct AuditMemory: @unchecked Sendable {
    // Written by whoever writes the log.
    public static let byteCount = 48
    private let base: UnsafeMutableRawPointer

    /// - Precondition: `memory` is zero, or was such before; it stays as long as the process does.
    public init(_ memory: UnsafeMutableRawPointer) { base = memory }

    var mount: String {
        var number = base.load(as: UInt64.self)
        if number == 0 {
            number = Self.random()
            base.storeBytes(of: number, as: UInt64.self)
        }
        return Self.text(number)
    }

    static func newMount() -> String { text(random()) }

    private static func random() -> UInt64 {
        var number: UInt64 = 0
        withUnsafeMutableBytes(of: &number) { Randomness.fill($0) }
        return number | 1
    }

    private static func text(_ number: UInt64) -> String { String(number & 0xffff_ffff, radix: 16) }

    /// Nil before the first record.
    var head: AuditHead? {
        get {
            let number = base.load(fromByteOffset: 8, as: UInt64.self)
            guard number != 0 else { return nil }
            var head = AuditHead()
            head.number = number
            head.hash = (base + 16).loadUnaligned(as: AuditHash.self)
            return head
        }
        nonmutating set {
            guard let newValue else { return }
            // A server that dies in between leaves a number that is one too small, which says nothing wrong.
            withUnsafeBytes(of: newValue.hash) { (base + 16).copyMemory(from: $0.baseAddress!, byteCount: 32) }
            atomicMemoryFence(ordering: .sequentiallyConsistent)
            base.storeBytes(of: newValue.number, toByteOffset: 8, as: UInt64.self)
        }
    }
}

/// The last record of a log, signed, in a file outside of it: a log that is shorter has lost its end.
///
///     NUMBER HASH KEY SIGNATURE
public struct AuditHeadFile {
    let store: String

    public init(store: String) { self.store = store }

    private func message(_ number: UInt64, _ hash: AuditHash) -> [UInt8] {
        Array("letterlock audit head 1 \(store) \(number) ".utf8) + withUnsafeBytes(of: hash) { Array($0) }
    }

    func write(_ head: AuditHead, to path: String, _ key: SigningKey) {
        let signature = message(head.number, head.hash).withUnsafeBytes { key.sign($0) }
        let hash = withUnsafeBytes(of: head.hash) { Array($0) }
        let parts = [hash, key.publicKey, signature].map { String(decoding: AuditText.hex($0), as: UTF8.self) }
        let text = Array("\(head.number) \(parts.joined(separator: " "))\n".utf8)
        let temporary = path + ".new"
        guard let file = Descriptor(open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0o600)),
            Glibc.write(file.number, text, text.count) == text.count
        else { return }
        rename(temporary, path)
    }

    /// - Parameter key: Who must have signed it; nil for whom it names itself.
    /// - Returns: nil if there is none that can be believed.
    public func read(_ path: String, key: [UInt8]?) -> (head: AuditHead, key: [UInt8])? {
        guard let file = Descriptor(open(path, O_RDONLY | O_CLOEXEC)) else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4096)
        let count = Glibc.read(file.number, &bytes, bytes.count)
        guard count > 0, bytes[count - 1] == UInt8(ascii: "\n") else { return nil }
        let words = bytes[..<(count - 1)].split(separator: UInt8(ascii: " "))
        guard words.count == 4, let number = UInt64(String(decoding: words[0], as: UTF8.self)),
            let hash = AuditText.bytes(hex: words[1], count: 32).map({ AuditHash($0) }),
            let signer = AuditText.bytes(hex: words[2], count: 32),
            let signature = AuditText.bytes(hex: words[3], count: 64), key == nil || key == signer,
            message(number, hash).withUnsafeBytes({ SigningKey.verify(signature, of: $0, by: signer) })
        else { return nil }
        var head = AuditHead()
        head.number = number
        head.hash = hash
        return (head, signer)
    }
}
