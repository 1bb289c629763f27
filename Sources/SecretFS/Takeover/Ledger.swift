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
///     0     magic 8 | place in the ring 8 | first policy and 1, 4 | policy whose predecessors' pages are dropped 4 | reserved
///     64    64 slots of 16: request 8 | epoch 8         what the worker of that number did last
///     1088  the audit log's place and end 48
///     2048  256 requests of 8                            what was done before the server that serves now
///     4096  cells of 128
public final class Ledger: CommitWitness, @unchecked Sendable {
    // Unchecked: a slot is its worker's alone, cells are given to one owner each under `free`, the rest changes before
    // the first request is served.
    private static let magic: UInt64 = 0x3130_5245_4744_454c
    private static let slotCount = 64
    private static let slotsPlace = 64
    private static let auditPlace = slotsPlace + slotCount * 16
    private static let doneCount = 256
    private static let donePlace = 2048
    private static let cellsPlace = 4096
    /// The epoch of a slot whose request has no transaction.
    private static let never = UInt64.max

    private let memory: UnsafeMutableRawBufferPointer
    private let free: Mutex<[Int]>
    /// Requests that an earlier server has done, though their answers may not have come through.
    private let done = Mutex<Set<UInt64>>([])
    /// The cell of the session that each worker is committing.
    private let committing: UnsafeMutablePointer<LedgerCell?>

    public static let byteCount = 2 << 20

    /// - Precondition: `memory` is zero, or was a ledger before; it stays as long as the process does.
    public init(memory: UnsafeMutableRawBufferPointer) {
        precondition(memory.count >= Self.cellsPlace + LedgerCell.byteCount)
        self.memory = memory
        if memory.load(as: UInt64.self) != Self.magic {
            memory.initializeMemory(as: UInt8.self, repeating: 0)
            memory.storeBytes(of: Self.magic, as: UInt64.self)
        }
        let count = (memory.count - Self.cellsPlace) / LedgerCell.byteCount
        let cells = memory.baseAddress! + Self.cellsPlace
        // Taken from the end: low cells first, so that few pages are touched.
        free = Mutex(
            (0..<count).reversed().filter { LedgerCell(base: cells + $0 * LedgerCell.byteCount).kind == .free })
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
        free.withLock { $0.popLast() }.map { LedgerCell(base: cell(at: $0).base, index: $0) }
    }

    func giveBack(_ cell: LedgerCell) {
        cell.clear()
        free.withLock { $0.append(cell.index) }
    }

    private func cell(at index: Int) -> LedgerCell {
        LedgerCell(base: memory.baseAddress! + Self.cellsPlace + index * LedgerCell.byteCount, index: index)
    }

    /// The cells in use.
    func cells() -> [LedgerCell] {
        let count = (memory.count - Self.cellsPlace) / LedgerCell.byteCount
        let unused = free.withLock { Set($0) }
        return (0..<count).lazy.filter { !unused.contains($0) }.map { self.cell(at: $0) }
    }

    // MARK: Requests

    /// True if an earlier server has done what this request asks for.
    func hasDone(_ request: UInt64) -> Bool { done.withLock { $0.contains(request) } }

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
        if committing[slot]?.commitEpoch == epoch { committing[slot]?.commitEpoch = 0 }
        let place = Self.slotsPlace + slot * 16 + 8
        guard memory.load(fromByteOffset: place, as: UInt64.self) == epoch else { return }
        memory.storeBytes(of: Self.never, toByteOffset: place, as: UInt64.self)
    }
}
