import Glibc
import Testing

/// What a key version's state denies, on descriptors and mappings too that were there before.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class DenialTests {
    enum Denial: String, CaseIterable {
        case disabled, compromised, expired, pending, destroyed

        var errno: Int32 {
            switch self {
            case .disabled, .compromised, .pending: EKEYREVOKED
            case .expired: EKEYEXPIRED
            case .destroyed: ENOKEY
            }
        }

        /// What is written to control files, in order.
        var orders: [(command: String, file: String)] {
            switch self {
            case .disabled: [("disable", "keys/1/state")]
            case .compromised: [("compromise seen in a log", "keys/1/state")]
            case .expired: [("2", "keys/min_decryption_version")]
            case .pending, .destroyed: [("1", "keys/deletion_allowed"), ("7 force", "keys/1/destroy")]
            }
        }

        /// What takes it back; empty if nothing does.
        var remedies: [(command: String, file: String)] {
            switch self {
            case .disabled: [("enable", "keys/1/state")]
            case .expired: [("1", "keys/min_decryption_version")]
            case .pending: [("1", "keys/1/cancel_destroy"), ("enable", "keys/1/state")]
            case .compromised, .destroyed: []
            }
        }
    }

    private static let byteCount = 8192
    private static let day = 86_400
    private let mounted: Mounted
    private let clock: ClockFile

    init() throws {
        mounted = try Mounted()
        clock = try ClockFile(mounted.workspace)
    }

    /// A file under version 1, which is not the primary any more.
    private func prepare(_ cache: String) throws {
        try mounted.remount("cache=\(cache)")
        try put(pattern(Self.byteCount), mounted("old"))
        try mounted.command("1", "keys/rotate")
    }

    private func deny(_ denial: Denial) throws {
        for order in denial.orders { try mounted.command(order.command, order.file) }
        guard denial == .destroyed else { return }
        try clock.set(wall: 8 * Self.day, boot: 8 * Self.day)
        #expect(try eventually { try mounted.answer("keys/1/state") == "destroyed" })
    }

    @Test(arguments: Denial.allCases, ["kernel", "none"])
    func itIsDeniedAtOnceToEveryDescriptor(denial: Denial, cache: String) throws {
        try prepare(cache)
        let reader = try OpenFile(mounted("old"), O_RDONLY)
        let writer = try OpenFile(mounted("old"), O_WRONLY)
        let both = try OpenFile(mounted("old"), O_RDWR)
        for file in [reader, both] { #expect(try file.read(Self.byteCount, at: 0) == pattern(Self.byteCount)) }
        try deny(denial)
        for flags in [O_RDONLY, O_RDWR, O_WRONLY | O_APPEND, O_RDWR | O_TRUNC] {
            expectErrno(denial.errno, open(mounted("old"), flags), "open with \(flags)")
        }
        for place in [0, 5000] {
            expectErrno(denial.errno, "at \(place)") { _ = try reader.read(10, at: place) }
            expectErrno(denial.errno, "at \(place)") { _ = try both.read(10, at: place) }
        }
        expectErrno(denial.errno) { try writer.write("x", at: 3) }
        expectErrno(denial.errno) { try both.write("x", at: 3) }
        expectErrno(denial.errno, ftruncate(both.descriptor, 5))
        expectErrno(denial.errno, truncate(mounted("old"), 5))
        // Names and attributes are not the key's.
        #expect(try attributes(mounted("old")).st_size == Self.byteCount)
        expectDone(rename(mounted("old"), mounted("older")))
        for remedy in denial.remedies { try mounted.command(remedy.command, remedy.file) }
        if !denial.remedies.isEmpty {
            for file in [reader, both] { #expect(try file.read(Self.byteCount, at: 0) == pattern(Self.byteCount)) }
            #expect(try contents(mounted("older")) == pattern(Self.byteCount))
            try deny(denial)
            expectErrno(denial.errno) { _ = try reader.read(10, at: 0) }
        }
        // A new value has nothing to do with it.
        try put("regenerated", mounted("older"))
        #expect(try text(mounted("older")) == "regenerated")
        #expect(try reader.text() == "regenerated")
    }

    /// In a process of its own, which dies of it. With cache=none the kernel has private mappings alone.
    @Test(arguments: Denial.allCases, ["kernel", "none"])
    func aMappingFaults(denial: Denial, cache: String) throws {
        try prepare(cache)
        let orders = denial.orders.map { "('\(mounted.control($0.file))', '\($0.command)')" }.joined(separator: ", ")
        let script = """
            import mmap, os, sys, time
            f = os.open('\(mounted("old"))', os.O_RDONLY)
            flags = mmap.MAP_SHARED if '\(cache)' == 'kernel' else mmap.MAP_PRIVATE
            m = mmap.mmap(f, \(Self.byteCount), flags=flags, prot=mmap.PROT_READ)
            m[0], m[5000]
            for name, command in [\(orders)]:
                with open(name, 'w') as control: control.write(command)
            if '\(denial)' == 'destroyed':
                with open('\(clock.path).own', 'w') as new: new.write('\(8 * Self.day) \(8 * Self.day)')
                os.rename('\(clock.path).own', '\(clock.path)')
                while open('\(mounted.control("keys/1/state"))').read() != 'destroyed\\n': time.sleep(0.05)
            print(m[5000])
            """
        let outcome = try mounted.workspace.run(["python3", "-c", script])
        #expect(outcome.status == 128 + SIGBUS, "\(outcome.status) \(outcome.text) \(outcome.complaint)")
    }
}
