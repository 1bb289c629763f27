import Testing

@testable import Keyring

/// What may be asked of a version.
enum Command: CaseIterable {
    case promote, disable, enable, compromise, destroy, cancel

    func run(_ lifecycle: inout KeyLifecycle, _ version: KEKVersion, now: Timestamp) throws(LifecycleError) {
        switch self {
        case .promote: try lifecycle.promote(version, now: now)
        case .disable: try lifecycle.disable(version, now: now)
        case .enable: try lifecycle.enable(version, now: now)
        case .compromise: try lifecycle.compromise(version, reason: "laptop lost", now: now)
        case .destroy: try lifecycle.scheduleDestruction(of: version, days: 7, force: false, files: 0, now: now)
        case .cancel: try lifecycle.cancelDestruction(of: version, now: now)
        }
    }
}

@Suite struct LifecycleTests {
    /// Versions 1 to 3; version 2 is in `state`, or is 3, the primary.
    private func lifecycle(with state: KEKState) throws -> (KeyLifecycle, KEKVersion) {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.rotate(now: day(1))
        try lifecycle.rotate(now: day(2))
        lifecycle.setDeletionAllowed(true)
        let two = version(2)
        switch state {
        case .primary: return (lifecycle, version(3))
        case .enabled: break
        case .decryptOnly: try lifecycle.setMinEncryption(version(3))
        case .disabled: try lifecycle.disable(two, now: day(3))
        case .compromised: try lifecycle.compromise(two, reason: "laptop lost", now: day(3))
        case .pendingDestruction, .destroyed:
            try lifecycle.scheduleDestruction(of: two, days: 7, force: false, files: 0, now: day(3))
            if state == .destroyed { lifecycle.destroyDue(now: day(10)) }
        }
        return (lifecycle, two)
    }

    /// Rows are states, columns commands; a state is what follows, an error what is thrown.
    static let table: [KEKState: [Command: Result<KEKState, LifecycleError>]] = [
        .primary: [
            .promote: .success(.primary), .disable: .failure(.isPrimary), .enable: .failure(.isPrimary),
            .compromise: .failure(.isPrimary), .destroy: .failure(.isPrimary), .cancel: .failure(.notPermitted),
        ],
        .enabled: [
            .promote: .success(.primary), .disable: .success(.disabled), .enable: .success(.enabled),
            .compromise: .success(.compromised), .destroy: .success(.pendingDestruction),
            .cancel: .failure(.notPermitted),
        ],
        .decryptOnly: [
            .promote: .failure(.outOfRange), .disable: .success(.disabled), .enable: .success(.decryptOnly),
            .compromise: .success(.compromised), .destroy: .success(.pendingDestruction),
            .cancel: .failure(.notPermitted),
        ],
        .disabled: [
            .promote: .failure(.notPermitted), .disable: .success(.disabled), .enable: .success(.enabled),
            .compromise: .success(.compromised), .destroy: .success(.pendingDestruction),
            .cancel: .failure(.notPermitted),
        ],
        .compromised: [
            .promote: .failure(.notPermitted), .disable: .failure(.notPermitted), .enable: .failure(.notPermitted),
            .compromise: .success(.compromised), .destroy: .success(.pendingDestruction),
            .cancel: .failure(.notPermitted),
        ],
        .pendingDestruction: [
            .promote: .failure(.notPermitted), .disable: .failure(.notPermitted), .enable: .failure(.notPermitted),
            .compromise: .failure(.notPermitted), .destroy: .failure(.notPermitted), .cancel: .success(.disabled),
        ],
        .destroyed: [
            .promote: .failure(.destroyed), .disable: .failure(.destroyed), .enable: .failure(.destroyed),
            .compromise: .failure(.destroyed), .destroy: .failure(.destroyed), .cancel: .failure(.destroyed),
        ],
    ]

    @Test(arguments: KEKState.allCases, Command.allCases)
    func `every command in every state does what the table says`(state: KEKState, command: Command) throws {
        let (before, version) = try lifecycle(with: state)
        #expect(before.state(of: version) == state)
        var after = before
        let result = Result { () throws(LifecycleError) in
            try command.run(&after, version, now: day(20))
            return after.state(of: version) ?? .destroyed
        }
        #expect(result == Self.table[state]?[command])
        if case .failure = result { #expect(after == before) }
        #expect(after.isConsistent)
    }

    @Test(arguments: [0, 4, .max] as [UInt32])
    func `there is no such version`(number: UInt32) throws {
        var (lifecycle, _) = try lifecycle(with: .enabled)
        for command in Command.allCases {
            #expect(throws: LifecycleError.noSuchVersion) {
                try command.run(&lifecycle, version(number), now: start)
            }
        }
        #expect(lifecycle.state(of: version(number)) == nil && lifecycle[version(number)] == nil)
        #expect(lifecycle.refusal(of: version(number)) == .noSuchVersion)
    }

    @Test func `a rotation makes a new primary and leaves the old one enabled`() throws {
        var lifecycle = KeyLifecycle(now: start)
        #expect(lifecycle.versions.map(\.state) == [.primary])
        #expect(try lifecycle.rotate(now: day(1)) == version(2))
        #expect(lifecycle.versions.map(\.state) == [.enabled, .primary])
        #expect(lifecycle.primary == version(2) && lifecycle.latest == version(2))
        #expect(lifecycle[version(1)]?.retired == day(1) && lifecycle[version(2)]?.created == day(1))
        #expect(lifecycle.isEverythingReadable)
    }

    @Test func `of two rotations that expect the same latest version one loses`() throws {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.rotate(ifLatest: version(1), now: day(1))
        #expect(throws: LifecycleError.staleLatest) { try lifecycle.rotate(ifLatest: version(1), now: day(1)) }
        #expect(lifecycle.latest == version(2))
    }

    @Test func `after a promotion a rotation is still numbered anew`() throws {
        var lifecycle = KeyLifecycle(now: start)
        try lifecycle.rotate(now: day(1))
        try lifecycle.promote(version(1), now: day(2))
        #expect(lifecycle.versions.map(\.state) == [.primary, .enabled])
        #expect(lifecycle[version(1)]?.retired == nil && lifecycle[version(2)]?.retired == day(2))
        #expect(try lifecycle.rotate(now: day(3)) == version(3))
    }

    @Test func `what was compromised once is never enabled again`() throws {
        var (lifecycle, version) = try lifecycle(with: .compromised)
        try lifecycle.scheduleDestruction(of: version, days: 30, force: false, files: 0, now: day(4))
        try lifecycle.cancelDestruction(of: version, now: day(5))
        #expect(lifecycle.state(of: version) == .disabled)
        #expect(throws: LifecycleError.notPermitted) { try lifecycle.enable(version, now: day(6)) }
        try lifecycle.compromise(version, reason: "still", now: day(7))
        #expect(lifecycle[version]?.reason == "still")
    }

    @Test(
        arguments: [(-1, false), (0, false), (6, false), (7, true), (30, true), (31, false), (.max, false)]
            as [(Int, Bool)])
    func `a destruction waits 7 to 30 days`(days: Int, isTaken: Bool) throws {
        var (lifecycle, version) = try lifecycle(with: .enabled)
        let result = Result { () throws(LifecycleError) in
            try lifecycle.scheduleDestruction(of: version, days: days, force: false, files: 0, now: day(3))
        }
        guard isTaken else {
            #expect(throws: LifecycleError.outOfRange) { try result.get() }
            return
        }
        try result.get()
        let deadline = day(3 + Int64(days))
        #expect(lifecycle[version]?.destroyAt == deadline)
        let before = Timestamp(seconds: deadline.seconds - 1, nanoseconds: 999_999_999)
        #expect(lifecycle.destroyDue(now: before).isEmpty)
        #expect(lifecycle.destroyDue(now: deadline) == [version])
        #expect(lifecycle.state(of: version) == .destroyed && lifecycle.isConsistent)
    }

    @Test func `files hold a destruction up, unless it is forced`() throws {
        var (lifecycle, version) = try lifecycle(with: .enabled)
        #expect(throws: LifecycleError.filesRemain(3)) {
            try lifecycle.scheduleDestruction(of: version, days: 7, force: false, files: 3, now: day(3))
        }
        try lifecycle.scheduleDestruction(of: version, days: 7, force: true, files: 3, now: day(3))
        #expect(lifecycle.state(of: version) == .pendingDestruction)
    }

    @Test func `without deletion_allowed nothing is destroyed`() throws {
        var (lifecycle, version) = try lifecycle(with: .enabled)
        lifecycle.setDeletionAllowed(false)
        #expect(throws: LifecycleError.notPermitted) {
            try lifecycle.scheduleDestruction(of: version, days: 7, force: true, files: 0, now: day(3))
        }
    }

    @Test func `a reason has 1 to 1024 bytes`() throws {
        var (lifecycle, version) = try lifecycle(with: .enabled)
        for reason in ["", String(repeating: "x", count: 1025)] {
            #expect(throws: LifecycleError.outOfRange) {
                try lifecycle.compromise(version, reason: reason, now: start)
            }
        }
        try lifecycle.compromise(version, reason: String(repeating: "x", count: 1024), now: start)
    }

    @Test func `the minimums keep their order`() throws {
        var lifecycle = KeyLifecycle(now: start)
        for _ in 0..<4 { try lifecycle.rotate(now: day(1)) }
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.setMinDecryption(version(0)) }
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.setMinDecryption(version(6)) }
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.setMinEncryption(version(6)) }
        try lifecycle.setMinEncryption(version(3))
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.setMinDecryption(version(4)) }
        try lifecycle.setMinDecryption(version(3))
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.setMinEncryption(version(2)) }
        try lifecycle.setMinEncryption(version(0))
        try lifecycle.setMinDecryption(version(5))
        #expect(throws: LifecycleError.outOfRange) { try lifecycle.promote(version(4), now: day(2)) }
        #expect(lifecycle.isConsistent)
    }

    @Test func `below the minimum for decryption a version is expired`() throws {
        var lifecycle = KeyLifecycle(now: start)
        for _ in 0..<2 { try lifecycle.rotate(now: day(1)) }
        try lifecycle.setMinDecryption(version(2))
        #expect(lifecycle.refusal(of: version(1)) == .expired && lifecycle.refusal(of: version(2)) == nil)
        #expect(!lifecycle.isEverythingReadable)
        try lifecycle.setMinDecryption(version(1))
        #expect(lifecycle.isEverythingReadable)
    }

    @Test func `each state refuses to unwrap in its own way`() throws {
        let refusals: [KEKState: KeyringError] = [
            .disabled: .revoked(.disabled), .compromised: .revoked(.compromised),
            .pendingDestruction: .revoked(.pendingDestruction), .destroyed: .destroyed,
        ]
        for state in KEKState.allCases {
            let (lifecycle, version) = try lifecycle(with: state)
            #expect(lifecycle.refusal(of: version) == refusals[state])
            #expect(
                lifecycle.refusal(of: version, forReencryption: true)
                    == (state == .compromised ? nil : refusals[state]))
            #expect(lifecycle.isEverythingReadable == (refusals[state] == nil))
        }
    }

    @Test func `has the names of the manual`() {
        #expect(
            KEKState.allCases.map(\.name) == [
                "primary", "enabled", "decrypt-only", "disabled", "compromised", "pending-destruction", "destroyed",
            ])
    }

    @Test(arguments: [1, 2, 3, 4] as [UInt64])
    func `whatever is commanded, the invariants hold`(seed: UInt64) {
        var random = Seeded(seed)
        var lifecycle = KeyLifecycle(now: start)
        var now = start
        var tombstones: Set<KEKVersion> = []
        for step in 0..<4000 {
            now = now.adding(seconds: Int64.random(in: 0...200_000, using: &random))
            let before = lifecycle
            do throws(LifecycleError) {
                let any = version(UInt32.random(in: 0...lifecycle.latest.rawValue + 1, using: &random))
                switch Int.random(in: 0..<14, using: &random) {
                case 0: if lifecycle.latest.rawValue < 40 { try lifecycle.rotate(now: now) }
                case 1: try lifecycle.setMinDecryption(any)
                case 2: try lifecycle.setMinEncryption(any)
                case 3: lifecycle.setDeletionAllowed(Bool.random(using: &random))
                case 4: try lifecycle.setAutoRotatePeriod(Int64.random(in: 0...10000, using: &random))
                case 5: try lifecycle.setDisableAfter(Int64.random(in: -10...1_000_000, using: &random))
                case 6: try lifecycle.setDestroyAfter(Int64.random(in: -10...2_000_000, using: &random))
                case 7:
                    let actions = lifecycle.dueActions(now: now) { $0.rawValue % 3 == 0 ? 1 : 0 }
                    for action in actions where lifecycle.latest.rawValue < 40 || action != .rotate {
                        try lifecycle.perform(action, now: now)
                    }
                default:
                    let command = Command.allCases.randomElement(using: &random) ?? .disable
                    try command.run(&lifecycle, any, now: now)
                }
            } catch {
                #expect(lifecycle == before || lifecycle.latest != before.latest, "seed \(seed), step \(step)")
            }
            #expect(lifecycle.isConsistent, "seed \(seed), step \(step)")
            #expect(lifecycle.latest >= before.latest && lifecycle.refusal(of: lifecycle.primary) == nil)
            #expect(tombstones.allSatisfy { lifecycle.state(of: $0) == .destroyed })
            tombstones = Set(lifecycle.versions.filter { $0.state == .destroyed }.map(\.version))
        }
    }
}
