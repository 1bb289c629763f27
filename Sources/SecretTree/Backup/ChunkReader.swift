internal import Glibc
internal import Sodium

/// A sealed stream, read chunk by chunk from a descriptor. Nothing is given out that does not authenticate in its place.
final class ChunkReader {
    private let descriptor: Int32
    private let seal: BackupSeal
    private var chunkCount: UInt64 = 0
    private var plaintext: [UInt8] = []
    private var place = 0
    private var isLast = false

    /// - Parameter descriptor: Stands where the first chunk begins, and stays the caller's.
    init(descriptor: Int32, seal: BackupSeal) {
        self.descriptor = descriptor
        self.seal = seal
    }

    /// The next bytes of the stream.
    func take(_ count: Int) throws(BackupError) -> ArraySlice<UInt8> {
        while plaintext.count - place < count { try readChunk() }
        defer { place += count }
        return plaintext[place..<place + count]
    }

    /// Nothing may follow, neither in the stream nor behind it.
    func checkEnd() throws(BackupError) {
        guard isLast, place == plaintext.count else { throw .damaged("it goes on after its end") }
        guard try Self.read(1, descriptor).isEmpty else { throw .damaged("something stands behind its end") }
    }

    private func readChunk() throws(BackupError) {
        // Its stream has no end of its own, though the last chunk says that it is.
        guard !isLast else { throw .damaged("its last part is too short") }
        let head = try Self.read(BackupFormat.chunkHeadByteCount, descriptor)
        guard head.count == BackupFormat.chunkHeadByteCount else { throw .cut }
        let length = head.withUnsafeBytes { $0.number(UInt32.self, at: 0) }
        let count = Int(length & ~BackupFormat.lastMark)
        guard count > 0, count <= BackupFormat.chunkByteCount else {
            throw .damaged("part \(chunkCount + 1) has no proper length")
        }
        let body = try Self.read(count, descriptor)
        guard body.count == count else { throw .cut }
        guard let opened = seal.open(head + body, number: chunkCount) else {
            throw .damaged("part \(chunkCount + 1) does not authenticate")
        }
        isLast = length & BackupFormat.lastMark != 0
        chunkCount += 1
        plaintext.removeFirst(place)
        place = 0
        plaintext += opened
    }

    /// So many bytes, or fewer at the end of the file.
    static func read(_ count: Int, _ descriptor: Int32) throws(BackupError) -> [UInt8] {
        var number: Int32 = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: count) { buffer, filled in
            while filled < count {
                let got = Glibc.read(descriptor, buffer.baseAddress! + filled, count - filled)
                if got < 0, errno == EINTR { continue }
                if got < 0 { number = errno }
                guard got > 0 else { break }
                filled += got
            }
        }
        guard number == 0 else { throw .unreadable(errno: number) }
        return bytes
    }
}
