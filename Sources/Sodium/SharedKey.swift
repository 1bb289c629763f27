internal import CLinux
internal import Glibc

/// A key in memory that several processes share through a descriptor: who has the descriptor has the key.
///
/// The memory is that of memfd_secret(2) where the kernel has it, else an anonymous file that the maker keeps locked.
/// The page is `magic 8 | key 32`; without the magic there is no key in it.
public final class SharedKey: @unchecked Sendable {
    // The page is written by one process at a time: the one that serves.
    private let page: UnsafeMutableRawBufferPointer
    /// Close-on-exec; owned by this value.
    public let descriptor: Int32

    private static let magic: UInt64 = 0x3159_454b_4b4c_4c31

    /// Makes an empty one.
    ///
    /// - Throws: `.cannotLock` if its memory might reach swap, unless that is allowed.
    public static func make() throws(SodiumError) -> SharedKey {
        let secret = ll_memfd_secret(UInt32(O_CLOEXEC))
        let descriptor = secret >= 0 ? secret : memfd_create("letterlock-key", UInt32(MFD_CLOEXEC))
        guard descriptor >= 0 else { throw .outOfMemory }
        guard ftruncate(descriptor, off_t(LockedMemory.pageByteCount)) == 0 else {
            close(descriptor)
            throw .outOfMemory
        }
        return try SharedKey(descriptor: descriptor)
    }

    /// Maps one that was handed over; the descriptor is this value's from now on.
    public init(descriptor: Int32) throws(SodiumError) {
        try Sodium.start()
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        let count = LockedMemory.pageByteCount
        let mapped = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapped, mapped != MAP_FAILED else {
            close(descriptor)
            throw .cannotLock
        }
        do { if !Self.isSecret(descriptor) { try LockedMemory.lock(mapped, count) } } catch {
            munmap(mapped, count)
            close(descriptor)
            throw error
        }
        madvise(mapped, count, Int32(MADV_DONTDUMP))
        madvise(mapped, count, Int32(MADV_DONTFORK))
        page = UnsafeMutableRawBufferPointer(start: mapped, count: count)
        self.descriptor = descriptor
    }

    deinit {
        munmap(page.baseAddress, page.count)
        close(descriptor)
    }

    /// Secret memory is locked as it is.
    private static func isSecret(_ descriptor: Int32) -> Bool { ll_file_system_magic(descriptor) == 0x5345_434d }

    public func put(_ key: SecretKey) {
        key.withKey { key in
            UnsafeMutableRawBufferPointer(rebasing: page[8..<40]).copyMemory(from: key.bytes)
        }
        page.storeBytes(of: Self.magic, as: UInt64.self)
    }

    /// The key; nil if there is none.
    public func key() throws(SodiumError) -> SecretKey? {
        guard page.load(as: UInt64.self) == Self.magic else { return nil }
        return try SecretKey(copying: UnsafeRawBufferPointer(rebasing: page[8..<40]))
    }

    /// Takes the key away from everyone.
    public func wipe() { Memory.wipe(page) }
}
