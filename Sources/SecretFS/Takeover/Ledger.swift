public import Access
import Fuse
import Glibc
public import SecretTree
import Synchronization

/// What a server would forget with its death, in memory that outlives it: open handles with the values that they gather
/// or read, and which requests are done. No secrets, only numbers and times.
///
/// The memory is shared with whoever keeps it for the next server. A process that is killed has made all of its writes
/// to it up to some point, in order, and that is all that is relied upon.
///
/// A request is *done* when the transaction that it stands for is committed. So the number of a request is written down
/// with the epoch that its transaction makes, before it is committed: the store's epoch tells afterwards.
///
///     0     magic 8 | place in the ring 8 | first policy and 1, 4 | policy whose predecessors' pages are dropped 4
///           | cells that were ever taken 8 | reserved
///     64    64 slots of 16: request 8 | epoch 8         what the worker of that number did last
///     1088  the audit log's place and end 48
///     2048  256 requests of 8                            what was done before the server that serves now
///     4096  512 times of 8                               when a file was last opened with the page cache, by its node
///     8192  cells of 128
public final class Ledger: CommitWitness, @unchecked Sendable {
    // Unchecked: a slot is its worker's alone, cells are given to one owner each under `free`, the rest changes before
    // the first request is served.
    private static let magic: UInt64 = 0x3230_5245_4744_454c
    private static let slotCount = 64
    private static let slotsPlace = 64
    private static let auditPlace = slotsPlace + slotCount * 16
    private static let doneCount = 256
    private static let donePlace = 2048
    private static let openingCount = 512
    private static let openingsPlace = 4096
    private static let cellsPlace = 8192
    /// The epoch of a slot whose request has no transaction.
    private static let never = UInt64.max

    private let memory: UnsafeMutableRawBufferPointer
    private struct FreeCells {
        var givenBack: [Int]
        /// How many were ever taken: those behind them are free, and their pages were never touched.
        var takenCount: Int
    }
    private static let takenCountPlace = 24
    private let cellCount: Int
    private let free: Mutex<FreeCells>
    /// Requests that an earlier server has done, though their answers may not have come through.
    private let done = Mutex<Set<UInt64>>([])
    /// Of the last requests of the earlier server: which one has made an epoch.
    private let makers = Mutex<[UInt64: UInt64]>([:])
    /// The cell of the session that each worker is committing.
    private let committing: UnsafeMutablePointer<LedgerCell?>

    public static let byteCount = 2 << 20

    /// - Precondition: `memory` is zero, or was a ledger before; it stays as long as the process does.
    public init(memory: UnsafeMutableRawBufferPointer) {
        precondition(memory.count >= Self.cellsPlace + LedgerCell.byteCount)
        self.memory = memory
        let found = memory.load(as: UInt64.self)
        if found != Self.magic {
            // New memory is zero, and takes no room before it is written to.
            if found != 0 { memory.initializeMemory(as: UInt8.self, repeating: 0) }
            memory.storeBytes(of: Self.magic, as: UInt64.self)
        }
        cellCount = (memory.count - Self.cellsPlace) / LedgerCell.byteCount
        let taken = min(max(0, memory.load(fromByteOffset: Self.takenCountPlace, as: Int.self)), cellCount)
        let cells = memory.baseAddress! + Self.cellsPlace
        // Taken from the end: low cells first, so that few pages are touched.
        let givenBack = (0..<taken).reversed().filter {
            LedgerCell(base: cells + $0 * LedgerCell.byteCount).kind == .free
        }
        free = Mutex(FreeCells(givenBack: givenBack, takenCount: taken))
        committing = .allocate(capacity: Self.slotCount)
        committing.initialize(repeating: nil, count: Self.slotCount)
    }

    deinit { committing.deallocate() }

    // MARK: Audit

    /// What of the audit log outlives its server.
    public var auditMemory: AuditMemory { AuditMemory(memory.baseAddress! + Self.auditPlace) }

    // MARK: Policy

    /// The generation of the policy that held when the mount was made.
    var firstPolicy: UInt32 { memory.load(fromByteOffset: 16, as: UInt32.self) &- 1 }

    /// Of the last policy at whose coming into force pages were dropped.
    var droppedPolicy: UInt32 {
        get { memory.load(fromByteOffset: 20, as: UInt32.self) }
        set { memory.storeBytes(of: newValue, toByteOffset: 20, as: UInt32.self) }
    }

    /// What the keyring's policy is when it is opened.
    func note(policy: UInt32) {
        guard memory.load(fromByteOffset: 16, as: UInt32.self) == 0 else { return }
        memory.storeBytes(of: policy &+ 1, toByteOffset: 16, as: UInt32.self)
        droppedPolicy = policy
    }

    // MARK: Cells

    /// A cell for a new handle; nil if there is none left, and the handle will not be known to the next server.
    func take() -> LedgerCell? {
        let index = free.withLock { free -> Int? in
            if let index = free.givenBack.popLast() { return index }
            guard free.takenCount < cellCount else { return nil }
            free.takenCount += 1
            // Before the cell is used: the next server looks no further.
            memory.storeBytes(of: free.takenCount, toByteOffset: Self.takenCountPlace, as: Int.self)
            return free.takenCount - 1
        }
        return index.map(cell(at:))
    }

    func giveBack(_ cell: LedgerCell) {
        cell.clear()
        free.withLock { $0.givenBack.append(cell.index) }
    }

    private func cell(at index: Int) -> LedgerCell {
        LedgerCell(base: memory.baseAddress! + Self.cellsPlace + index * LedgerCell.byteCount, index: index)
    }

    /// The cells in use.
    func cells() -> [LedgerCell] {
        let (unused, taken) = free.withLock { (Set($0.givenBack), $0.takenCount) }
        return (0..<taken).lazy.filter { !unused.contains($0) }.map { self.cell(at: $0) }
    }

    // MARK: Openings

    /// Writes down that a file is opened with the page cache, whose readers have no cell.
    ///
    /// - Parameter time: Seconds of the monotonic clock, which all servers have in common.
    func noteOpening(of node: NodeID, at time: Double) {
        memory.storeBytes(of: time, toByteOffset: openingPlace(of: node), as: Double.self)
    }

    /// When a file was opened last, at the latest: files share these times.
    func lastOpening(of node: NodeID) -> Double {
        memory.load(fromByteOffset: openingPlace(of: node), as: Double.self)
    }

    private func openingPlace(of node: NodeID) -> Int {
        Self.openingsPlace + Int(node.rawValue % UInt64(Self.openingCount)) * 8
    }

    // MARK: Requests

    /// True if an earlier server has done what this request asks for.
    func hasDone(_ request: UInt64) -> Bool { done.withLock { $0.contains(request) } }

    /// The request of an earlier server that made an epoch, if it was one of its last.
    func request(thatMade epoch: UInt64) -> UInt64? { makers.withLock { $0[epoch] } }

    /// Takes up what an earlier server left: afterwards `hasDone` knows its requests.
    ///
    /// - Parameter epoch: The last transaction that has happened.
    func takeUp(epoch: UInt64) {
        for slot in 0..<Self.slotCount {
            let place = Self.slotsPlace + slot * 16
            let request = memory.load(fromByteOffset: place, as: UInt64.self)
            let made = memory.load(fromByteOffset: place + 8, as: UInt64.self)
            memory.storeBytes(of: Self.never, toByteOffset: place + 8, as: UInt64.self)
            // What has not happened must not be taken for another transaction that gets its epoch.
            guard request != 0, made != 0, made <= epoch else { continue }
            makers.withLock { $0[made] = request }
            let next = memory.load(fromByteOffset: 8, as: UInt64.self)
            memory.storeBytes(
                of: request, toByteOffset: Self.donePlace + Int(next % UInt64(Self.doneCount)) * 8, as: UInt64.self)
            memory.storeBytes(of: next + 1, toByteOffset: 8, as: UInt64.self)
        }
        let known = (0..<Self.doneCount).map { memory.load(fromByteOffset: Self.donePlace + $0 * 8, as: UInt64.self) }
        done.withLock { $0 = Set(known.filter { $0 != 0 }) }
    }

    /// Runs `body`, in which the calling worker commits the value that the session of `cell` gathers.
    func committing<R>(_ cell: LedgerCell?, _ body: () throws(Errno) -> R) throws(Errno) -> R {
        guard let cell, let slot = CurrentRequest.slot, slot < Self.slotCount else { return try body() }
        committing[slot] = cell
        defer { committing[slot] = nil }
        return try body()
    }

    // MARK: CommitWitness

    public func willCommit(epoch: UInt64) {
        guard let slot = CurrentRequest.slot, slot < Self.slotCount, let request = CurrentRequest.unique else { return }
        willCommit(epoch: epoch, request: request, slot: slot)
    }

    /// The worker `slot` is about to commit the transaction that makes `epoch` for `request`.
    func willCommit(epoch: UInt64, request: UInt64, slot: Int) {
        committing[slot]?.commitEpoch = epoch
        let place = Self.slotsPlace + slot * 16
        let isNoted =
            memory.load(fromByteOffset: place, as: UInt64.self) == request
            && memory.load(fromByteOffset: place + 8, as: UInt64.self) != Self.never
        // The first transaction is what the request stands for; what follows is done at an opening as well.
        guard !isNoted else { return }
        memory.storeBytes(of: Self.never, toByteOffset: place + 8, as: UInt64.self)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        memory.storeBytes(of: request, toByteOffset: place, as: UInt64.self)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
        memory.storeBytes(of: epoch, toByteOffset: place + 8, as: UInt64.self)
        atomicMemoryFence(ordering: .sequentiallyConsistent)
    }

    public func didNotCommit(epoch: UInt64) {
        guard let slot = CurrentRequest.slot, slot < Self.slotCount else { return }
        didNotCommit(epoch: epoch, slot: slot)
    }

    func didNotCommit(epoch: UInt64, slot: Int) {
        if committing[slot]?.commitEpoch == epoch { committing[slot]?.commitEpoch = 0 }
        let place = Self.slotsPlace + slot * 16 + 8
        guard memory.load(fromByteOffset: place, as: UInt64.self) == epoch else { return }
        memory.storeBytes(of: Self.never, toByteOffset: place, as: UInt64.self)
    }
}
