import Glibc

/// What a control file reads as, while it is open. Paths are in it too, so it is wiped.
final class ControlText: @unchecked Sendable {
    // Changed by the one who makes it alone, before anyone else has it.
    private var buffer = UnsafeMutableRawBufferPointer(start: nil, count: 0)
    private(set) var byteCount = 0

    init() {}

    convenience init(_ text: String) {
        self.init()
        append(text)
    }

    convenience init(_ bytes: [UInt8]) {
        self.init()
        bytes.withUnsafeBytes { append($0) }
    }

    deinit {
        wipe()
    }

    private func wipe() {
        if let base = buffer.baseAddress { explicit_bzero(base, byteCount) }
        buffer.deallocate()
    }

    func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    func append(_ other: ControlText) { append(UnsafeRawBufferPointer(rebasing: other.buffer[..<other.byteCount])) }

    func append(_ bytes: UnsafeRawBufferPointer) {
        if byteCount + bytes.count > buffer.count {
            let larger = UnsafeMutableRawBufferPointer.allocate(
                byteCount: max(256, 2 * (byteCount + bytes.count)), alignment: 1)
            larger.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[..<byteCount]))
            wipe()
            buffer = larger
        }
        UnsafeMutableRawBufferPointer(rebasing: buffer[byteCount...]).copyMemory(from: bytes)
        byteCount += bytes.count
    }

    func read(at offset: Int, into target: UnsafeMutableRawBufferPointer) -> Int {
        guard offset < byteCount else { return 0 }
        let count = min(target.count, byteCount - offset)
        target.copyMemory(from: UnsafeRawBufferPointer(rebasing: buffer[offset..<offset + count]))
        return count
    }
}
