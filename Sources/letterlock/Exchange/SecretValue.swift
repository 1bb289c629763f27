import Glibc
import Sodium

/// A value on its way into or out of a keyring, in memory that is wiped whenever it is given back.
final class SecretValue {
    private var buffer: UnsafeMutableRawBufferPointer
    private(set) var byteCount = 0

    /// The longest file that is taken or given.
    static let limit = 64 << 20

    init() { buffer = .allocate(byteCount: 256, alignment: 16) }

    deinit {
        Memory.wipe(buffer)
        buffer.deallocate()
    }

    private var bytes: UnsafeRawBufferPointer { UnsafeRawBufferPointer(rebasing: buffer[..<byteCount]) }

    /// The bytes, which are there no longer than the call: with the last reference they are wiped.
    func withBytes<R, E: Error>(_ body: (UnsafeRawBufferPointer) throws(E) -> R) throws(E) -> R {
        try withExtendedLifetime(self) { () throws(E) -> R in try body(bytes) }
    }

    func withMutableBytes<R>(_ body: (UnsafeMutableRawBufferPointer) -> R) -> R {
        withExtendedLifetime(self) { body(UnsafeMutableRawBufferPointer(rebasing: buffer[..<byteCount])) }
    }

    func append(_ more: UnsafeRawBufferPointer) {
        reserve(more.count)
        UnsafeMutableRawBufferPointer(rebasing: buffer[byteCount...]).copyMemory(from: more)
        byteCount += more.count
    }

    func append(_ byte: UInt8) {
        reserve(1)
        buffer[byteCount] = byte
        byteCount += 1
    }

    /// For what is not secret: names, punctuation.
    func append(_ text: String) { for byte in text.utf8 { append(byte) } }

    var isUTF8: Bool { Self.isUTF8(bytes) }

    /// Without making a string of it.
    static func isUTF8(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var parser = Unicode.UTF8.ForwardParser()
        var rest = bytes.makeIterator()
        while true {
            switch parser.parseScalar(from: &rest) {
            case .valid: continue
            case .emptyInput: return true
            case .error: return false
            }
        }
    }

    /// Appends what `fill` writes, which says how many bytes of the room that it was given.
    ///
    /// - Returns: False, and nothing is appended, if that is nil.
    @discardableResult
    func appendUninitialized(_ count: Int, _ fill: (UnsafeMutableRawBufferPointer) -> Int?) -> Bool {
        reserve(count)
        let room = UnsafeMutableRawBufferPointer(rebasing: buffer[byteCount..<byteCount + count])
        guard let written = fill(room) else { return false }
        byteCount += written
        return true
    }

    func removeLast(_ count: Int) { byteCount -= min(count, byteCount) }

    private func reserve(_ more: Int) {
        guard byteCount + more > buffer.count else { return }
        let larger = UnsafeMutableRawBufferPointer.allocate(byteCount: 2 * (byteCount + more), alignment: 16)
        larger.copyMemory(from: bytes)
        Memory.wipe(buffer)
        buffer.deallocate()
        buffer = larger
    }

    /// All that a file or a pipe holds.
    static func read(_ descriptor: Int32, _ path: String) throws(Failure) -> SecretValue {
        let value = SecretValue()
        while try value.readSome(descriptor, path) {}
        return value
    }

    /// Appends what one read(2) gives.
    ///
    /// - Returns: False at the end.
    func readSome(_ descriptor: Int32, _ path: String) throws(Failure) -> Bool {
        reserve(65_536)
        let count = Glibc.read(descriptor, buffer.baseAddress! + byteCount, buffer.count - byteCount)
        if count < 0, errno == EINTR { return true }
        guard count >= 0 else { throw SecretEnvironment.failure(path, errno) }
        byteCount += count
        guard byteCount <= Self.limit else { throw Failure("\(path) is too large") }
        return count > 0
    }

    func write(to descriptor: Int32, _ path: String) throws(Failure) {
        var done = 0
        while done < byteCount {
            let count = Glibc.write(descriptor, buffer.baseAddress! + done, byteCount - done)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw Failure("cannot write \(path)", errno: errno) }
            done += count
        }
    }
}

/// A file of a keyring, or what is to become one.
struct ExchangeEntry {
    /// Names of directories, and of the file in the last of them.
    var path: [String]
    var value: SecretValue

    var name: String { path.joined(separator: "/") }

    /// - Throws: if that is no name of a file.
    static func check(_ name: String, in source: String) throws(Failure) {
        let isName =
            !name.isEmpty && name.utf8.count <= 255 && name != "." && name != ".." && !name.utf8.contains(0)
            && !name.contains("/") && name != ".letterlock"
        guard isName else { throw Failure("\(source): '\(name)' cannot be the name of a file") }
    }
}
