import Glibc
import Testing

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
