import Glibc
import Synchronization
import Testing

/// A server that is killed, crashed and upgraded again and again under applications of all kinds: none of them notices.
///
/// `make soak` does it longer: LETTERLOCK_SOAK_KILLS says how often, LETTERLOCK_SOAK_SEED repeats a run.
@Suite(.serialized, .enabled(if: !Mounted.isPlain))
struct SoakTests {
    private static let upgradeSignal = SIGUSR1

    @Test(arguments: ["kernel", "none"])
    func nobodyNotices(_ cache: String) throws {
        let mounted = try Mounted(options: "cache=\(cache)")
        let kills = Workspace.variable("LETTERLOCK_SOAK_KILLS").flatMap(Int.init) ?? 15
        let seed = Workspace.variable("LETTERLOCK_SOAK_SEED").flatMap(UInt64.init) ?? UInt64(getpid())
        print("soak: cache=\(cache), seed \(seed), \(kills) times")
        Watchdog.shared.watch(mounted.guardian, seconds: 150 + kills)
        let stops = Flag()
        let crew = try Soak.everybody(on: mounted, hasMappedWrites: cache == "kernel").map { try Soaker($0, stops) }
        let chaos = Result { try Self.harass(mounted, kills: kills, seed: seed) }
        stops.raised.store(true, ordering: .releasing)
        let failures = crew.compactMap { $0.end() }
        #expect(failures.isEmpty)
        #expect(crew.allSatisfy { $0.count > 0 })
        for soaker in crew { soaker.letGo() }
        let counts = try chaos.get()
        print(
            "soak: \(counts.kills) killed, \(counts.crashes) crashed, \(counts.upgrades) upgraded;",
            crew.map { "\($0.name) \($0.count)" }.joined(separator: ", "))
        // None has died of itself.
        let restarts = try mounted.restarts()
        #expect(restarts <= counts.kills + counts.crashes)
        // Read before anything is unmounted: what was acknowledged is there, and still there afterwards.
        let log = try text(mounted("log"))
        try mounted.remount()
        #expect(try text(mounted("log")) == log)
        try mounted.unmount()
        let verified = try mounted.workspace.letterlock(
            "verify", mounted.store, "--key-service", mounted.workspace.keyService)
        #expect(verified.status == 0, "\(verified.text)\(verified.complaint)")
    }

    private struct Counts {
        var kills = 0
        var crashes = 0
        var upgrades = 0
    }

    private static func harass(_ mounted: Mounted, kills: Int, seed: UInt64) throws -> Counts {
        var counts = Counts()
        var random = seed
        for _ in 0..<kills {
            random = random &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
            usleep(UInt32(random >> 33) % 120_000)
            switch random >> 60 {
            case 0, 1:
                mounted.mayCrash = true
                kill(try mounted.process("server"), SIGSEGV)
                counts.crashes += 1
            case 2, 3:
                kill(mounted.guardian, upgradeSignal)
                counts.upgrades += 1
            default:
                kill(try mounted.process("server"), SIGKILL)
                counts.kills += 1
            }
        }
        return counts
    }
}
