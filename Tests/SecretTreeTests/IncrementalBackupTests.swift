import Glibc
import Keyring
import Storage
import Testing

@testable import SecretTree

/// Backups of what has changed since another one.
extension BackupTests {
    /// Where it is remembered what backups held, for one test.
    private final class Memory {
        let path: String
        let catalogues: BackupCatalogues

        init() throws {
            var template = Array("/tmp/letterlock-catalogues-XXXXXX".utf8CString)
            try #require(mkdtemp(&template) != nil)
            path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
            catalogues = BackupCatalogues(directory: path, history: "history")
        }

        var files: [String] {
            guard let stream = opendir(path) else { return [] }
            defer { closedir(stream) }
            var names: [String] = []
            while let entry = readdir(stream) {
                let name = withUnsafeBytes(of: entry.pointee.d_name) {
                    String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self)
                }
                if !name.hasPrefix(".") { names.append("\(path)/\(name)") }
            }
            return names.sorted()
        }

        deinit {
            for file in files { unlink(file) }
            rmdir(path)
        }
    }

    private func id(_ backup: [UInt8]) throws -> BackupID {
        try withFile(backup) { try BackupReader(descriptor: $0).id }
    }

    private func backup(
        _ tree: SecretTree, since base: [UInt8]? = nil, _ memory: Memory, meanwhile: () throws -> Void = {}
    ) throws -> [UInt8] {
        let stream = try BackupStream(tree, since: try base.map { try id($0) }, catalogues: memory.catalogues)
        let backup = try bytes(of: stream, meanwhile: meanwhile)
        #expect(stream.isRemembered)
        return backup
    }

    /// What a tree holds, as far as its users see it.
    private func picture(_ tree: SecretTree) throws -> [String: [UInt8]] {
        var found: [String: [UInt8]] = [:]
        func walk(_ directory: NodeID, _ path: String) throws {
            for name in try tree.names(in: directory) {
                let node = try tree.find(name, in: directory)
                if node.type == .directory {
                    found[path + name + "/"] = []
                    try walk(node.id, path + name + "/")
                } else {
                    found[path + name] = node.size > 1 << 20 ? [] : try tree.bytes(of: node.id)
                }
            }
        }
        try walk(.root, "/")
        return found
    }

    private func restored(_ backups: [[UInt8]], _ service: any KeyService) throws -> SecretTree {
        let store = MemoryStore()
        let found = try restore(backups, service, into: store)
        let checked = try withChain(backups) { chain in
            try Restoring.check(chain, try chain.unlock(with: service)).1
        }
        #expect(checked.epoch == found.epoch && checked.recordCount == found.recordCount)
        let tree = try SecretTree.open(
            store, keyring: found.keyring, readOnly: false, seenEpoch: found.epoch, now: House.now)
        #expect(tree.problems.isEmpty && tree.epoch >= found.epoch)
        #expect(try tree.verify().problems.isEmpty)
        return tree
    }

    /// Changes of every kind.
    private func change(_ house: House, _ round: UInt8) throws {
        let tree = house.tree
        let web = try tree.find("web").id
        if round == 0 {
            try tree.remove("body", in: web)
            try tree.put([9, 9], to: try tree.find("blocks", in: web).id)
        } else {
            try tree.resize(try tree.find("short", in: web).id, to: 0)
        }
        try tree.put([UInt8](repeating: round, count: 200_000), to: try tree.make("large-\(round)"))
        try tree.put([round], to: try tree.find("newer").id)
        _ = try tree.rotate(now: House.now)
        try tree.sync()
    }

    @Test func `a chain gives what there was at its end, and each part of it is small`() throws {
        let (house, memory) = (try house(), try Memory())
        let full = try backup(house.tree, memory)
        #expect(full.count > 300_000)
        let first = try picture(house.tree)
        try change(house, 0)
        let one = try backup(house.tree, since: full, memory)
        let second = try picture(house.tree)
        try change(house, 1)
        let two = try backup(house.tree, since: one, memory)
        let both = try backup(house.tree, since: full, memory)
        let third = try picture(house.tree)
        #expect(first != second && second != third)
        #expect(try picture(restored([full], house.keyService)) == first)
        #expect(try picture(restored([full, one], house.keyService)) == second)
        #expect(try picture(restored([full, one, two], house.keyService)) == third)
        #expect(try picture(restored([full, both], house.keyService)) == third)
        // What has not changed since is not in it.
        let nothing = try backup(house.tree, since: two, memory)
        #expect(nothing.count < 3000, "\(nothing.count) bytes")
        #expect(try picture(restored([full, one, two, nothing], house.keyService)) == third)
        // Each by itself is what it says.
        for part in [full, one, two, both, nothing] {
            let report = try withFile(part) { descriptor in
                let reader = try BackupReader(descriptor: descriptor)
                return try Restoring.check(reader, try reader.unlock(with: house.keyService))
            }
            #expect(report.epoch <= house.tree.epoch && report.fileCount > 0)
        }
    }

    @Test func `an incremental one is of one moment, whatever is changed while it is made`() throws {
        let (house, memory) = (try house(), try Memory())
        let full = try backup(house.tree, memory)
        try change(house, 0)
        let then = try picture(house.tree)
        let one = try backup(house.tree, since: full, memory) {
            try change(house, 1)
            try house.store.fold()
        }
        #expect(try picture(restored([full, one], house.keyService)) == then)
        let two = try backup(house.tree, since: one, memory)
        #expect(try picture(restored([full, one, two], house.keyService)) == picture(house.tree))
    }

    @Test func `what is no chain is refused before anything is read`() throws {
        let (house, other, memory) = (try house(), try House(firstByte: 100), try Memory())
        let full = try backup(house.tree, memory)
        let again = try backup(house.tree, memory)
        try change(house, 0)
        let one = try backup(house.tree, since: full, memory)
        try change(house, 1)
        let two = try backup(house.tree, since: one, memory)
        let foreign = try backup(other.tree, memory)
        func fault(_ backups: [UInt8]...) -> BackupChain.Fault? {
            do {
                _ = try withChain(backups) { $0.readers.count }
                return nil
            } catch {
                guard case .chain(let fault)? = error as? BackupError else { return nil }
                return fault
            }
        }
        #expect(fault(one) == .notFull(0))
        #expect(fault(one, two) == .notFull(0))
        #expect(fault(full, again) == .full(1))
        #expect(fault(full, one, full) == .full(2))
        #expect(try fault(full, two) == .missingBase(1, id(one)))
        #expect(try fault(again, one) == .missingBase(1, id(full)))
        #expect(fault(full, two, one) == .disorder(1, base: 2))
        #expect(fault(one, full) == .full(1))
        #expect(fault(full, one, one) == .disorder(2, base: 0))
        #expect(fault(full, foreign) == .otherKeyring(1))
        #expect(fault(foreign, one) == .otherKeyring(1))
        // Whoever makes it look right is found out when it is read.
        var forged = two
        forged.replaceSubrange(52..<84, with: try id(full).bytes)
        #expect(throws: BackupError.damaged("part 1 does not authenticate")) {
            try check(full, forged, with: house.keyService)
        }
    }

    @Test func `a flipped bit or a missing end of an incremental one is noticed`() throws {
        let (house, memory) = (try house(), try Memory())
        let full = try backup(house.tree, memory)
        try change(house, 0)
        let one = try backup(house.tree, since: full, memory)
        #expect(throws: Never.self) { try check(full, one, with: house.keyService) }
        let lengths = Array(0..<400) + stride(from: 400, to: one.count, by: 7919) + [one.count - 1]
        for count in lengths {
            #expect(throws: BackupError.self, "\(count) bytes") {
                try check(full, Array(one[..<count]), with: house.keyService)
            }
        }
        #expect(throws: BackupError.self) { try check(full, one + [0], with: house.keyService) }
        for place in Array(0..<500) + stride(from: 500, to: one.count, by: 4999) + [one.count - 1] {
            var changed = one
            changed[place] ^= 1 << UInt8(place % 8)
            #expect(throws: BackupError.self, "byte \(place)") { try check(full, changed, with: house.keyService) }
        }
        for place in stride(from: 700, to: full.count, by: 49_999) {
            var changed = full
            changed[place] ^= 4
            #expect(throws: BackupError.self, "byte \(place)") { try check(changed, one, with: house.keyService) }
        }
    }

    @Test func `parts of an incremental one in another order, or of another one, are refused`() throws {
        let (house, memory) = (try house(), try Memory())
        let full = try backup(house.tree, memory)
        try change(house, 0)
        let (one, two) = (try backup(house.tree, since: full, memory), try backup(house.tree, since: full, memory))
        let ((header, parts), (otherHeader, otherParts)) = (
            splitBackup(one, headerByteCount: 84), splitBackup(two, headerByteCount: 84)
        )
        #expect(header != otherHeader && parts.count > 2 && parts.count == otherParts.count)
        #expect(throws: Never.self) { try check(full, header + parts.joined(), with: house.keyService) }
        var (swapped, mixed) = (parts, parts)
        swapped.swapAt(0, 1)
        mixed[1] = otherParts[1]
        for parts in [
            swapped, mixed, otherParts, Array(parts.dropFirst()), Array(parts.dropLast()), [parts[0]] + parts,
        ] {
            #expect(throws: BackupError.self) { try check(full, header + parts.joined(), with: house.keyService) }
        }
    }

    @Test func `what is not remembered, or under another root key, is no base`() throws {
        let (house, memory) = (try house(), try Memory())
        let full = try backup(house.tree, memory)
        let nowhere = try Memory()
        func making(_ memory: Memory?) -> String {
            do {
                _ = try BackupStream(house.tree, since: id(full), catalogues: memory?.catalogues)
                return "made"
            } catch { return String("\(error)".prefix { $0 != "(" }) }
        }
        #expect(making(nowhere) == "unknownBase" && making(nil) == "unknownBase" && making(memory) == "made")
        // What is remembered tells nothing, and is authentic or useless.
        let file = try #require(memory.files.first)
        let whole = try #require(contents(file))
        for (place, count) in [(20, whole.count), (60, whole.count), (130, whole.count), (0, 100), (0, 0)] {
            var changed = Array(whole[..<count])
            if count == whole.count { changed[place] ^= 1 }
            replace(file, changed)
            #expect(making(memory) == "uselessBase", "\(place), \(count)")
        }
        replace(file, whole)
        let other = try House(firstByte: 100)
        let successor = try house.keyring.rekeyed(
            0, .replaced(by: other.keyService), opener: house.keyService, now: House.now)
        try house.tree.rekey(to: successor, now: House.now)
        let rekeyed = try SecretTree.open(
            house.store, keyring: successor, readOnly: false, seenEpoch: nil, now: House.now)
        do {
            _ = try BackupStream(rekeyed, since: id(full), catalogues: memory.catalogues)
            Issue.record("it is taken")
        } catch { #expect("\(error)".hasPrefix("uselessBase")) }
    }

    @Test func `a catalogue that ends too early makes no backup that looks whole`() throws {
        let (house, memory) = (try house(), try Memory())
        for number in 0..<900 { try house.tree.put([1], to: try house.tree.make("file-\(number)")) }
        let full = try backup(house.tree, memory)
        let file = try #require(memory.files.first)
        let whole = try #require(contents(file))
        try #require(whole.count > 80_000)
        for changed in [Array(whole.dropLast(20)), Array(whole[..<70_000]), whole + [0]] {
            replace(file, changed)
            let stream = try BackupStream(house.tree, since: id(full), catalogues: memory.catalogues)
            #expect(refusal { try bytes(of: stream) } == "storage")
        }
    }

    @Test func `the last sixteen are remembered, and no half ones`() throws {
        let (house, memory) = (try House(), try Memory())
        // Left by somebody who died over it, and by somebody who is at it.
        for (name, age) in [("dead", 100_000), ("alive", 10)] {
            let path = "\(memory.path)/history.\(name).catalogue.1"
            close(open(path, O_CREAT | O_WRONLY, 0o600))
            let times = [timespec(tv_sec: time(nil) - age, tv_nsec: 0), timespec(tv_sec: time(nil) - age, tv_nsec: 0)]
            #expect(utimensat(AT_FDCWD, path, times, 0) == 0)
        }
        var backups: [[UInt8]] = []
        for number in 0..<20 {
            backups.append(try backup(house.tree, memory))
            // Whoever goes by one keeps it.
            if number > 0 { _ = try BackupStream(house.tree, since: id(backups[0]), catalogues: memory.catalogues) }
            usleep(2000)
        }
        #expect(memory.files.count == 17 && memory.files.contains("\(memory.path)/history.alive.catalogue.1"))
        #expect(throws: Never.self) {
            try BackupStream(house.tree, since: id(backups[0]), catalogues: memory.catalogues)
        }
        #expect(throws: BackupMakingError.self) {
            try BackupStream(house.tree, since: id(backups[1]), catalogues: memory.catalogues)
        }
        #expect(memory.files.count { $0.hasSuffix(".catalogue") } == 16)
    }

    @Test func `a restore of a chain that dies leaves no keyring`() throws {
        let (house, memory) = (try house(), try Memory())
        for number in 0..<120 {
            try house.tree.put([UInt8](repeating: 3, count: 16_000), to: try house.tree.make("file-\(number)"))
        }
        let full = try backup(house.tree, memory)
        try change(house, 0)
        let one = try backup(house.tree, since: full, memory)
        // The second change is the last one.
        for (commits, diesAfter) in [(0, false), (0, true), (1, false)] {
            let store = MemoryStore()
            let crashing = CrashingStore(store, commits: commits, diesAfter: diesAfter)
            #expect(throws: Restoring.Failed.self) { try restore([full, one], house.keyService, into: crashing) }
            #expect((try? SecretTree.keyRecords(of: store)) == nil)
        }
        var damaged = one
        damaged[damaged.count - 1] ^= 1
        let store = MemoryStore()
        #expect(throws: Restoring.Failed.self) { try restore([full, damaged], house.keyService, into: store) }
        #expect((try? SecretTree.keyRecords(of: store)) == nil)
    }

    // MARK: A recipient for one backup

    @Test func `a recipient opens its backup and no other, and stays where it has opened it`() throws {
        let (house, safe) = (try house(), try House(firstByte: 100))
        let backup = try bytes(of: try BackupStream(house.tree, recipient: safe.keyService))
        let plain = try self.backup(house.tree)
        #expect(try check(backup, house.keyService).fileCount == 6)
        #expect(try check(backup, safe.keyService).fileCount == 6)
        #expect(throws: BackupError.key(.wrongSecret)) { try check(plain, safe.keyService) }
        // Restored with it, perhaps because nothing else is left, the keyring opens with it; else it does not.
        for (opener, opens) in [(safe.keyService, true), (house.keyService, false)] {
            let found = try restore(backup, opener, into: MemoryStore())
            let configuration = try found.keyring.branched()
            let root = configuration.withUnsafeBytes { bytes in
                Result { () throws(KeyringError) in try UnlockedRoot(configuration: bytes, with: safe.keyService) }
            }
            #expect(((try? root.get()) != nil) == opens)
            #expect(found.keyring.slots.count == (opens ? 2 : 1))
        }
    }

    private func contents(_ path: String) -> [UInt8]? {
        let descriptor = open(path, O_RDONLY)
        guard descriptor >= 0 else { return nil }
        defer { close(descriptor) }
        var bytes = [UInt8](repeating: 0, count: 1 << 20)
        let count = read(descriptor, &bytes, bytes.count)
        return count < 0 ? nil : Array(bytes[..<count])
    }

    private func replace(_ path: String, _ bytes: [UInt8]) {
        let descriptor = open(path, O_WRONLY | O_TRUNC)
        defer { close(descriptor) }
        #expect(write(descriptor, bytes, bytes.count) == bytes.count)
    }
}
