internal import CLinux
internal import CSodium
internal import Glibc
internal import Synchronization

/// Pages for keys: out of swap and core dumps, and, where the kernel has memfd_secret(2), out of anyone else's sight:
/// not even root reads them through /proc/PID/mem or a debugger.
public enum LockedMemory {
    private static let allowed = Atomic(false)

    /// Whether keys may lie in memory that the system may swap out: false by default, without locked memory there are
    /// no keys. For the whole process.
    public static var allowsUnlocked: Bool {
        get { allowed.load(ordering: .relaxed) }
        set { allowed.store(newValue, ordering: .relaxed) }
    }

    /// Keeps a range out of swap and core dumps.
    static func lock(_ address: UnsafeMutableRawPointer, _ byteCount: Int) throws(SodiumError) {
        guard sodium_mlock(address, byteCount) != 0 else { return }
        guard allowsUnlocked else { throw .cannotLock }
    }

    static let pageByteCount = Int(sysconf(Int32(_SC_PAGESIZE)))

    static func pages(for byteCount: Int) -> Int { max(1, (byteCount + pageByteCount - 1) / pageByteCount) }

    /// Zeroed pages for keys, between two that cannot be touched. A forked child does not have them.
    static func make(pages count: Int) throws(SodiumError) -> UnsafeMutableRawPointer {
        let middle = try reserve(count)
        if becomesSecret(middle, count) { return middle }
        do {
            try open(middle, count)
            try lock(middle, count * pageByteCount)
        } catch {
            munmap(middle - pageByteCount, (count + 2) * pageByteCount)
            throw error
        }
        return middle
    }

    /// Wipes pages of `make` and gives them back.
    static func remove(_ start: UnsafeMutableRawPointer, pages count: Int) {
        Memory.wipe(UnsafeMutableRawBufferPointer(start: start, count: count * pageByteCount))
        munmap(start - pageByteCount, (count + 2) * pageByteCount)
    }

    /// One page that may be swapped out, zero in a forked child. Never unmapped.
    static func makeUnlockedPage() throws(SodiumError) -> UnsafeMutableRawPointer {
        let page = try reserve(1)
        do { try open(page, 1) } catch {
            munmap(page - pageByteCount, 3 * pageByteCount)
            throw error
        }
        return page
    }

    private static func reserve(_ count: Int) throws(SodiumError) -> UnsafeMutableRawPointer {
        let byteCount = (count + 2) * pageByteCount
        let area = mmap(nil, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        guard let area, area != MAP_FAILED else { throw .outOfMemory }
        return area + pageByteCount
    }

    private static func open(_ start: UnsafeMutableRawPointer, _ count: Int) throws(SodiumError) {
        let byteCount = count * pageByteCount
        guard mprotect(start, byteCount, PROT_READ | PROT_WRITE) == 0, madvise(start, byteCount, MADV_WIPEONFORK) == 0,
            madvise(start, byteCount, MADV_DONTDUMP) == 0
        else { throw .outOfMemory }
    }

    /// Puts secret memory at reserved pages; false where the kernel has none, or no more of it.
    private static func becomesSecret(_ start: UnsafeMutableRawPointer, _ count: Int) -> Bool {
        let descriptor = ll_memfd_secret(UInt32(O_CLOEXEC))
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        let byteCount = count * pageByteCount
        guard ftruncate(descriptor, off_t(byteCount)) == 0 else { return false }
        let mapped = mmap(start, byteCount, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, descriptor, 0)
        guard mapped != MAP_FAILED else {
            // A failed mapping may have taken the reserved pages away.
            _ = mmap(start, byteCount, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0)
            return false
        }
        madvise(start, byteCount, Int32(MADV_DONTFORK))
        return true
    }
}
