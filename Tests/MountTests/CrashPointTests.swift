import Glibc
import Testing

/// Kills the server at every transaction of a change of the keys, before and after it.
@Suite("Killed at every transaction of a job", .serialized, .enabled(if: !Mounted.isPlain))
final class CrashPointTests {
    private enum Death: String, CaseIterable {
        /// The server alone: its guardian starts another one, and nobody sees an error.
        case server
        /// The guardian as well: the mount is dead and made anew.
        case group
    }

    private let mounted: Mounted
    private let failpoint: String
    private let clock: ClockFile
    private let sizes = [5, 900, 5000, 100_000]
    /// A file that lies under a version of its own.
    private var lost = "lost"

    init() throws {
        mounted = try Mounted()
        failpoint = mounted.workspace.allowFailpoints()
        clock = try ClockFile(mounted.workspace)
        try mounted.remount()
        for (number, size) in sizes.enumerated() { try put(pattern(size, seed: UInt64(number)), mounted("f\(number)")) }
    }

    deinit { unlink(failpoint) }

    private func primary() throws -> Int { try #require(Int(mounted.answer("keys/primary"))) }

    private func arm(_ count: Int, _ death: Death) throws {
        try put("\(count) \(death.rawValue)", failpoint + ".new", mode: 0o600)
        try check(rename(failpoint + ".new", failpoint))
    }

    private var isArmed: Bool { access(failpoint, F_OK) == 0 }

    /// Gives a command, which the server may die of. Nobody sees that, unless the mount goes with it.
    ///
    /// - Returns: false if it is not known whether it was done.
    private func command(_ command: String, _ name: String, _ death: Death) throws -> Bool {
        do throws(Errno) {
            try mounted.command(command, name)
            return true
        } catch {
            guard death == .group, !isArmed else { throw error }
            return false
        }
    }

    /// Mounts anew what has died with its guardian, after a look at what it has left on the disk.
    private func mountAgain(after death: Death, _ what: Comment) throws {
        guard death == .group, !isArmed else { return }
        mounted.killServer()
        let verified = try mounted.workspace.letterlock(
            "verify", mounted.store, "--key-service", mounted.workspace.keyService)
        #expect(verified.status == 0, "\(what): \(verified.text)\(verified.complaint)")
        try mounted.mount()
    }

    /// Every file reads its value, or is refused as its key's state demands.
    private func expectValues(refusals: [Int32] = [], _ what: Comment) throws {
        for (number, size) in sizes.enumerated() {
            do throws(Errno) {
                let value = try contents(mounted("f\(number)"))
                #expect(value == pattern(size, seed: UInt64(number)), what)
            } catch {
                #expect(refusals.contains(error.value), "f\(number): \(error), \(what)")
            }
        }
    }

    private func state(of job: String) throws -> String {
        let text = try mounted.answer(job)
        let start = try #require(text.firstRange(of: "\"state\":\"")).upperBound
        return String(text[start...].prefix { $0 != "\"" })
    }

    /// One round for each place to die at, until a round passes none.
    private func everywhere(_ death: Death, _ round: (Comment) throws -> Void) throws -> Int {
        for count in 0..<200 {
            Watchdog.shared.watch(mounted.guardian)
            try arm(count, death)
            try round("died of \(death) at place \(count)")
            if isArmed {
                unlink(failpoint)
                return count
            }
        }
        Issue.record("there is no end of places to die at")
        return 0
    }

    private func finish(_ death: Death) throws {
        try mounted.unmount()
        let verified = try mounted.workspace.letterlock(
            "verify", mounted.store, "--key-service", mounted.workspace.keyService)
        #expect(verified.status == 0, "\(verified.text)\(verified.complaint)")
    }

    @Test(arguments: ["server", "group"])
    func aRotation(death: String) throws {
        let death = try #require(Death(rawValue: death))
        let places = try everywhere(death) { what in
            let before = try primary()
            let isKnown = try command("1", "keys/rotate", death)
            try mountAgain(after: death, what)
            let after = try primary()
            #expect(isKnown ? after == before + 1 : [before, before + 1].contains(after), what)
            #expect(try mounted.answer("keys/rotate") == "\(after)", what)
            try expectValues(what)
        }
        #expect(places >= 2)
        try finish(death)
    }

    @Test(arguments: ["rewrap", "reencrypt"], ["server", "group"])
    func aJob(job: String, death: String) throws {
        let death = try #require(Death(rawValue: death))
        let before = try sizes.indices.map { try attributes(mounted("f\($0)")) }
        let places = try everywhere(death) { what in
            // The rotation is a place to die at too, though not the one that is meant here.
            unlink(failpoint)
            try mounted.command("1", "keys/rotate")
            let count = Int(what.description.split(separator: " ").last ?? "") ?? 0
            try arm(count, death)
            let isKnown = try command("start", job, death)
            if isKnown { _ = eventually { !isArmed || (try? self.state(of: job)) == "done" } }
            try mountAgain(after: death, what)
            if !isKnown, try state(of: job) != "running" { try? mounted.command("start", job) }
            #expect(try eventually { try state(of: job) == "done" }, what)
            #expect(try mounted.answer(job).contains("\"failed\":0"), what)
            try expectValues(what)
            let version = try primary()
            for number in sizes.indices {
                let seen = try extendedAttributeText(mounted("f\(number)"), "user.letterlock.kek_version")
                #expect(seen == "\(version)", "f\(number), \(what)")
            }
        }
        #expect(places >= 6)
        for (number, old) in before.enumerated() {
            let new = try attributes(mounted("f\(number)"))
            #expect(new.modified == old.modified && new.changed == old.changed && new.st_ino == old.st_ino)
        }
        try finish(death)
    }

    @Test(arguments: ["server", "group"])
    func aRevocation(death: String) throws {
        let death = try #require(Death(rawValue: death))
        var mostReports = 0
        let places = try everywhere(death) { what in
            let before = try primary()
            let isKnown = try command("\(before) \(what)", "revoke", death)
            if isKnown {
                _ = eventually {
                    try? self.expectValues(refusals: [EKEYREVOKED, ENOTCONN, ECONNABORTED, ENODEV, ENOENT], what)
                    return !isArmed || (try? self.state(of: "revoke")) == "done"
                }
            }
            try mountAgain(after: death, what)
            if try mounted.answer("keys/\(before)/state") != "compromised" {
                #expect(!isKnown, what)
                try mounted.command("\(before) \(what)", "revoke")
            }
            #expect(
                try eventually {
                    try expectValues(refusals: [EKEYREVOKED], what)
                    return try state(of: "revoke") == "done"
                }, what)
            #expect(try primary() == before + 1, what)
            #expect(try mounted.answer("keys/\(before)/files") == "0", what)
            try expectValues(what)
            #expect(try extendedAttributeText(mounted("f3"), "user.letterlock.needs_regeneration") == "1", what)
            // The report is there before the note of it, and is written again if the server dies between the two.
            let reports = try reportCount(ofVersion: before)
            #expect(reports == 1 || reports == 2, "\(reports) reports, \(what)")
            #expect(try mounted.answer("revoke").contains("{\"step\":\"report\",\"state\":\"done\""), what)
            mostReports = max(mostReports, reports)
        }
        #expect(places >= 6)
        // Before the note's transaction was one of the places.
        #expect(mostReports == 2)
        #expect(try mounted.answer("audit/verify").hasPrefix("ok "))
        try finish(death)
    }

    private func reportCount(ofVersion version: Int) throws -> Int {
        let directory = mounted.workspace("state/audit")
        let mark = "\"type\":\"revocation\",\"keyring\":\"trial\",\"kek_version\":\(version),"
        return try names(directory).map { name in
            try text(directory + "/" + name).split(separator: "\n").count { $0.contains(mark) }
        }.reduce(0, +)
    }

    /// Version after version comes to its deadline, which the server dies at.
    @Test(arguments: ["server", "group"])
    func aDestructionAtItsDeadline(death: String) throws {
        let death = try #require(Death(rawValue: death))
        try mounted.command("1", "keys/deletion_allowed")
        let places = try everywhere(death) { what in
            unlink(failpoint)
            let old = try primary()
            try put("given up", mounted(lost))
            try mounted.command("1", "keys/rotate")
            for number in sizes.indices { try put(pattern(sizes[number], seed: UInt64(number)), mounted("f\(number)")) }
            try mounted.command("7 force", "keys/\(old)/destroy")
            try arm(Int(what.description.split(separator: " ").last ?? "") ?? 0, death)
            try clock.set(wall: 8 * 86_400, boot: 8 * 86_400)
            _ = eventually { !isArmed || (try? self.isErased(old)) == true }
            try mountAgain(after: death, what)
            #expect(try eventually { try isErased(old) }, what)
            expectErrno(ENOKEY, "\(what)") { _ = try contents(mounted(lost)) }
            expectErrno(ENOKEY, "\(what)") { try mounted.command("1", "keys/\(old)/cancel_destroy") }
            try expectValues(what)
            try clock.set(wall: 0, boot: 0)
        }
        #expect(places >= 4)
        try finish(death)
    }

    private func isErased(_ version: Int) throws -> Bool {
        try mounted.answer("keys/\(version)/state") == "destroyed"
            && mounted.answer("status").contains("\"kind\":\"erase\",\"state\":\"done\"")
    }

    @Test(arguments: ["server", "group"])
    func aDestruction(death: String) throws {
        let death = try #require(Death(rawValue: death))
        try put("given up", mounted(lost))
        let old = try primary()
        try mounted.command("1", "keys/rotate")
        for number in sizes.indices { try put(pattern(sizes[number], seed: UInt64(number)), mounted("f\(number)")) }
        try mounted.command("1", "keys/deletion_allowed")
        for (order, name, expected, refusal) in [
            ("7 force", "destroy", "pending-destruction", EKEYREVOKED),
            ("1", "cancel_destroy", "disabled", EKEYREVOKED),
        ] {
            let places = try everywhere(death) { what in
                unlink(failpoint)
                if try mounted.answer("keys/\(old)/state") == expected {
                    let back = expected == "disabled" ? ("7 force", "destroy") : ("1", "cancel_destroy")
                    try mounted.command(back.0, "keys/\(old)/\(back.1)")
                }
                try arm(Int(what.description.split(separator: " ").last ?? "") ?? 0, death)
                let isKnown = try command(order, "keys/\(old)/\(name)", death)
                try mountAgain(after: death, what)
                if try mounted.answer("keys/\(old)/state") != expected {
                    #expect(!isKnown, what)
                    try mounted.command(order, "keys/\(old)/\(name)")
                }
                expectErrno(refusal, "\(what)") { _ = try contents(mounted(lost)) }
                try expectValues(what)
            }
            #expect(places >= 2)
        }
        try mounted.command("enable", "keys/\(old)/state")
        #expect(try text(mounted(lost)) == "given up")
        try finish(death)
    }
}
