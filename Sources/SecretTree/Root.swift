/// The root record: what the whole store must be.
struct Root: Sendable, Equatable {
    /// Grows by one with every transaction; remembered outside the store as well.
    var epoch: UInt64 = 0
    /// The sum of all counted records' freshness elements.
    var sum = HashSum()
    var recordCount: UInt64 = 0
    /// Numbers are given out once and never again.
    var nextNode: UInt64 = NodeID.root.rawValue + 1
    var nextContent: UInt64 = 1
    /// Regular files with a name.
    var fileCount: UInt64 = 0

    /// format 4 | reserved 4 | epoch 8 | sum 32 | records 8 | next node 8 | next content 8 | files 8
    static let byteCount = 80
    static let format: UInt32 = 1

    init() {}

    init?(_ bytes: UnsafeRawBufferPointer) {
        guard bytes.count == Self.byteCount, bytes.number(UInt32.self, at: 0) == Self.format else { return nil }
        epoch = bytes.number(UInt64.self, at: 8)
        sum = HashSum(bytes, at: 16)
        recordCount = bytes.number(UInt64.self, at: 48)
        nextNode = bytes.number(UInt64.self, at: 56)
        nextContent = bytes.number(UInt64.self, at: 64)
        fileCount = bytes.number(UInt64.self, at: 72)
    }

    func put(into bytes: UnsafeMutableRawBufferPointer) {
        bytes.put(Self.format, at: 0)
        bytes.put(UInt32(0), at: 4)
        bytes.put(epoch, at: 8)
        sum.put(into: bytes, at: 16)
        bytes.put(recordCount, at: 48)
        bytes.put(nextNode, at: 56)
        bytes.put(nextContent, at: 64)
        bytes.put(fileCount, at: 72)
    }
}
