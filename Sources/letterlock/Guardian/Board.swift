import Glibc
import Keyring
import SecretFS
import Synchronization

/// Memory that guardian and servers share: what they tell each other beside their channel, and what a successor needs
/// of its predecessor. No secrets.
///
///     0    version 4 | servers 4 | restarts 4 | guardian 4 | server 4 | era 4 | upgrades 4 | upgrade outcome 4
///     32   locked 4 | resend 4 | the clocks at its making: wall 8, boot 8 (seconds) | lease 8
///     64   the last server's end, 192 bytes of text
///     256  the last upgrade's outcome, 768 bytes of text
///     1024 length 4 | the kernel's INIT request
///     8192 the ledger
final class Board: @unchecked Sendable {
    // Unchecked: each field has one process that writes it, and whoever reads it takes what there is.
    private static let version: UInt32 = 2
    private static let ownByteCount = 8192
    private static let initPlace = 1024
    private static let initLimit = 4096
    static let byteCount = ownByteCount + Ledger.byteCount

    let descriptor: Int32
    private let memory: UnsafeMutableRawBufferPointer

    /// Makes an empty one.
    static func make() throws(Failure) -> Board {
        let descriptor = memfd_create("letterlock-board", UInt32(MFD_CLOEXEC))
        guard descriptor >= 0, ftruncate(descriptor, off_t(byteCount)) == 0 else {
            throw Failure("cannot make shared memory", errno: errno)
        }
        let board = try Board(descriptor: descriptor, isWhole: false)
        board.set(version, at: 0)
        let clock = ScheduleClock.now
        board.set(clock.wall.seconds, at: 40)
        board.set(clock.boot, at: 48)
        return board
    }

    /// Maps one that was handed over.
    ///
    /// - Parameter isWhole: With the ledger, which is a server's alone.
    init(descriptor: Int32, isWhole: Bool) throws(Failure) {
        _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
        let count = isWhole ? Self.byteCount : Self.ownByteCount
        let mapped = mmap(nil, count, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0)
        guard let mapped, mapped != MAP_FAILED else { throw Failure("cannot map shared memory", errno: errno) }
        self.descriptor = descriptor
        memory = UnsafeMutableRawBufferPointer(start: mapped, count: count)
        let found: UInt32 = get(0)
        guard found == Self.version || found == 0 else {
            throw Failure(
                "the guardian of this mount is of another version",
                hint: "unmount it and mount it again to use the new one")
        }
    }

    private func number(_ place: Int) -> UInt32 { get(place) }
    private func get<T: FixedWidthInteger>(_ place: Int) -> T { memory.load(fromByteOffset: place, as: T.self) }
    private func set<T: FixedWidthInteger>(_ value: T, at place: Int) {
        memory.storeBytes(of: value, toByteOffset: place, as: T.self)
    }

    /// How many servers there have been.
    var servers: UInt32 {
        get { number(4) }
        set { set(newValue, at: 4) }
    }
    /// How many of them took the place of one that had died.
    var restarts: UInt32 {
        get { number(8) }
        set { set(newValue, at: 8) }
    }
    var guardian: Int32 {
        get { self.get(12) }
        set { set(newValue, at: 12) }
    }
    var server: Int32 {
        get { self.get(16) }
        set { set(newValue, at: 16) }
    }
    /// Attempts to upgrade that are over, and whether the last one has worked.
    var upgrades: UInt32 { number(24) }
    var hasUpgraded: Bool { number(28) == 1 }
    var isLocked: Bool {
        get { number(32) == 1 }
        set { set(UInt32(newValue ? 1 : 0), at: 32) }
    }
    /// Nil until a successor has asked for it.
    var kernelResends: Bool? {
        get {
            switch number(36) {
            case 1: true
            case 2: false
            default: nil
            }
        }
        set { set(UInt32(newValue.map { $0 ? 1 : 2 } ?? 0), at: 36) }
    }

    /// When the mount was made; nil if its guardian does not tell.
    var clockAtMount: ScheduleClock? {
        let wall: Int64 = get(40)
        return wall == 0 ? nil : ScheduleClock(wall: Timestamp(seconds: wall), boot: get(48))
    }

    /// When a key service has unsealed the keys last: seconds since boot, time asleep among them.
    var leaseBegin: Int64 {
        get { self.get(56) }
        set { set(newValue, at: 56) }
    }

    /// A number that no file system object of this mount has had before.
    func nextEra() -> Int {
        let era: UInt32 = get(20) &+ 1
        set(era, at: 20)
        return Int(era)
    }

    var lastEnd: String {
        get { text(at: 64, limit: 192) }
        set { put(newValue, at: 64, limit: 192) }
    }

    var upgradeText: String { text(at: 256, limit: 768) }

    func endUpgrade(_ hasWorked: Bool, _ text: String) {
        put(text, at: 256, limit: 768)
        set(UInt32(hasWorked ? 1 : 2), at: 28)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        set(upgrades &+ 1, at: 24)
    }

    private func text(at place: Int, limit: Int) -> String {
        String(decoding: memory[place..<place + limit].prefix { $0 != 0 }, as: UTF8.self)
    }

    private func put(_ text: String, at place: Int, limit: Int) {
        var bytes = Array(text.utf8.prefix(limit - 1))
        bytes += [UInt8](repeating: 0, count: limit - bytes.count)
        UnsafeMutableRawBufferPointer(rebasing: memory[place..<place + limit]).copyBytes(from: bytes)
    }

    /// The kernel's first request, which every successor has to be told.
    var initRequest: [UInt8]? {
        let count = Int(number(Self.initPlace))
        guard count > 0, count <= Self.initLimit else { return nil }
        return Array(memory[Self.initPlace + 4..<Self.initPlace + 4 + count])
    }

    func keep(initRequest request: UnsafeRawBufferPointer) {
        guard request.count <= Self.initLimit else { return }
        UnsafeMutableRawBufferPointer(rebasing: memory[(Self.initPlace + 4)...]).copyMemory(from: request)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        set(UInt32(request.count), at: Self.initPlace)
    }

    /// Of one that is mapped whole.
    var ledgerMemory: UnsafeMutableRawBufferPointer {
        UnsafeMutableRawBufferPointer(rebasing: memory[Self.ownByteCount...])
    }
}
