import Fuse
import SecretTree
import Testing

@testable import SecretFS

/// What one server leaves for the next, without servers.
final class LedgerTests {
    private static let byteCount = 64 << 10
    private let memory = UnsafeMutableRawBufferPointer.allocate(byteCount: byteCount, alignment: 4096)
    private let caller = Caller(uid: 0, gid: 0, pid: 7, umask: 0, unique: 99, isResend: false)

    init() { memory.initializeMemory(as: UInt8.self, repeating: 0) }
    deinit { memory.deallocate() }

    private func successor(at epoch: UInt64) -> Ledger {
        let ledger = Ledger(memory: memory)
        ledger.takeUp(epoch: epoch)
        return ledger
    }

    @Test func `a request is done when the transaction that it stands for has happened`() {
        let first = Ledger(memory: memory)
        first.willCommit(epoch: 10, request: 100, slot: 0)
        first.willCommit(epoch: 11, request: 102, slot: 3)
        let second = successor(at: 10)
        #expect(second.hasDone(100))
        #expect(!second.hasDone(102), "its transaction did not happen")
        // Another transaction gets the epoch of the one that did not happen.
        second.willCommit(epoch: 11, request: 104, slot: 0)
        let third = successor(at: 11)
        #expect(third.hasDone(100) && third.hasDone(104))
        #expect(!third.hasDone(102))
    }

    @Test func `only the first transaction of a request counts`() {
        let first = Ledger(memory: memory)
        first.willCommit(epoch: 10, request: 100, slot: 0)
        first.willCommit(epoch: 11, request: 100, slot: 0)
        #expect(successor(at: 10).hasDone(100))
    }

    @Test func `a transaction that failed is not done, and its request may try again`() {
        let first = Ledger(memory: memory)
        first.willCommit(epoch: 10, request: 100, slot: 0)
        first.didNotCommit(epoch: 10, slot: 0)
        // Somebody else's transaction makes the epoch meanwhile.
        #expect(!successor(at: 10).hasDone(100))
        let again = Ledger(memory: memory)
        again.willCommit(epoch: 11, request: 100, slot: 0)
        #expect(successor(at: 11).hasDone(100))
    }

    @Test func `killed between any two of its writes, a note claims nothing that has not happened`() {
        // Request 100 has made epoch 10; the note of request 102, which would make 11, is cut off after each write.
        for (request, epoch) in [(100, UInt64.max), (102, .max), (102, 11)] as [(UInt64, UInt64)] {
            memory.initializeMemory(as: UInt8.self, repeating: 0)
            let first = Ledger(memory: memory)
            first.willCommit(epoch: 10, request: 100, slot: 0)
            memory.storeBytes(of: request, toByteOffset: 64, as: UInt64.self)
            memory.storeBytes(of: epoch, toByteOffset: 72, as: UInt64.self)
            #expect(!successor(at: 10).hasDone(102), "\(request) \(epoch)")
        }
    }

    @Test func `what was done is remembered over many servers`() {
        for server in 0..<300 as Range<UInt64> {
            let ledger = successor(at: server)
            ledger.willCommit(epoch: server + 1, request: 1000 + server, slot: Int(server % 4))
        }
        let last = successor(at: 300)
        #expect(last.hasDone(1299) && last.hasDone(1299 - 255))
        #expect(!last.hasDone(1000), "the ring holds the newest")
    }

    @Test func `cells in use are found by the next server, given back ones are not`() throws {
        let first = Ledger(memory: memory)
        let cells = try (0..<10).map { number in
            let cell = try #require(first.take())
            cell.node = NodeID(rawValue: UInt64(number))
            cell.kind = .writer
            return cell
        }
        for cell in cells[2..<5] { first.giveBack(cell) }
        // Taken, and killed before it says what it is.
        let half = try #require(first.take())
        half.node = NodeID(rawValue: 77)
        let second = Ledger(memory: memory)
        #expect(Set(second.cells().map(\.node.rawValue)) == [0, 1, 5, 6, 7, 8, 9])
        // Free ones are used again before untouched ones.
        let indices = try (0..<3).map { _ in try #require(second.take()).index }
        #expect(Set(indices) == [2, 3, 4])
        #expect(try #require(second.take()).index == 10)
    }

    @Test func `a full ledger has no more cells, and has them again`() throws {
        let ledger = Ledger(memory: memory)
        var cells: [LedgerCell] = []
        while let cell = ledger.take() {
            cell.kind = .reader
            cells.append(cell)
        }
        #expect(cells.count == (Self.byteCount - 8192) / LedgerCell.byteCount)
        #expect(Ledger(memory: memory).take() == nil)
        ledger.giveBack(cells[5])
        #expect(ledger.take()?.index == 5)
    }

    @Test func `memory that is no ledger is made one`() {
        memory.initializeMemory(as: UInt8.self, repeating: 0xA5)
        let ledger = successor(at: .max - 1)
        #expect(ledger.cells().isEmpty && !ledger.hasDone(0xA5A5_A5A5_A5A5_A5A5))
        // A count beyond the memory, as nothing but a fault leaves it.
        for count in [1 << 40, -1] {
            memory.storeBytes(of: count, toByteOffset: 24, as: Int.self)
            #expect(Ledger(memory: memory).cells().isEmpty)
        }
    }

    @Test func `openings are never told earlier than they were`() {
        let first = Ledger(memory: memory)
        first.noteOpening(of: NodeID(rawValue: 5), at: 1.5)
        let second = Ledger(memory: memory)
        #expect(second.lastOpening(of: NodeID(rawValue: 5)) == 1.5)
        #expect(second.lastOpening(of: NodeID(rawValue: 6)) == 0)
        second.noteOpening(of: NodeID(rawValue: 5 + 512), at: 2.5)
        #expect(second.lastOpening(of: NodeID(rawValue: 5)) == 2.5, "files may share a time, to the later one")
    }
}
