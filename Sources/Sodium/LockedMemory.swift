internal import CSodium
internal import Glibc
internal import Synchronization

/// Whether keys may lie in memory that the system may swap out.
public enum LockedMemory {
    private static let allowed = Atomic(false)

    /// False by default: without locked memory there are no keys. For the whole process.
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

    /// One page between two that cannot be touched; zero in a forked child. Never unmapped.
    static func makePage(locked: Bool) throws(SodiumError) -> UnsafeMutableRawPointer {
        let page = pageByteCount
        guard
            let area = mmap(nil, 3 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), area != MAP_FAILED
        else { throw .outOfMemory }
        let middle = area + page
        let isReady =
            mprotect(middle, page, PROT_READ | PROT_WRITE) == 0 && madvise(middle, page, MADV_WIPEONFORK) == 0
            && madvise(middle, page, MADV_DONTDUMP) == 0
        guard isReady else {
            munmap(area, 3 * page)
            throw .outOfMemory
        }
        guard locked else { return middle }
        do { try lock(middle, page) } catch {
            munmap(area, 3 * page)
            throw error
        }
        return middle
    }
}
