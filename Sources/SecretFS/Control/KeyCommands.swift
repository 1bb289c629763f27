import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// What the files below `keys` do.
extension SecretFS {
    func keyRecord(_ version: KEKVersion) throws(Errno) -> KEKRecord {
        guard let record = tree.keyring.lifecycle[version] else { throw .notFound }
        return record
    }

    func keyState(_ version: KEKVersion) throws(Errno) -> KEKState {
        guard let state = tree.keyring.lifecycle.state(of: version) else { throw .notFound }
        return state
    }

    /// Changes the keys, and has the kernel drop what can no longer be read, before anyone is told that it is done.
    func changeKeys(_ change: (inout KeyLifecycle) throws(LifecycleError) -> Void) throws(Errno) {
        var states: (before: KeyLifecycle, after: KeyLifecycle)?
        try answering { () throws(TreeError) in
            try tree.changeKeys(now: .now()) { lifecycle throws(LifecycleError) in
                let before = lifecycle
                try change(&lifecycle)
                states = (before, lifecycle)
            }
        }
        dropUnreadablePages()
        tellRotations()
        if let states { tellStates(states.before, states.after) }
    }

    func rotate(_ command: ControlCommand) throws(Errno) {
        let prefix = "if-latest="
        var expected: KEKVersion?
        if command.text.hasPrefix(prefix) {
            expected = try ControlCommand.version(command.text.dropFirst(prefix.count))
        } else {
            try command.expect("1")
        }
        let latest = expected
        _ = try answering { () throws(TreeError) in try tree.rotate(ifLatest: latest, now: .now()) }
        tellRotations()
    }

    func promote(_ command: ControlCommand) throws(Errno) {
        let version = try command.version()
        let now = Timestamp.now()
        try changeKeys { lifecycle throws(LifecycleError) in try lifecycle.promote(version, now: now) }
    }

    func changeState(of version: KEKVersion, _ command: ControlCommand) throws(Errno) {
        let now = Timestamp.now()
        switch command.words {
        case ("disable", nil):
            try changeKeys { lifecycle throws(LifecycleError) in
                // A version that is disabled already has no such transition.
                guard lifecycle.state(of: version) != .disabled else { throw .notPermitted }
                try lifecycle.disable(version, now: now)
            }
        case ("enable", nil):
            try changeKeys { lifecycle throws(LifecycleError) in
                guard let state = lifecycle.state(of: version) else { throw .noSuchVersion }
                guard state == .disabled || state == .destroyed else { throw .notPermitted }
                try lifecycle.enable(version, now: now)
            }
        case ("compromise", let text?):
            let reason = try ControlCommand.reason(text)
            try changeKeys { lifecycle throws(LifecycleError) in
                // Nor has one that is compromised, and its reason stays.
                guard lifecycle.state(of: version) != .compromised else { throw .notPermitted }
                try lifecycle.compromise(version, reason: reason, now: now)
            }
        default: throw .invalid
        }
    }

    /// `days`, or `days force`.
    func scheduleDestruction(of version: KEKVersion, _ command: ControlCommand) throws(Errno) {
        let (days, rest) = command.words
        guard rest == nil || rest == "force" else { throw .invalid }
        let count = Int(try ControlCommand.number(days[...]))
        let files = tree.versionCounts[version] ?? 0
        let now = Timestamp.now()
        try changeKeys { lifecycle throws(LifecycleError) in
            try lifecycle.scheduleDestruction(of: version, days: count, force: rest != nil, files: files, now: now)
        }
    }

    /// Does what the passing of time asks for. What fails is tried again at the next look.
    func doWhatIsDue(at time: ScheduleClock) {
        let wall = time.wall
        let clock = clockWatch.withLock { watch in
            watch.observe(wall: wall, boot: time.boot)
            return watch
        }
        let counts = tree.versionCounts
        for action in tree.keyring.lifecycle.dueActions(now: wall, files: { counts[$0] ?? 0 }) {
            var now = wall
            if case .destroy(let version) = action {
                // There is no way back from it: a clock that was set ahead does not bring it about.
                guard let deadline = tree.keyring.lifecycle[version]?.destroyAt, deadline <= clock.trusted else {
                    tree.report(
                        Problem(
                            node: nil,
                            description: "the clock was set ahead: the destruction of KEK version \(version) is held",
                            isDamage: false))
                    continue
                }
                now = clock.trusted
            }
            let moment = now
            try? recordingDue(action) { () throws(Errno) in
                try changeKeys { lifecycle throws(LifecycleError) in try lifecycle.perform(action, now: moment) }
            }
        }
    }

    /// Whole seconds since boot, time asleep among them: a clock that nobody sets.
    static var bootSeconds: Int64 {
        var time = timespec()
        clock_gettime(CLOCK_BOOTTIME, &time)
        return Int64(time.tv_sec)
    }

    /// The paths of the files that a version guards, each ended by a zero byte.
    func paths(under version: KEKVersion) throws(Errno) -> ControlText {
        let text = ControlText()
        try answering { () throws(TreeError) in try tree.withPaths(under: version) { text.append($0) } }
        return text
    }
}
