internal import CSodium
internal import Synchronization

/// A 32-byte key for the time of one call.
public struct BorrowedKey: ~Copyable {
    public let bytes: UnsafeRawBufferPointer

    /// The bytes must stay valid, and unchanged, for as long as this value lives.
    public init(_ bytes: UnsafeRawBufferPointer) {
        precondition(bytes.count == SecretKey.byteCount)
        self.bytes = bytes
    }
}

/// A 32-byte key in locked memory, shared by reference and wiped with the last one.
public final class SecretKey: Sendable {
    public static let byteCount = 32

    private let slot: KeySlot

    private init(_ slot: KeySlot) { self.slot = slot }

    deinit { KeySlabs.shared.giveBack(slot) }

    public static func random() throws(SodiumError) -> SecretKey {
        let key = SecretKey(try KeySlabs.shared.take())
        Randomness.fill(key.slot.bytes)
        return key
    }

    /// Copies 32 bytes.
    public convenience init(copying bytes: UnsafeRawBufferPointer) throws(SodiumError) {
        precondition(bytes.count == Self.byteCount)
        self.init(try KeySlabs.shared.take())
        slot.bytes.copyMemory(from: bytes)
    }

    public func withKey<R, E: Error>(_ body: (borrowing BorrowedKey) throws(E) -> R) throws(E) -> R {
        try body(BorrowedKey(UnsafeRawBufferPointer(slot.bytes)))
    }

    /// Zeroes a destroyed key for good, also for those who still refer to it.
    public func wipe() { Memory.wipe(slot.bytes) }
}

/// 32 bytes in a slab.
private struct KeySlot: @unchecked Sendable {
    let bytes: UnsafeMutableRawBufferPointer
}

/// Locked pages cut into keys, since a limit on locked memory counts pages and a keyring may have many versions.
private final class KeySlabs: Sendable {
    static let shared = KeySlabs()
    private static let slabByteCount = 4096
    private let free = Mutex<[KeySlot]>([])

    func take() throws(SodiumError) -> KeySlot {
        if let slot = free.withLock({ $0.popLast() }) { return slot }
        guard let base = sodium_malloc(Self.slabByteCount) else { throw .outOfMemory }
        do { try LockedMemory.lock(base, Self.slabByteCount) } catch {
            sodium_free(base)
            throw error
        }
        sodium_memzero(base, Self.slabByteCount)
        let slots = stride(from: 0, to: Self.slabByteCount, by: SecretKey.byteCount).map { place in
            KeySlot(bytes: UnsafeMutableRawBufferPointer(start: base + place, count: SecretKey.byteCount))
        }
        // A slab is kept for good: the next key takes the place of a wiped one.
        free.withLock { $0 += slots.dropFirst() }
        return slots[0]
    }

    func giveBack(_ slot: KeySlot) {
        Memory.wipe(slot.bytes)
        free.withLock { $0.append(slot) }
    }
}
