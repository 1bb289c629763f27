import Glibc
import Sodium
import Testing

@testable import Access

/// The log by itself: its chain, its devices, and what is found out about it.
final class AuditTests {
    private let directory: String
    private let keys: AuditLog.Keys
    private var path: String { directory + "/log/audit.jsonl" }
    private let outliving = UnsafeMutableRawPointer.allocate(byteCount: AuditMemory.byteCount, alignment: 8)

    init() throws {
        LockedMemory.allowsUnlocked = true
        try Sodium.start()
        var template = Array("/tmp/letterlock-audit-XXXXXX".utf8CString)
        #expect(mkdtemp(&template) != nil)
        directory = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        keys = AuditLog.Keys(signing: try SigningKey(seed: .random()), paths: try .random())
        outliving.initializeMemory(as: UInt8.self, repeating: 0, count: AuditMemory.byteCount)
    }

    deinit {
        outliving.deallocate()
        for name in ["log/audit.jsonl", "log/old.jsonl", "head"] { unlink(directory + "/" + name) }
        rmdir(directory + "/log")
        rmdir(directory)
    }

    private func open(
        takesOver: Bool = false, mode: AuditLog.Mode = .failClosed, path: String? = nil, hides: Bool = false
    ) throws -> AuditLog {
        var options = AuditLog.Options()
        options.path = path ?? self.path
        options.mode = mode
        options.keyring = "trial"
        options.store = "00000000-0000-0000-0000-000000000001"
        options.headPath = directory + "/head"
        options.takesOver = takesOver
        options.hidesPaths = hides
        if !takesOver { outliving.initializeMemory(as: UInt8.self, repeating: 0, count: AuditMemory.byteCount) }
        return try AuditLog(options, keys: keys, memory: AuditMemory(outliving)) { _ in }
    }

    private func entry(_ id: String, _ path: String = "/web/key") -> AuditEntry {
        AuditEntry(
            id: .text(id), call: "open", operation: .read, path: Array(path.utf8), newPath: nil,
            requester: Requester(
                uid: 1, gid: 2, process: ProcessIdentity(supposedPID: 3, exe: "/bin/cat", cgroup: "/")),
            isAllowed: true, rule: "default")
    }

    private func lines() throws -> [String] {
        var text: [String] = []
        let number = AuditFile.lines(of: path) { line, isWhole in
            if isWhole { text.append(String(decoding: line, as: UTF8.self)) }
            return isWhole
        }
        #expect(number == 0)
        return text
    }

    private func write(_ lines: [String]) throws {
        let file = try #require(fopen(path, "w"))
        for line in lines { fputs(line + "\n", file) }
        fclose(file)
    }

    private func verdict(known: AuditHead? = nil, key: [UInt8]? = nil) -> AuditVerification.Verdict {
        var verification = AuditVerification(key: key ?? keys.signing.publicKey)
        verification.read(path)
        return verification.verdict(known: known, isLive: false)
    }

    /// A log of ten accesses, closed.
    private func tenAccesses() throws {
        let log = try open()
        for number in 0..<10 { try log.record(entry("m-\(number)"), response: .init(errno: 0, kekVersion: 1)) }
        #expect(log.verify() == "ok 21 records")
        log.close()
    }

    @Test func `each access is two records of one chain, signed at the end`() throws {
        try tenAccesses()
        let lines = try lines()
        #expect(lines.count == 22)
        #expect(lines[1].contains("\"type\":\"request\",\"id\":\"m-0\",\"keyring\":\"trial\",\"call\":\"open\""))
        #expect(lines[2].contains("\"type\":\"response\",\"id\":\"m-0\"") && lines[2].contains("\"errno\":0"))
        #expect(lines[21].contains("\"type\":\"checkpoint\""))
        #expect(verdict().text == "ok 22 records")
        var attributes = stat()
        #expect(stat(path, &attributes) == 0 && attributes.st_mode & 0o777 == 0o600)
        let head = AuditHeadFile(store: "00000000-0000-0000-0000-000000000001").read(directory + "/head", key: nil)
        #expect(head?.head.number == 22 && head?.key == keys.signing.publicKey)
    }

    @Test func `every changed, missing, moved or added record is found`() throws {
        try tenAccesses()
        let lines = try lines()
        let known = AuditHeadFile(store: "00000000-0000-0000-0000-000000000001").read(directory + "/head", key: nil)?
            .head
        func isFound(_ changed: [String], _ what: String) throws {
            try write(changed)
            let verdict = verdict(known: known)
            #expect(!verdict.isSound, "\(what): \(verdict.text)")
        }
        for index in lines.indices {
            var changed = lines
            changed.remove(at: index)
            try isFound(changed, "without \(index)")
            changed = lines
            changed[index] = lines[index].replacing("trial", with: "other")
            try isFound(changed, "changed \(index)")
            if index > 0 {
                changed = lines
                changed.swapAt(index, index - 1)
                try isFound(changed, "swapped \(index)")
                try isFound(Array(lines[..<index]), "cut at \(index)")
                try isFound(Array(lines[index...]), "begins at \(index)")
            }
            changed = lines
            changed.insert(lines[index], at: index)
            try isFound(changed, "twice \(index)")
        }
        try isFound([], "empty")
        try isFound(lines + ["{}"], "more")
        try write(lines)
        #expect(verdict(known: known).isSound)
    }

    @Test func `records of any length follow each other in memory that is used again`() throws {
        let log = try open()
        // Longer than any room that is there at the beginning, and of what has to be escaped.
        let paths = [10, 5000, 1, 300, 60_000, 2].map { "/" + String(repeating: "a\"b\n", count: $0) }
        for (index, path) in paths.enumerated() {
            try log.record(entry("\(index)", path), response: AuditEntry.Response(errno: 0, kekVersion: 1))
        }
        log.close()
        for (index, path) in paths.enumerated() {
            let escaped = path.replacing("\"", with: "\\\"").replacing("\n", with: "\\u000a")
            let both = try lines().filter { $0.contains("\"id\":\"\(index)\"") }
            #expect(both.count == 2 && both.allSatisfy { $0.contains("\"path\":\"\(escaped)\",\"uid\"") })
            // Told at one time.
            #expect(Set(both.map { $0.split(separator: "\"time\":")[1].prefix(29) }).count == 1)
        }
        #expect(verdict().isSound)
    }

    @Test func `a chain that somebody else has made up is not signed`() throws {
        try tenAccesses()
        #expect(!verdict(key: try SigningKey(seed: .random()).publicKey).isSound)
        // All hashes made anew after a change: the signature is what tells.
        var head = AuditHead()
        var forged = AuditText()
        for line in try lines() {
            let start = try #require(line.firstRange(of: ",\"time\"")).lowerBound
            let end = try #require(line.firstRange(of: ",\"prev\"")).lowerBound
            let body = Array(line[line.index(after: start)..<end].replacing("/web/key", with: "/web/kex").utf8)
            let signature = line.contains("checkpoint") ? [UInt8](repeating: 7, count: 64) : nil
            head.chain(body, into: &forged, sign: signature.map { signature in { _ in signature } })
        }
        try write(String(decoding: forged.bytes, as: UTF8.self).split(separator: "\n").map(String.init))
        #expect(verdict().text.contains("is not signed by the keyring's key"))
    }

    @Test func `a successor goes on with the chain, and tells of requests without an answer`() throws {
        let first = try open()
        try first.record(entry("m-1"))
        first.respond(entry("m-1"), errno: 0, kekVersion: nil)
        try first.record(entry("m-2"))
        // It dies: half a line is what it was writing.
        let file = try #require(fopen(path, "a"))
        fputs("{\"seq\":5,\"time", file)
        fclose(file)
        let second = try open(takesOver: true)
        #expect(first.mount == second.mount)
        second.respond(again: "m-2")
        second.close()
        let lines = try lines()
        #expect(lines.filter { $0.contains("\"type\":\"interrupted\",\"id\":\"m-2\"") }.count == 1)
        #expect(lines.contains { $0.contains("\"id\":\"m-2\",\"keyring\":\"trial\",\"again\":true") })
        #expect(!lines.contains { $0.contains("\"type\":\"interrupted\",\"id\":\"m-1\"") })
        #expect(verdict().isSound, "\(verdict().text)")
        withExtendedLifetime(first) {}
    }

    @Test func `an end that was cut while nobody wrote is told, by a successor and by the next mount`() throws {
        for takesOver in [true, false] {
            let log = try open()
            for number in 0..<3 { try log.record(entry("m-\(number)"), response: .init(errno: 0, kekVersion: nil)) }
            log.close()
            try write(Array(try lines().dropLast(2)))
            let next = try open(takesOver: takesOver)
            try next.record(entry("m-9"), response: .init(errno: 0, kekVersion: nil))
            #expect(!next.verify().hasPrefix("ok"), "\(next.verify())")
            next.close()
            unlink(path)
            unlink(directory + "/head")
        }
    }

    @Test func `a log that is removed while it is written goes on in a new file, which tells of it`() throws {
        let log = try open()
        try log.record(entry("m-1"), response: .init(errno: 0, kekVersion: nil))
        unlink(path)
        try log.record(entry("m-2"), response: .init(errno: 0, kekVersion: nil))
        log.close()
        #expect(try lines().first?.contains("\"type\":\"opened\",\"reason\":\"cut\"") == true)
        #expect(verdict().text.contains("were missing when it was written"), "\(verdict().text)")
    }

    @Test func `what cannot be recorded does not happen, and is made good`() throws {
        // /dev/full takes nothing.
        #expect(throws: AuditFailure.self) { try open(path: "/dev/full") }
        let log = try open(mode: .bestEffort, path: "/dev/full")
        try log.record(entry("m-1"))
        #expect(log.failure == ENOSPC)
        let successor = try open(takesOver: true, path: "/dev/full")
        #expect(throws: AuditFailure.self) { try successor.record(entry("m-1")) }
    }

    @Test func `paths are hidden if asked for, the same in the same way`() throws {
        let log = try open(hides: true)
        try log.record(entry("m-1"))
        try log.record(entry("m-2"))
        try log.record(entry("m-3", "/other"))
        log.close()
        let text = try lines().joined()
        #expect(!text.contains("/web") && !text.contains("/other"))
        let codes = text.matches(of: /"path":"hmac:([0-9a-f]{64})"/).map { $0.output.1 }
        #expect(codes.count == 3 && codes[0] == codes[1] && codes[1] != codes[2])
    }

    @Test func `names that are no text are told whole`() throws {
        let log = try open()
        var strange = entry("m-1")
        strange.path = [0x2f, 0xff, 0x22, 0x0a, 0x5c]
        try log.record(strange)
        log.close()
        let line = try lines()[1]
        #expect(line.contains("\"path_bytes\":\"2fff220a5c\"") && line.contains("\\\"\\u000a\\\\\""))
        #expect(verdict().isSound)
    }

    @Test func `a device that does not answer holds up one thread, and the others for a moment`() throws {
        let turnstile = Turnstile(waiterLimit: 0, patience: (long: 10_000, short: 20))
        let patient = Turnstile(waiterLimit: 1, patience: (long: 20, short: 10_000))
        for turnstile in [turnstile, patient] {
            let (entered, released) = (Flag(), Flag())
            var thread = pthread_t()
            let shared = Unmanaged.passRetained(Shared(turnstile, entered, released))
            pthread_create(
                &thread, nil,
                { argument in
                    let shared = Unmanaged<Shared>.fromOpaque(argument!).takeRetainedValue()
                    _ = shared.turnstile.pass {
                        shared.entered.set()
                        shared.released.wait()
                    }
                    return nil
                }, shared.toOpaque())
            entered.wait()
            #expect(turnstile.pass { true } == nil)
            // After one who was allowed to wait long nobody waits at all.
            #expect(turnstile.pass { true } == nil)
            released.set()
            pthread_join(thread, nil)
            #expect(turnstile.pass { true } == true)
        }
    }

    /// No log may bring its reader down.
    @Test func `garbage is refused`() throws {
        try tenAccesses()
        let whole = Array(try lines().joined(separator: "\n").utf8)
        var generator = SeededGenerator(seed: 3)
        for _ in 0..<2000 {
            var bytes = Array(whole.prefix(Int.random(in: 0...whole.count, using: &generator)))
            if !bytes.isEmpty {
                bytes[Int.random(in: 0..<bytes.count, using: &generator)] ^= UInt8.random(
                    in: 1...255, using: &generator)
            }
            var verification = AuditVerification(key: nil)
            for line in bytes.split(separator: 10, omittingEmptySubsequences: false) {
                verification.take(line, isWhole: true)
            }
            #expect(!verification.verdict(known: nil, isLive: false).isSound || bytes.isEmpty)
        }
    }
}

private final class Shared: Sendable {
    let turnstile: Turnstile
    let entered: Flag
    let released: Flag
    init(_ turnstile: Turnstile, _ entered: Flag, _ released: Flag) {
        self.turnstile = turnstile
        self.entered = entered
        self.released = released
    }
}

/// One thread tells another, through a pipe.
private final class Flag: Sendable {
    private let reading: Int32
    private let writing: Int32
    init() {
        var ends: [Int32] = [-1, -1]
        pipe(&ends)
        (reading, writing) = (ends[0], ends[1])
    }
    deinit {
        close(reading)
        close(writing)
    }
    func set() { write(writing, "x", 1) }
    func wait() {
        var byte: UInt8 = 0
        _ = read(reading, &byte, 1)
    }
}
