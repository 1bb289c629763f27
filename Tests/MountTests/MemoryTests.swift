import Glibc
import Sodium
import Storage
import Synchronization
import Testing

@testable import Keyring
@testable import SecretTree

/// What others can read of the memory of guardian and server: all that /proc/PID/mem gives to root.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
struct MemoryTests {
    private struct Region {
        var range: Range<UInt64>
        var name: Substring
    }

    private static func regions(of process: pid_t) throws -> [Region] {
        try text("/proc/\(process)/maps").split(separator: "\n").compactMap { line in
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            let ends = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            guard ends.count == 2, fields[1].hasPrefix("r") else { return nil }
            return Region(range: ends[0]..<ends[1], name: fields.count > 5 ? fields[5] : "")
        }
    }

    /// Calls `body` with every readable byte range of a process.
    private static func image(of process: pid_t, _ body: (UnsafeRawBufferPointer) -> Void) throws {
        let memory = try check(open("/proc/\(process)/mem", O_RDONLY | O_CLOEXEC))
        defer { close(memory) }
        let chunk = UnsafeMutableRawBufferPointer.allocate(byteCount: 1 << 20, alignment: 16)
        defer { chunk.deallocate() }
        for region in try regions(of: process) where !region.name.hasPrefix("[v") {
            var place = region.range.lowerBound
            while place < region.range.upperBound {
                let count = pread(
                    memory, chunk.baseAddress, min(chunk.count, Int(region.range.upperBound - place)), off_t(place))
                guard count > 0 else { break }
                body(UnsafeRawBufferPointer(rebasing: chunk[..<count]))
                place += UInt64(count)
            }
        }
    }

    /// Every key there is of a store that is not mounted: root, KEK versions, and the DEKs of files, by what they are.
    private static func keys(of mounted: Mounted, files: [UInt64]) throws -> [(name: String, bytes: [UInt8])] {
        let store = try JournaledStore.open(at: mounted.store, readOnly: true)
        defer { try? store.close() }
        let (configuration, lifecycle) = try SecretTree.keyRecords(of: store)
        let keyring = try configuration.withUnsafeBytes { configuration in
            try lifecycle.withUnsafeBytes { lifecycle in
                try UnlockedKeyring.unlock(
                    configuration: configuration, lifecycle: lifecycle,
                    with: FileKeyService(path: mounted.workspace("key")))
            }
        }
        let tree = try SecretTree.open(store, keyring: keyring, readOnly: true, seenEpoch: nil, now: .now())
        var keys = [("the root key", keyring.rootKey.withKey { [UInt8]($0.bytes) })]
        for version in keyring.lifecycle.versions.map(\.version) {
            let key = try keyring.key(version, forReencryption: false)
            keys.append(("KEK version \(version)", key.withKey { [UInt8]($0.bytes) }))
        }
        for file in files {
            let node = NodeID(rawValue: file)
            let content = try tree.node(node).attributes.content
            keys.append(("the DEK of file \(file)", try tree.withDEK(content, of: node) { dek, _ in [UInt8](dek) }))
        }
        return keys
    }

    private static func expectNone(
        of keys: [(name: String, bytes: [UInt8])], in mounted: Mounted, _ occasion: String
    ) throws {
        let (guardian, server) = (try mounted.process("guardian"), try mounted.process("server"))
        for number in [guardian] + (try mounted.children()) {
            let process = number == guardian ? "guardian" : number == server ? "server" : "spare server"
            try image(of: number) { bytes in
                for key in keys where memmem(bytes.baseAddress!, bytes.count, key.bytes, key.bytes.count) != nil {
                    Issue.record("\(key.name) is in the memory of the \(process), \(occasion)")
                }
            }
        }
    }

    @Test(arguments: ["kernel", "none"])
    func noKeyOfAnyLayerIsEverThere(_ cache: String) throws {
        let mounted = try Mounted(options: "cache=\(cache)")
        var files: [UInt64] = []
        for number in 0..<6 {
            // Small ones lie in their envelopes, large ones in blocks.
            try put(pattern(number % 2 == 0 ? 500 : 300_000, seed: UInt64(number)), mounted("f\(number)"))
            files.append(UInt64(try attributes(mounted("f\(number)")).st_ino))
            if number % 2 == 1 { try mounted.command("1", "keys/rotate") }
        }
        try mounted.unmount()
        let keys = try Self.keys(of: mounted, files: files)
        #expect(keys.count == 1 + 4 + 6 && Set(keys.map(\.bytes)).count == keys.count)
        try mounted.mount()
        let stops = Flag()
        let load = try (0..<2).map { number in
            try Soaker(Worker(mounted.path, number: number), stops)
        }
        defer {
            stops.raised.store(true, ordering: .releasing)
            for soaker in load { #expect(soaker.end() == nil) }
        }
        for round in 0..<4 {
            usleep(UInt32.random(in: 0..<50_000))
            try Self.expectNone(of: keys, in: mounted, "under load, round \(round)")
        }
        kill(try mounted.process("server"), SIGKILL)
        try Self.expectNone(of: keys, in: mounted, "after a takeover")
    }

    /// Reads and replaces, and has keys used.
    private final class Worker: Application {
        private let number: Int
        init(_ path: String, number: Int) {
            self.number = number
            super.init(path)
        }
        override func act(_ round: Int) throws {
            let file = "\(path)/f\(round % 6)"
            if number == 0 { _ = try contents(file) } else { try put(pattern(400, seed: 5), "\(path)/new\(round % 9)") }
        }
    }

    /// Pages of a file in the kernel's page cache, by cachestat(2), which maps nothing; nil before Linux 6.5.
    private static func cachedPages(_ path: String) throws -> UInt64? {
        let file = try OpenFile(path, O_RDONLY)
        let range: [UInt64] = [0, 0]
        var statistics = [UInt64](repeating: 0, count: 5)
        let result = systemCall(451, file.descriptor, range, &statistics, 0)
        guard result == 0 || errno != ENOSYS else { return nil }
        try check(result)
        return statistics[0]
    }

    @Test(arguments: [("none", false), ("kernel", true)])
    func whatIsReadStaysInThePageCacheOnlyWithOneOfTheModes(_ cache: String, _ stays: Bool) throws {
        let mounted = try Mounted(options: "cache=\(cache)")
        for count in [100, 100_000] {
            let path = mounted("f\(count)")
            try put(pattern(count), path)
            // Past the time in which a new value is read past the page cache in any case.
            sleep(2)
            for _ in 0..<3 { #expect(try contents(path) == pattern(count)) }
            guard let pages = try Self.cachedPages(path) else { return }
            #expect(stays ? pages > 0 : pages == 0, "\(pages) pages of \(count) bytes")
        }
        let log = try OpenFile(mounted("log"), O_RDWR | O_CREAT)
        try log.write("in place")
        #expect(try log.text() == "in place")
        if !stays, let pages = try Self.cachedPages(mounted("log")) { #expect(pages == 0) }
    }

    @Test func aLockedMountHasNoKeys() throws {
        let mounted = try Mounted()
        try put("secret", mounted("f"))
        let file = UInt64(try attributes(mounted("f")).st_ino)
        try mounted.unmount()
        let keys = try Self.keys(of: mounted, files: [file])
        try mounted.mount()
        let secretMemory = { (process: String) in
            try Self.regions(of: mounted.process(process)).filter { $0.name.contains("secretmem") }.count
        }
        _ = try text(mounted("f"))
        try mounted.command("1", "lock")
        try Self.expectNone(of: keys, in: mounted, "locked")
        #expect(try secretMemory("guardian") == 1, "what is left of it is zero, and unreadable")
        // Whoever kills the server now finds no key to go on with.
        let server = try mounted.process("server")
        kill(server, SIGKILL)
        #expect(eventually { (try? mounted.process("server")).map { $0 != server } ?? false })
        expectErrno(ENOKEY) { _ = try contents(mounted("f")) }
        try mounted.command("1", "unlock")
        #expect(try text(mounted("f")) == "secret")
        try Self.expectNone(of: keys, in: mounted, "unlocked again")
    }

    private static func holds(_ process: pid_t, _ needle: [UInt8]) throws -> Bool {
        var found = false
        try image(of: process) { bytes in
            if memmem(bytes.baseAddress!, bytes.count, needle, needle.count) != nil { found = true }
        }
        return found
    }

    @Test func noKeyIsEverThereAndNoValueOnceItIsAnswered() throws {
        for cache in ["kernel", "none"] {
            let mounted = try Mounted(options: "cache=\(cache)")
            let processes = [try mounted.process("guardian"), try mounted.process("server")]
            let key = try contents(mounted.workspace("key"))
            for number in 0..<20 {
                try put(pattern(3000, seed: 900 + UInt64(number)), mounted("f\(number)"))
                _ = try contents(mounted("f\(number)"))
                guard number % 4 == 0 else { continue }
                for process in processes { #expect(try !Self.holds(process, key), "the key of the key file") }
            }
            for number in 0..<20 {
                let value = Array(pattern(3000, seed: 900 + UInt64(number))[1000..<1064])
                for process in processes { #expect(try !Self.holds(process, value), "a value, cache=\(cache)") }
            }
            // The search itself finds what is there: the mount point's name.
            #expect(try Self.holds(processes[1], Array(mounted.path.utf8)))
        }
    }

    @Test func keysAndStacksOfWorkersAreSecretMemory() throws {
        let mounted = try Mounted()
        for (name, count) in [("guardian", 1), ("server", 4)] {
            let process = try mounted.process(name)
            let secret = try Self.regions(of: process).filter { $0.name.contains("secretmem") }
            #expect(secret.count >= count, "\(name)")
            let memory = try check(open("/proc/\(process)/mem", O_RDONLY | O_CLOEXEC))
            defer { close(memory) }
            var byte: UInt8 = 0
            for region in secret { #expect(pread(memory, &byte, 1, off_t(region.range.lowerBound)) < 0) }
        }
    }
}
