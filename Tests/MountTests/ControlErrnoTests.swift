import Glibc
import Testing

/// Each command that a control file of the keys refuses, and with what: the contract's table, row by row.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
final class ControlErrnoTests {
    private let mounted: Mounted
    private let clock: ClockFile

    init() throws {
        mounted = try Mounted()
        clock = try ClockFile(mounted.workspace)
    }

    /// Every file that takes commands, with one that it would take.
    private static let files = [
        ("keys/primary", "1"), ("keys/rotate", "1"), ("keys/min_decryption_version", "1"),
        ("keys/min_encryption_version", "0"), ("keys/auto_rotate_period", "3600"), ("keys/disable_after", "30d"),
        ("keys/destroy_after", "90d"), ("keys/deletion_allowed", "1"), ("keys/1/state", "disable"),
        ("keys/1/destroy", "7 force"), ("keys/1/cancel_destroy", "1"), ("rewrap", "start"), ("reencrypt", "start"),
        ("revoke", "1 lost"),
    ]

    @Test func whatIsNoCommandChangesNothing() throws {
        for (name, command) in Self.files {
            let file = try OpenFile(mounted.control(name), O_WRONLY | O_TRUNC)
            for place in [1, 4096, 1 << 40] {
                expectErrno(EINVAL, "\(name) at \(place)") { try file.write(command, at: place) }
            }
            for count in [4097, 100_000] {
                expectErrno(E2BIG, "\(name)") { try file.write([UInt8](repeating: 0x31, count: count)) }
            }
            for text in ["\n", " ", "nonsense", "\0", command + "\0", "1\n2\n", command + "\n\n", command + " \u{7}"] {
                expectErrno(EINVAL, "\(name): \(text.debugDescription)") { try file.write(text, at: 0) }
            }
            expectErrno(EINVAL, "\(name)") { try file.write([0xff, 0xfe]) }
        }
        #expect(try mounted.answer("keys/rotate") == "1")
        #expect(try mounted.answer("keys/list").contains("\"state\":\"primary\""))
        for job in ["rewrap", "reencrypt", "revoke"] {
            #expect(try mounted.answer(job).hasPrefix("{\"state\":\"idle\""), "\(job)")
        }
    }

    @Test func whatReadsAloneIsNotWritten() throws {
        for name in ["keys/list", "keys/next_rotation", "keys/1/created", "keys/1/files", "keys/1/paths", "status"] {
            expectErrno(EACCES, open(mounted.control(name), O_WRONLY), "\(name)")
        }
    }

    /// Versions 1 to 7, one in each state, and 7 the primary; the files `a1` to `a7` lie under them.
    private func oneInEachState() throws {
        try mounted.remount()
        for version in 1...7 {
            if version > 1 { try mounted.command("1", "keys/rotate") }
            try put("under \(version)", mounted("a\(version)"))
        }
        try mounted.command("1", "keys/deletion_allowed")
        try mounted.command("7 force", "keys/1/destroy")
        try clock.set(wall: 8 * 86_400, boot: 8 * 86_400)
        #expect(try eventually { try mounted.answer("keys/1/state") == "destroyed" })
        try mounted.command("30 force", "keys/2/destroy")
        try mounted.command("compromise lost", "keys/3/state")
        try mounted.command("disable", "keys/4/state")
        try mounted.command("6", "keys/min_encryption_version")
        let states = try (1...7).map { try mounted.answer("keys/\($0)/state") }
        #expect(
            states == [
                "destroyed", "pending-destruction", "compromised", "disabled", "decrypt-only", "enabled", "primary",
            ])
    }

    @Test func eachStateRefusesInItsOwnWay() throws {
        try oneInEachState()
        // Of versions 1 to 7, in the states above; nil for what is taken and would change them.
        let table: [(file: String, command: String, errnos: [Int32?])] = [
            ("keys/N/state", "disable", [ENOKEY, EPERM, EPERM, EPERM, nil, nil, EBUSY]),
            ("keys/N/state", "enable", [ENOKEY, EPERM, EPERM, nil, EPERM, EPERM, EPERM]),
            ("keys/N/state", "compromise lost", [ENOKEY, EPERM, EPERM, nil, nil, nil, EBUSY]),
            ("keys/N/destroy", "7", [ENOKEY, EPERM, EBUSY, EBUSY, EBUSY, EBUSY, EBUSY]),
            ("keys/N/destroy", "7 force", [ENOKEY, EPERM, nil, nil, nil, nil, EBUSY]),
            ("keys/N/cancel_destroy", "1", [ENOKEY, nil, EPERM, EPERM, EPERM, EPERM, EPERM]),
            ("keys/primary", "N", [ENOKEY, EPERM, EPERM, EPERM, ERANGE, nil, nil]),
            ("rewrap", "start from=N", [ENOKEY, EKEYREVOKED, EKEYREVOKED, EKEYREVOKED, nil, nil, nil]),
            ("reencrypt", "start from=N", [ENOKEY, EKEYREVOKED, nil, EKEYREVOKED, nil, nil, nil]),
            ("revoke", "N lost", [ENOKEY, EPERM, nil, nil, nil, nil, nil]),
        ]
        for (file, command, errnos) in table {
            for (version, expected) in zip(1..., errnos) {
                guard let expected else { continue }
                func named(_ text: String) -> String {
                    text.split(separator: "N", omittingEmptySubsequences: false).joined(separator: "\(version)")
                }
                expectErrno(expected, "\(command) to \(file) of \(version)") {
                    try mounted.command(named(command), named(file))
                }
            }
        }
        try mounted.command("6", "keys/min_decryption_version")
        for job in ["rewrap", "reencrypt"] {
            expectErrno(EKEYEXPIRED, "\(job)") { try mounted.command("start from=5", job) }
        }
        #expect(try mounted.answer("keys/5/state") == "decrypt-only")
        expectErrno(EKEYEXPIRED) { _ = try text(mounted("a5")) }
        #expect(try text(mounted("a6")) == "under 6")
    }

    @Test(arguments: ["0", "8", "99999999999"])
    func thereIsNoSuchVersion(number: String) throws {
        for name in ["", "/state", "/destroy", "/cancel_destroy", "/files", "/paths", "/created"] {
            expectErrno(ENOENT, access(mounted.control("keys/\(number)\(name)"), F_OK), "\(name)")
        }
        expectErrno(ENOENT) { try mounted.command(number, "keys/primary") }
        expectErrno(ENOENT) { try mounted.command("\(number) lost", "revoke") }
        for job in ["rewrap", "reencrypt"] {
            expectErrno(ENOENT, "\(job)") { try mounted.command("start from=\(number)", job) }
        }
        expectErrno(ERANGE) { try mounted.command(number, "keys/min_decryption_version") }
        if number != "0" { expectErrno(ERANGE) { try mounted.command(number, "keys/min_encryption_version") } }
    }

    @Test func numbersOutOfTheirRange() throws {
        try mounted.command("1", "keys/rotate")
        try mounted.command("1", "keys/deletion_allowed")
        for days in ["0", "6", "31", "4294967296", "31 force"] {
            expectErrno(ERANGE, "\(days)") { try mounted.command(days, "keys/1/destroy") }
        }
        for days in ["-7", "7d", "7.5", "force", "force 7", "7 force now"] {
            expectErrno(EINVAL, "\(days)") { try mounted.command(days, "keys/1/destroy") }
        }
        for name in ["auto_rotate_period", "disable_after", "destroy_after"] {
            for period in ["36601d", "4294967295d", "99999999999"] {
                expectErrno(ERANGE, "\(period) to \(name)") { try mounted.command(period, "keys/\(name)") }
            }
        }
        let long = String(repeating: "x", count: 1025)
        expectErrno(ERANGE) { try mounted.command("compromise " + long, "keys/1/state") }
        expectErrno(ERANGE) { try mounted.command("1 " + long, "revoke") }
        #expect(try mounted.answer("keys/1/state") == "enabled")
    }

    @Test(arguments: ["rewrap", "reencrypt", "revoke"])
    func aJobIsHeldAndGoesOn(job: String) throws {
        for order in ["pause", "resume", "cancel"] {
            expectErrno(EPERM, "\(order)") { try mounted.command(order, job) }
        }
        for number in 0..<40 { try put(pattern(400_000, seed: UInt64(number)), mounted("f\(number)")) }
        try mounted.command("1", "keys/rotate")
        let start = job == "revoke" ? "1 lost" : "start"
        try mounted.command(start, job)
        // It may have been quicker than this.
        do throws(Errno) { try mounted.command("pause", job) } catch {
            #expect(error.value == EPERM)
            return
        }
        #expect(try mounted.answer(job).hasPrefix("{\"state\":\"paused\""))
        expectErrno(EALREADY) { try mounted.command(start, job) }
        expectErrno(EPERM) { try mounted.command("pause", job) }
        let files = try mounted.answer("keys/1/files")
        usleep(100_000)
        #expect(try mounted.answer("keys/1/files") == files)
        if job == "revoke" { expectErrno(EKEYREVOKED) { _ = try text(mounted("f39")) } }
        try mounted.command("cancel", job)
        for order in ["pause", "resume", "cancel"] {
            expectErrno(EPERM, "\(order)") { try mounted.command(order, job) }
        }
        #expect(try mounted.answer("keys/1/state") == (job == "revoke" ? "compromised" : "enabled"))
        if job == "revoke" { expectErrno(EKEYREVOKED) { _ = try text(mounted("f39")) } }
        // Another one does the rest, over a pause.
        try mounted.command(start, job)
        do throws(Errno) {
            try mounted.command("pause", job)
            try mounted.command("resume", job)
        } catch { #expect(error.value == EPERM) }
        let isDone = try eventually { try mounted.answer(job).hasPrefix("{\"state\":\"done\"") }
        let said = try mounted.answer(job)
        #expect(isDone, "\(said.prefix(500))")
        #expect(try mounted.answer("keys/1/files") == "0")
        for number in [0, 17, 39] {
            #expect(try contents(mounted("f\(number)")) == pattern(400_000, seed: UInt64(number)))
        }
    }
}
