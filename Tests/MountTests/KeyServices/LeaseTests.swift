import Glibc
import Testing

/// Keys that were unsealed for a time.
@Suite("Leases", .enabled(if: !Mounted.isPlain), .enabled(if: Cloud.isTested, "\(Cloud.installing)"))
struct LeaseTests {
    let work: Workspace
    let cloud: Cloud

    init() throws {
        work = try Workspace()
        cloud = try Cloud(work, .ministack)
        let made = try run("init", work.store, "--key-service", "awskms:" + cloud.key)
        guard made.status == 0 else { throw HarnessError(made.complaint) }
    }

    private func run(_ words: String...) throws -> Outcome {
        try work.run([try Workspace.program()] + words, environment: cloud.environment)
    }

    private func mount(_ options: String) throws {
        let mounted = try run("mount", work.store, work("mnt"), "--key-service", "awskms:" + cloud.key, "-o", options)
        guard mounted.status == 0 else { throw HarnessError(mounted.complaint) }
        try put("value", work("mnt/secret"))
    }

    private func unmount() { _ = try? run("umount", work("mnt")) }
    private var isLocked: Bool { (try? text(work("mnt/.letterlock/lock"))) == "locked\n" }
    private func status() throws -> String { try text(work("mnt/.letterlock/status")) }

    @Test func aDisabledKeyTakesEffectWhenTheLeaseIsOver() throws {
        try mount("lease=2s")
        defer { unmount() }
        #expect(try status().contains(#""state":"granted""#))
        try cloud.ask("DisableKey", #"{"KeyId":"\#(cloud.key)"}"#)
        let open = try OpenFile(work("mnt/secret"), O_RDONLY)
        #expect(eventually { isLocked })
        expectErrno(ENOKEY) { _ = try text(work("mnt/secret")) }
        expectErrno(ENOKEY) { _ = try open.read(1, at: 0) }
        // Nothing opens it until the service does.
        expectErrno(EKEYREVOKED) { try OpenFile(work("mnt/.letterlock/unlock"), O_WRONLY).write("1") }
        let refused = try run("unlock", work("mnt"))
        #expect(refused.status == 4 && refused.complaint.contains("key is disabled"), "\(refused.complaint)")
        try cloud.ask("EnableKey", #"{"KeyId":"\#(cloud.key)"}"#)
        #expect(try run("unlock", work("mnt")).status == 0)
        #expect(try text(work("mnt/secret")) == "value")
    }

    @Test func aServiceThatIsGoneIsBorneForATimeOfGraceThatShows() throws {
        try mount("lease=1s,lease_grace=4s")
        defer { unmount() }
        cloud.end()
        #expect(eventually { (try? status().contains(#""state":"grace""#)) == true })
        #expect(try text(work("mnt/secret")) == "value")
        #expect(try status().contains("cannot be renewed"))
        #expect(try text(work("mnt/.letterlock/metrics")).contains("\nletterlock_lease_grace 1\n"))
        #expect(eventually { isLocked })
        expectErrno(ENOKEY) { _ = try text(work("mnt/secret")) }
    }

    @Test func aServiceThatIsGoneWithinTheLeaseDisturbsNobodyNotAfterAKillEither() throws {
        try mount("lease=1h")
        defer { unmount() }
        cloud.end()
        let before = try leaseLeft()
        kill(try #require(pid_t(try pid())), SIGKILL)
        #expect(try text(work("mnt/secret")) == "value")
        let status = try status()
        #expect(status.contains(#""state":"granted""#) && status.contains(#""problems":[]"#), "\(status)")
        // The successor has begun no new lease.
        #expect(try leaseLeft() <= before)
    }

    /// Members of `status`, by their path.
    private func member(_ path: String) throws -> String {
        let pick = "import json, sys; v = json.load(sys.stdin)\nfor p in sys.argv[1].split('.'): v = v[p]\nprint(v)"
        return try work.done(["python3", "-c", pick, path], input: try status()).line
    }
    private func pid() throws -> String { try member("server.pid") }
    private func leaseLeft() throws -> Int { try #require(Int(try member("lease.seconds_left"))) }

    @Test func aLeaseIsRenewedAsLongAsTheServiceSaysYes() throws {
        try mount("lease=2s,lease_grace=0")
        defer { unmount() }
        // Several leases long: it is granted again when little is left.
        var low = false
        #expect(
            eventually {
                let left = (try? leaseLeft()) ?? 0
                defer { if left <= 1 { low = true } }
                return low && left == 2
            })
        #expect(try text(work("mnt/secret")) == "value")
    }

    @Test func aPassphraseHasNone() throws {
        try put("sesame", work("word"), mode: 0o600)
        #expect(try run("init", work("p"), "--passphrase-file", work("word")).status == 0)
        let refused = try run("mount", work("p"), work("mnt"), "--passphrase-file", work("word"), "-o", "lease=1h")
        #expect(refused.status == 2 && refused.complaint.contains("asked again"), "\(refused.complaint)")
        let odd = try run("mount", work.store, work("mnt"), "--key-service", "awskms:" + cloud.key, "-o", "lease=soon")
        #expect(odd.status == 2 && odd.complaint.contains("lease=1h"), "\(odd.complaint)")
    }
}
