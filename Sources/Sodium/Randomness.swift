internal import CSodium
internal import Synchronization

/// Random bytes of the system.
public enum Randomness {
    public static func fill(_ bytes: UnsafeMutableRawBufferPointer) {
        guard let base = bytes.baseAddress else { return }
        randombytes_buf(base, bytes.count)
    }

    /// Fills a nonce from a supply, because asking the kernel for each costs more than the sealing of a small record.
    ///
    /// - Precondition: At most 64 bytes.
    public static func nonce(into nonce: UnsafeMutableRawBufferPointer) {
        precondition(nonce.count <= 64, "a nonce has at most 64 bytes")
        supply.withLock { $0.take(nonce) }
    }

    private static let supply = Mutex(NonceSupply())
}

/// A page of random bytes, each given out once and wiped.
///
/// The page and the count of what is left in it become zero in a forked child, so that no child repeats its
/// parent's nonces.
private struct NonceSupply: ~Copyable, @unchecked Sendable {
    // The page is touched under the mutex around this alone.
    /// `bytes left 8 | random bytes`; nil if there is no such page, and each nonce is asked for.
    private let page: UnsafeMutableRawBufferPointer?

    init() {
        page = (try? LockedMemory.makeUnlockedPage()).map {
            UnsafeMutableRawBufferPointer(start: $0, count: LockedMemory.pageByteCount)
        }
    }

    func take(_ nonce: UnsafeMutableRawBufferPointer) {
        guard let page else { return Randomness.fill(nonce) }
        var left = page.load(as: Int.self)
        if left < nonce.count {
            let random = UnsafeMutableRawBufferPointer(rebasing: page[8...])
            Randomness.fill(random)
            left = random.count
        }
        let taken = UnsafeMutableRawBufferPointer(rebasing: page[page.count - left..<page.count - left + nonce.count])
        nonce.copyMemory(from: UnsafeRawBufferPointer(taken))
        Memory.wipe(taken)
        page.storeBytes(of: left - nonce.count, as: Int.self)
    }
}
