import Glibc
import Testing

@Suite("The lifecycle of key versions through the control directory", .enabled(if: !Mounted.isPlain))
struct LifecycleTests {
    let mounted: Mounted

    init() throws { mounted = try Mounted() }

    /// Versions 1, 2 and 3, with a file under each.
    private func threeVersions() throws {
        for version in 1...3 {
            if version > 1 { try mounted.command("1", "keys/rotate") }
            try put("under \(version)", mounted("f\(version)"))
        }
    }

    @Test func minimumsMakeVersionsDecryptOnlyAndExpired() throws {
        try threeVersions()
        try mounted.command("2\n", "keys/min_encryption_version")
        #expect(try mounted.answer("keys/min_encryption_version") == "2")
        #expect(try mounted.answer("keys/1/state") == "decrypt-only")
        #expect(try text(mounted("f1")) == "under 1")
        let file = try OpenFile(mounted("f1"), O_RDONLY)
        try mounted.command("2", "keys/min_decryption_version")
        expectErrno(EKEYEXPIRED) { _ = try text(mounted("f1")) }
        expectErrno(EKEYEXPIRED) { _ = try file.read(10, at: 0) }
        #expect(try text(mounted("f2")) == "under 2")
        expectErrno(ERANGE) { try mounted.command("3", "keys/min_decryption_version") }
        expectErrno(ERANGE) { try mounted.command("1", "keys/min_encryption_version") }
        expectErrno(ERANGE) { try mounted.command("4", "keys/min_encryption_version") }
        expectErrno(EINVAL) { try mounted.command("two", "keys/min_decryption_version") }
        try mounted.command("1", "keys/min_decryption_version")
        #expect(try file.text() == "under 1")
    }

    @Test func destructionWaitsAndIsCalledOff() throws {
        try threeVersions()
        expectErrno(EPERM) { try mounted.command("7 force", "keys/1/destroy") }
        expectErrno(EINVAL) { try mounted.command("yes", "keys/deletion_allowed") }
        try mounted.command("1", "keys/deletion_allowed")
        #expect(try mounted.answer("keys/deletion_allowed") == "1")
        expectErrno(EBUSY) { try mounted.command("7 force", "keys/3/destroy") }
        expectErrno(EBUSY) { try mounted.command("7", "keys/1/destroy") }
        for days in ["6 force", "31 force", "0 force"] {
            expectErrno(ERANGE) { try mounted.command(days, "keys/1/destroy") }
        }
        expectErrno(EINVAL) { try mounted.command("7 perhaps", "keys/1/destroy") }
        #expect(try mounted.answer("keys/1/destroy") == "-")
        try mounted.command("7 force", "keys/1/destroy")
        #expect(try mounted.answer("keys/1/state") == "pending-destruction")
        #expect(try mounted.answer("keys/1/destroy").hasPrefix("20"))
        expectErrno(EKEYREVOKED) { _ = try text(mounted("f1")) }
        try mounted.remount()
        #expect(try mounted.answer("keys/1/state") == "pending-destruction")
        try mounted.command("1", "keys/1/cancel_destroy")
        #expect(try mounted.answer("keys/1/state") == "disabled")
        expectErrno(EPERM) { try mounted.command("1", "keys/1/cancel_destroy") }
        try mounted.command("enable", "keys/1/state")
        #expect(try text(mounted("f1")) == "under 1")
        // Without files nothing has to be forced.
        expectDone(unlink(mounted("f2")))
        #expect(try eventually { try mounted.answer("keys/2/files") == "0" })
        try mounted.command("30", "keys/2/destroy")
        #expect(try mounted.answer("keys/2/state") == "pending-destruction")
    }

    @Test func aCompromisedVersionIsNotReadAndNotEnabled() throws {
        try threeVersions()
        expectErrno(EBUSY) { try mounted.command("compromise laptop stolen", "keys/3/state") }
        try mounted.command("compromise laptop stolen", "keys/2/state")
        #expect(try mounted.answer("keys/2/state") == "compromised")
        #expect(try mounted.answer("keys/list").contains("laptop stolen"))
        expectErrno(EKEYREVOKED) { _ = try text(mounted("f2")) }
        expectErrno(EPERM) { try mounted.command("enable", "keys/2/state") }
        // A new value is under the primary, and reads.
        try put("a new secret", mounted("f2"))
        #expect(try text(mounted("f2")) == "a new secret")
        #expect(try text(mounted("f1")) == "under 1")
    }

    @Test(arguments: ["auto_rotate_period", "disable_after", "destroy_after"])
    func periodsAreTakenInSecondsHoursAndDays(name: String) throws {
        #expect(try mounted.answer("keys/\(name)") == "0")
        for (command, seconds) in [("720h", "2592000"), ("30d\n", "2592000"), ("3600", "3600"), ("0", "0")] {
            try mounted.command(command, "keys/\(name)")
            #expect(try mounted.answer("keys/\(name)") == seconds)
        }
        for command in ["soon", "-1", "1.5h", "h", "1w x"] {
            expectErrno(EINVAL, "\(command)") { try mounted.command(command, "keys/\(name)") }
        }
        guard name == "auto_rotate_period" else { return }
        expectErrno(ERANGE) { try mounted.command("3599", "keys/\(name)") }
        #expect(try mounted.answer("keys/next_rotation") == "never")
        try mounted.command("720h", "keys/\(name)")
        #expect(try mounted.answer("keys/next_rotation").hasPrefix("20"))
        try mounted.remount()
        #expect(try mounted.answer("keys/\(name)") == "2592000")
    }
}
