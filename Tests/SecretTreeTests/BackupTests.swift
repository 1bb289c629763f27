import Glibc
import Keyring
import Storage
import Testing

@testable import SecretTree

/// Backups: as of one moment, authentic from end to end, and whole or refused.
@Suite struct BackupTests {
    /// Every kind of content.
    func house() throws -> House {
        let house = try House()
        let tree = house.tree
        let web = try tree.make("web", .directory)
        for (name, count) in [("empty", 0), ("short", 10), ("body", 5000), ("blocks", 300_000)] {
            let file = try tree.make(name, in: web)
            if count > 0 { try tree.put((0..<count).map { UInt8($0 % 251) }, to: file) }
        }
        try tree.resize(try tree.make("hole"), to: 1 << 30)
        _ = try tree.rotate(now: House.now)
        try tree.put([1, 2, 3], to: try tree.make("newer"))
        return house
    }

    func backup(_ tree: SecretTree, meanwhile: () throws -> Void = {}) throws -> [UInt8] {
        try bytes(of: try BackupStream(tree), meanwhile: meanwhile)
    }

    func bytes(of stream: BackupStream, meanwhile: () throws -> Void = {}) throws -> [UInt8] {
        var backup: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 10_000)
        while true {
            let result = buffer.withUnsafeMutableBytes { buffer in
                Result { () throws(TreeError) in try stream.read(into: buffer) }
            }
            let count = try result.get()
            guard count > 0 else { return backup }
            if backup.isEmpty { try meanwhile() }
            backup += buffer[..<count]
        }
    }

    func withFile<R>(_ bytes: [UInt8], _ body: (Int32) throws -> R) throws -> R {
        let descriptor = memfd_create("backup", 1)
        defer { close(descriptor) }
        try #require(bytes.isEmpty || write(descriptor, bytes, bytes.count) == bytes.count)
        lseek(descriptor, 0, SEEK_SET)
        return try body(descriptor)
    }

    /// What a way through a backup has found.
    @dynamicMemberLookup
    struct Found {
        let keyring: UnlockedKeyring
        let report: BackupReport
        subscript(dynamicMember member: KeyPath<BackupReport, UInt64>) -> UInt64 { report[keyPath: member] }
    }

    func withChain<R>(_ backups: [[UInt8]], _ body: (BackupChain) throws -> R) throws -> R {
        var readers: [BackupReader] = []
        func open(_ rest: ArraySlice<[UInt8]>) throws -> R {
            guard let first = rest.first else { return try body(try BackupChain(readers)) }
            return try withFile(first) { descriptor in
                readers.append(try BackupReader(descriptor: descriptor))
                return try open(rest.dropFirst())
            }
        }
        return try open(backups[...])
    }

    func check(_ backups: [UInt8]..., with service: any KeyService) throws -> Found {
        try withChain(backups) { chain in
            do throws(Restoring.Failed) {
                let root: UnlockedRoot
                do throws(BackupError) { root = try chain.unlock(with: service) } catch { throw .backup(0, error) }
                let (keyring, report) = try Restoring.check(chain, root)
                return Found(keyring: keyring, report: report)
            } catch {
                guard case .backup(_, let error) = error else { throw error }
                throw error
            }
        }
    }

    func check(_ backup: [UInt8], _ service: any KeyService) throws -> Found {
        try check(backup, with: service)
    }

    func restore(_ backups: [[UInt8]], _ service: any KeyService, into store: any RecordStore) throws -> Found {
        try withChain(backups) { chain in
            let (keyring, report) = try Restoring.restore(chain, try chain.unlock(with: service), into: store)
            return Found(keyring: keyring, report: report)
        }
    }

    func restore(_ backup: [UInt8], _ service: any KeyService, into store: any RecordStore) throws -> Found {
        try restore([backup], service, into: store)
    }

    @Test func `what is restored is what was backed up`() throws {
        let house = try house()
        let backup = try backup(house.tree)
        let report = try check(backup, house.keyService)
        #expect(report.epoch == house.tree.epoch && report.fileCount == 6 && report.blockCount == 74)
        let store = MemoryStore()
        #expect(try restore(backup, house.keyService, into: store).recordCount == report.recordCount)
        let restored = try SecretTree.open(
            store, keyring: report.keyring, readOnly: false, seenEpoch: house.tree.epoch, now: House.now)
        #expect(restored.problems.isEmpty)
        let verified = try restored.verify()
        #expect(verified.problems.isEmpty && verified.fileCount == 6)
        let web = try restored.find("web").id
        #expect(try restored.names(in: web) == ["blocks", "body", "empty", "short"])
        for name in ["empty", "short", "body", "blocks"] {
            let (old, new) = (try house.tree.find(name, in: web), try restored.find(name, in: web))
            #expect(old == new)
            #expect(try house.tree.bytes(of: old.id) == restored.bytes(of: new.id), "\(name)")
        }
        #expect(try restored.find("hole").size == 1 << 30)
        #expect(try restored.kekVersion(of: restored.find("newer").id) == KEKVersion(rawValue: 2))
        // It goes on: new blocks do not fall on old ones.
        try restored.put([UInt8](repeating: 9, count: 100_000), to: try restored.make("more"))
        #expect(try restored.verify().problems.isEmpty)
    }

    @Test func `it is of one moment, whatever is changed while it is made`() throws {
        let house = try house()
        let tree = house.tree
        let web = try tree.find("web").id
        let epoch = tree.epoch
        let backup = try backup(tree) {
            try tree.put([UInt8](repeating: 7, count: 300_000), to: try tree.find("blocks", in: web).id)
            try tree.remove("body", in: web)
            _ = try tree.rotate(now: House.now)
            try tree.put([1], to: try tree.make("later"))
            try tree.sync()
            try house.store.fold()
        }
        let store = MemoryStore()
        let report = try restore(backup, house.keyService, into: store)
        #expect(report.epoch == epoch)
        let restored = try SecretTree.open(
            store, keyring: report.keyring, readOnly: false, seenEpoch: nil, now: House.now)
        #expect(try restored.verify().problems.isEmpty)
        #expect(try restored.names() == ["hole", "newer", "web"])
        let blocks = try restored.find("blocks", in: web).id
        #expect(try restored.bytes(of: blocks) == (0..<300_000).map { UInt8($0 % 251) })
    }

    @Test func `another key does not open it`() throws {
        let house = try house()
        let other = try House(firstByte: 100)
        let backup = try backup(house.tree)
        #expect(throws: BackupError.key(.wrongSecret)) { try check(backup, other.keyService) }
        #expect(throws: BackupError.key(.io(path: "/nonexistent", errno: ENOENT))) {
            try check(backup, FileKeyService(path: "/nonexistent"))
        }
    }

    @Test func `a key service that was removed opens the backups from before, and none from after`() throws {
        let house = try house()
        let other = try House(firstByte: 100)
        let before = try backup(house.tree)
        let successor = try house.keyring.rekeyed(
            0, .replaced(by: other.keyService), opener: house.keyService, now: House.now)
        try house.tree.rekey(to: successor, now: House.now)
        let after = try backup(
            try SecretTree.open(house.store, keyring: successor, readOnly: false, seenEpoch: nil, now: House.now))
        #expect(try check(before, house.keyService).keyring.lifecycle.latest == KEKVersion(rawValue: 2))
        #expect(try check(after, other.keyService).keyring.lifecycle.latest == KEKVersion(rawValue: 3))
        #expect(throws: BackupError.key(.wrongSecret)) { try check(after, house.keyService) }
    }

    @Test func `cut anywhere it is refused`() throws {
        let house = try house()
        let backup = try backup(house.tree)
        var lengths = Array(0..<600) + stride(from: 600, to: backup.count, by: 4099)
        lengths += backup.count - 50..<backup.count
        for count in lengths {
            do {
                _ = try check(Array(backup[..<count]), house.keyService)
                Issue.record("\(count) bytes of \(backup.count) are taken")
            } catch let error as BackupError {
                #expect(count < 8 ? error == .notABackup : error == .cut, "\(count): \(error)")
            }
        }
        #expect(throws: BackupError.damaged("something stands behind its end")) {
            try check(backup + [0], house.keyService)
        }
    }

    @Test func `a flipped bit anywhere is noticed before anything is used`() throws {
        let house = try house()
        let backup = try backup(house.tree)
        let places = Array(0..<700) + stride(from: 700, to: backup.count, by: 1999) + [backup.count - 1]
        for place in places where !(12..<16).contains(place) {
            for bit in [0, 7] {
                var changed = backup
                changed[place] ^= 1 << bit
                do {
                    _ = try check(changed, house.keyService)
                    Issue.record("byte \(place), bit \(bit) makes no difference")
                } catch let error as BackupError {
                    if case .key(.wrongSecret) = error {
                        Issue.record("byte \(place), bit \(bit) looks like a wrong key")
                    }
                }
            }
        }
    }

    @Test func `parts in another order, twice, or of another backup are refused`() throws {
        let house = try house()
        let (one, two) = (try backup(house.tree), try backup(house.tree))
        let (header, parts) = splitBackup(one, headerByteCount: 52)
        let (otherHeader, otherParts) = splitBackup(two, headerByteCount: 52)
        #expect(header != otherHeader && parts.count > 3 && parts.count == otherParts.count)
        #expect(throws: Never.self) { try check(header + parts.joined(), house.keyService) }
        var swapped = parts
        swapped.swapAt(0, 1)
        var mixed = parts
        mixed[1] = otherParts[1]
        let wrong: [[[UInt8]]] = [
            swapped, mixed, otherParts, [parts[0]] + parts, Array(parts.dropFirst()), parts + [parts[parts.count - 1]],
            [parts[parts.count - 1]],
        ]
        for parts in wrong {
            #expect(throws: BackupError.self) { try check(header + parts.joined(), house.keyService) }
        }
    }

    @Test(arguments: [6, 10] as [UInt8])
    func `a store that was tampered with is not backed up as if it were sound`(kind: UInt8) throws {
        let house = try house()
        try house.store.fold()
        let record = try #require(try house.records().first { $0.key.kind == kind && $0.key.owner > 1 })
        try house.tamper { batch in
            var value = record.value
            // Of a node what the sum covers, of a map what only its own tag does.
            value[kind == 6 ? 0 : 100] ^= 1
            batch.put(record.key, value)
        }
        #expect(refusal { try backup(house.tree) } == "tampered")
    }

    @Test func `a restore that dies leaves no keyring`() throws {
        let house = try house()
        // More than one batch of records.
        for number in 0..<120 {
            try house.tree.put([UInt8](repeating: 3, count: 16_000), to: try house.tree.make("file-\(number)"))
        }
        let backup = try backup(house.tree)
        for diesAfter in [false, true] {
            let memory = MemoryStore()
            let crashing = CrashingStore(memory, commits: 0, diesAfter: diesAfter)
            #expect(throws: Restoring.Failed.self) { try restore(backup, house.keyService, into: crashing) }
            #expect((try? SecretTree.keyRecords(of: memory)) == nil)
        }
    }

    @Test func `a damaged backup leaves no keyring`() throws {
        let house = try house()
        var backup = try backup(house.tree)
        backup[backup.count - 1] ^= 1
        let store = MemoryStore()
        #expect(throws: Restoring.Failed.self) { try restore(backup, house.keyService, into: store) }
        #expect(throws: TreeOpeningError.self) { try SecretTree.keyRecords(of: store) }
    }
}

/// A backup's header, whose part of a fixed length is that long, and the chunks after it.
func splitBackup(_ backup: [UInt8], headerByteCount: Int) -> (header: [UInt8], chunks: [[UInt8]]) {
    func number(_ place: Int) -> Int {
        Int(backup[place]) | Int(backup[place + 1]) << 8 | Int(backup[place + 2]) << 16
    }
    var place = headerByteCount + number(48)
    let header = Array(backup[..<place])
    var chunks: [[UInt8]] = []
    while place < backup.count {
        let count = 44 + number(place)
        chunks.append(Array(backup[place..<place + count]))
        place += count
    }
    return (header, chunks)
}
