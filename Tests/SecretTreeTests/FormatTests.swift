import Glibc
import Keyring
import Sodium
import Storage
import Testing

@testable import SecretTree

/// Format 1, as the format page tells it. The expected bytes were computed with libsodium and hashlib from Python, not by
/// this code. Who changes them changes the format.
@Suite struct FormatTests {
    private static let key = Array(UInt8(1)...32)
    private static let store = Array(UInt8(0x10)...0x1F)
    private static let plaintext = Array(UInt8(0)..<64)
    /// XChaCha20 with that key and the nonce 40 41 … 57 of that plaintext.
    private static let nonceAndCiphertext =
        "404142434445464748494a4b4c4d4e4f5051525354555657"
        + "0f0c36f0d3f3860b8a7acf8aa5bc483b492d2fda39f42a3344b7d999422c0110"
        + "e1b780c0ed77aad247964df8482ebfc2007c246cb30ef0c7b51a9754237003e3"

    private var storeID: StoreID { Self.store.withUnsafeBytes { StoreID($0) } }

    init() throws {
        LockedMemory.allowsUnlocked = true
        try Sodium.start()
    }

    @Test func `a record's seal opens what others have sealed, and nowhere else`() throws {
        let key = try Self.key.withUnsafeBytes { try SecretKey(copying: $0) }
        let seal = RecordSeal(Labels.record, key: key, store: storeID)
        let value = bytes("2240a635ef6a655bb2c13db3757520bb" + Self.nonceAndCiphertext)
        let record = RecordKey(kind: 7, owner: 1, high: 2, low: 3)
        let opened = value.withUnsafeBytes { seal.open(record, $0) { Array($0) } }
        #expect(opened == Self.plaintext)
        for other in [
            RecordKey(kind: 6, owner: 1, high: 2, low: 3), RecordKey(kind: 7, owner: 2, high: 2, low: 3),
            RecordKey(kind: 7, owner: 1, high: 3, low: 3), RecordKey(kind: 7, owner: 1, high: 2, low: 4),
        ] {
            #expect(value.withUnsafeBytes { seal.open(other, $0) { Array($0) } } == nil)
        }
        for place in value.indices {
            var flipped = value
            flipped[place] ^= 0x80
            #expect(flipped.withUnsafeBytes { seal.open(record, $0) { Array($0) } } == nil)
        }
    }

    @Test func `a job's record is laid out as the format page tells`() throws {
        var job = JobRecord(JobProgress(kind: .revoke))
        job.progress.state = .cancelled
        job.looksAgain = true
        job.isErasing = true
        job.progress.version = KEKVersion(rawValue: 0x0403_0201)
        job.progress.successor = KEKVersion(rawValue: 5)
        (job.cursor, job.end, job.scope) = (0x11, 0x22, 0x33)
        (job.progress.done, job.progress.total, job.progress.failed) = (0x44, 0x55, 0x66)
        job.progress.started = Timestamp(seconds: 0x77, nanoseconds: 0x88)
        job.progress.ended = Timestamp(seconds: 0x99, nanoseconds: 0xaa)
        (job.newContents, job.doneBefore) = (0xbb, 0xcc)
        var written = [UInt8](repeating: 0xff, count: JobRecord.byteCount)
        written.withUnsafeMutableBytes { job.put(into: $0) }
        let expected =
            "0305030001020304" + "05000000" + "1100000000000000" + "2200000000000000" + "3300000000000000"
            + "4400000000000000" + "5500000000000000" + "6600000000000000" + "770000000000000088000000"
            + "9900000000000000aa000000" + "bb00000000000000" + "cc00000000000000"
        #expect(written == bytes(expected))
        let read = written.withUnsafeBytes { JobRecord($0) }
        #expect(read == job)
        for count in [0, 99] {
            #expect(written.withUnsafeBytes { JobRecord(UnsafeRawBufferPointer(rebasing: $0[..<count])) } == nil)
        }
        for (place, value) in [(0, 0), (0, 5), (1, 6)] as [(Int, UInt8)] {
            var damaged = written
            damaged[place] = value
            #expect(damaged.withUnsafeBytes { JobRecord($0) } == nil)
        }
    }

    @Test func `bodies and blocks open what others have sealed`() {
        let body = bytes("3a4b9150191c1fb85b17521c7f9216a5" + Self.nonceAndCiphertext)
        withBinding(Labels.body, store: storeID, RecordKey(kind: 15, owner: 9)) { data in
            #expect(opened(body, data) == Self.plaintext)
        }
        let block = bytes("d2802ad0a7d1f4e77144a46c0b83ced2" + Self.nonceAndCiphertext)
        withBlockBinding(store: storeID, 9, 4, 5) { data in #expect(opened(block, data) == Self.plaintext) }
        withBlockBinding(store: storeID, 9, 4, 6) { data in #expect(opened(block, data) == nil) }
    }

    @Test func `names and freshness elements hash to what others have computed`() throws {
        let key = try Self.key.withUnsafeBytes { try SecretKey(copying: $0) }
        var hash = [UInt8](repeating: 0, count: 16)
        let directory: [UInt8] = [1, 0, 0, 0, 0, 0, 0, 0]
        hash.withUnsafeMutableBytes { hash in
            directory.withUnsafeBytes { directory in
                Array("web".utf8).withUnsafeBytes { name in
                    key.withKey { KeyedHash.hash(directory, name, key: $0, into: hash) }
                }
            }
        }
        #expect(hash == bytes("b78e939d85b611c7dad02204631e4751"))

        let head = Array(UInt8(0)..<40)
        let element = head.withUnsafeBytes {
            FreshnessHash(key: key).element(RecordKey(kind: 6, owner: 1), head: $0)
        }
        var sum = [UInt8](repeating: 0, count: 32)
        sum.withUnsafeMutableBytes { element.put(into: $0, at: 0) }
        #expect(sum == bytes("3758faf00866ca5499b91d73500cc535177cb4364f65bbe3f46c3bc57763f4de"))
    }

    @Test func `the store that is kept opens and reads as it did when it was made`() throws {
        try withExample(1) { tree in try checkExample(tree) }
    }

    @Test(arguments: [false, true])
    func `the store of configuration format 2 opens, after a key service was removed`(byPhrase: Bool) throws {
        try withExample(2, phrase: byPhrase) { tree in
            #expect(tree.keyring.keyServices == ["keyfile", "recovery"] && tree.keyring.lineage == nil)
            #expect(try tree.names() == ["blocks", "newer", "password"])
            let password = try tree.find("password").id
            #expect(try tree.bytes(of: password) == Array("correct horse\n".utf8))
            #expect(try tree.kekVersion(of: password) == KEKVersion(rawValue: 1))
            #expect(try tree.bytes(of: tree.find("newer").id) == Array("under version two".utf8))
            #expect(try tree.kekVersion(of: tree.find("newer").id) == KEKVersion(rawValue: 2))
            #expect(try tree.bytes(of: tree.find("blocks").id) == (0..<40_000).map { UInt8($0 % 253) })
        }
    }

    /// Opens a copy of an example store.
    private func withExample(_ number: Int, phrase: Bool = false, _ body: (SecretTree) throws -> Void) throws {
        let place =
            String(#filePath.prefix(upTo: #filePath.lastIndex(of: "/") ?? #filePath.startIndex))
            + "/ExampleStore\(number)"
        var template = Array("/tmp/letterlock-example-XXXXXX".utf8CString)
        let made = try #require(mkdtemp(&template))
        let directory = String(cString: made)
        let names = ["lock", "journal.0", "journal.1", "records.sqlite", "blocks", "key"] + (phrase ? ["phrase"] : [])
        defer {
            for name in names + ["reserve", "records.sqlite-wal", "records.sqlite-shm"] {
                unlink(directory + "/" + name)
            }
            rmdir(directory)
        }
        for name in names { try copy(place + "/" + name, directory + "/" + name) }

        let store = try JournaledStore.open(at: directory, readOnly: false, purpose: "tested")
        defer { try? store.close() }
        let records = try SecretTree.keyRecords(of: store)
        let keyring = try records.configuration.withUnsafeBytes { configuration in
            try records.lifecycle.withUnsafeBytes { lifecycle in
                let service: any KeyService =
                    phrase
                    ? RecoveryService(phrase: try SecretInput.read(path: directory + "/phrase"))
                    : FileKeyService(path: directory + "/key")
                return try UnlockedKeyring.unlock(configuration: configuration, lifecycle: lifecycle, with: service)
            }
        }
        #expect(keyring.name == "example")
        let tree = try SecretTree.open(store, keyring: keyring, readOnly: false, seenEpoch: 1, now: House.now)
        #expect(tree.problems.isEmpty)
        #expect(try tree.verify().problems.isEmpty)
        try body(tree)
    }

    private func checkExample(_ tree: SecretTree) throws {
        #expect(try tree.names() == ["blocks", "body", "empty", "newer", "pipe", "second-name", "web"])

        let web = try tree.find("web")
        #expect(web.type == .directory && web.permissions == 0o750)
        let password = try tree.find("password", in: web.id)
        #expect(try tree.find("second-name").id == password.id && password.linkCount == 2)
        #expect(try tree.bytes(of: password.id) == Array("correct horse\n".utf8))
        #expect(try tree.kekVersion(of: password.id) == KEKVersion(rawValue: 1))
        #expect(try tree.bytes(of: tree.find("newer").id) == Array("under version two".utf8))
        #expect(try tree.kekVersion(of: tree.find("newer").id) == KEKVersion(rawValue: 2))
        let body = try tree.find("body")
        #expect(try tree.bytes(of: body.id) == (0..<5000).map { UInt8($0 % 251) })
        #expect(body.modificationTime == Timestamp(seconds: 1_700_000_000, nanoseconds: 123_456_789))
        let blocks = try tree.find("blocks")
        #expect(blocks.size == 200_003)
        #expect(try tree.bytes(of: blocks.id, at: 0, 40_000) == (0..<40_000).map { UInt8($0 % 253) })
        #expect(try tree.bytes(of: blocks.id, at: 199_998, 10) == [0, 0] + Array("end".utf8))
        #expect(try tree.find("pipe").type == .fifo && tree.find("empty").size == 0)
        var value: [UInt8] = []
        var name = "user.note"
        try name.withUTF8Bytes { try tree.withExtendedAttribute(of: password.id, $0) { value = Array($0) } }
        #expect(value == Array("kept for ever".utf8))
        var target = [UInt8](repeating: 0, count: 100)
        let link = try tree.find("link", in: web.id)
        let count = try target.withUnsafeMutableBytes { try tree.readTarget(of: link.id, into: $0) }
        #expect(target.prefix(count) == Array("password".utf8)[...])
    }

    private func copy(_ source: String, _ target: String) throws {
        let from = open(source, O_RDONLY)
        try #require(from >= 0, "\(source)")
        defer { close(from) }
        let to = open(target, O_WRONLY | O_CREAT | O_EXCL, 0o600)
        try #require(to >= 0)
        defer { close(to) }
        var buffer = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = read(from, &buffer, buffer.count)
            guard count > 0 else { break }
            try #require(write(to, buffer, count) == count)
        }
    }

    private func opened(_ value: [UInt8], _ data: UnsafeRawBufferPointer) -> [UInt8]? {
        var plaintext = [UInt8](repeating: 0, count: value.count - 40)
        let isOpen = value.withUnsafeBytes { value in
            plaintext.withUnsafeMutableBytes { plaintext in
                Self.key.withUnsafeBytes { key in
                    Seal.open(
                        UnsafeRawBufferPointer(rebasing: value[40...]),
                        tag: UnsafeRawBufferPointer(rebasing: value[0..<16]),
                        nonce: UnsafeRawBufferPointer(rebasing: value[16..<40]), associatedData: data, into: plaintext,
                        key: BorrowedKey(key))
                }
            }
        }
        return isOpen ? plaintext : nil
    }

    private func bytes(_ hexadecimal: String) -> [UInt8] {
        let digits = hexadecimal.utf8.map { UInt8($0 < 0x3A ? $0 - 0x30 : $0 - 0x57) }
        return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
    }
}
