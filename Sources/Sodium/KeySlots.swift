internal import Glibc
internal import Synchronization

/// Hands out 32-byte places in locked pages.
///
/// RLIMIT_MEMLOCK counts pages, and a keyring may have thousands of KEK versions, so 128 of them share one. A page
/// once locked is kept for the keys to come.
enum KeySlots {
    static let byteCount = 32

    /// Addresses of zeroed places that nobody has.
    private static let free = Mutex<[UInt]>([])

    static func take() throws(SodiumError) -> UnsafeMutableRawBufferPointer {
        let address = try free.withLock { free throws(SodiumError) in
            if free.isEmpty {
                let page = UInt(bitPattern: try LockedMemory.make(pages: 1))
                free = stride(from: 0, to: UInt(LockedMemory.pageByteCount), by: byteCount).map { page + $0 }
            }
            return free.removeLast()
        }
        return UnsafeMutableRawBufferPointer(start: UnsafeMutableRawPointer(bitPattern: address), count: byteCount)
    }

    static func giveBack(_ slot: UnsafeMutableRawBufferPointer) {
        Memory.wipe(slot)
        free.withLock { $0.append(UInt(bitPattern: slot.baseAddress)) }
    }
}
