import Glibc

/// Page-aligned memory for requests and replies, which carry plaintext: left out of core dumps, kept out of swap where
/// the limit on locked memory leaves room for that, and given back wiped.
struct PlaintextBuffer: ~Copyable {
    let bytes: UnsafeMutableRawBufferPointer
    /// False for memory of malloc's, which is what there is when no mapping can be had.
    private let isMapped: Bool

    /// - Parameter isResident: All of it has its pages from the beginning.
    init(byteCount: Int, isResident: Bool = false) {
        let rounded = (byteCount + 4095) & ~4095
        let address = mmap(nil, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let address, address != MAP_FAILED else {
            bytes = .allocate(byteCount: rounded, alignment: 4096)
            isMapped = false
            if isResident { memset(bytes.baseAddress!, 0, rounded) }
            return
        }
        bytes = UnsafeMutableRawBufferPointer(start: address, count: rounded)
        isMapped = true
        madvise(address, rounded, Int32(MADV_DONTDUMP))
        // As pages are touched: an idle server's buffers cost nothing. Failure leaves the memory as it was.
        if Self.mayLock { _ = mlock2(address, rounded, UInt32(MLOCK_ONFAULT)) }
        if isResident { memset(address, 0, rounded) }
    }

    deinit {
        wipe(bytes, bytes.count)
        if isMapped {
            munmap(bytes.baseAddress, bytes.count)
        } else {
            bytes.deallocate()
        }
    }

    /// The whole buffer counts against the limit, which keys need more.
    private static let mayLock: Bool = {
        var limit = rlimit()
        guard geteuid() != 0 else { return true }
        return getrlimit(__RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= 64 << 20
    }()
}
