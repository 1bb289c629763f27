import Fuse
import Glibc
import Keyring
import SecretTree
import Synchronization

/// Whole values: who opens with O_WRONLY|O_TRUNC gathers the new value aside, and everyone else sees the old one
/// until FLUSH or FSYNC. With a second writer plain POSIX order holds: what was gathered is committed first.
extension SecretFS {
    /// Makes what a session gathered the file's value, and has the kernel drop what it knows of the old one.
    ///
    /// - Parameters:
    ///   - caller: Who closes a descriptor.
    ///   - opener: The thread that has opened it.
    func commit(
        _ session: ReplaceSession, _ occasion: ReplaceSession.Occasion = .now, by caller: Caller? = nil,
        openedBy opener: Int32 = 0
    ) throws(Errno) {
        let outcome: ReplaceSession.Outcome
        do throws(Errno) {
            // Taken before: the session's lock is held while it asks.
            let cell = session.cell
            outcome = try committing(session) { () throws(Errno) in
                try session.commit(
                    occasion, byKilled: { caller.map { Self.isKilled($0.pid) } ?? false },
                    byBystander: { caller.map { Self.isBystander($0.pid, of: opener) } ?? false },
                    keepsOld: { beginReplacement(of: session.node, cell: cell) }, now: .now())
            }
        } catch {
            endReplacement(of: session.node, hasReplaced: false)
            throw error
        }
        switch outcome {
        case .nothing: break
        case .abandoned: ended(session)
        case .replaced(let old):
            // In this order: whoever finds no session must find that a value has changed.
            valueChanges.add(1, ordering: .sequentiallyConsistent)
            endReplacement(of: session.node, hasReplaced: true, old: old)
            tellChanged(session.node, by: caller)
            ended(session)
        }
    }

    /// Nobody can be told any more: what cannot be committed is lost, as with any write whose error nobody waits for.
    func finish(_ session: ReplaceSession) {
        do throws(Errno) { try commit(session, .release) } catch {
            if session.abandon(now: .now()) { ended(session) }
        }
    }

    private func committing(
        _ session: ReplaceSession, _ body: () throws(Errno) -> ReplaceSession.Outcome
    ) throws(Errno) -> ReplaceSession.Outcome {
        guard let ledger = options.ledger else { return try body() }
        return try ledger.committing(session.cell, body)
    }

    private func ended(_ session: ReplaceSession) {
        if let cell = session.cell {
            cell.stage = .none
            cell.commitEpoch = 0
        }
        let isBeingRead = nodes.update(session.node) { state in
            if state.session === session { state.session = nil }
            return state.mayBeRead
        }
        openSessions.subtract(1, ordering: .sequentiallyConsistent)
        if isBeingRead == true { dropPages(of: [session.node]) }
    }

    /// The session that gathers a value for a node.
    func session(of node: NodeID) -> ReplaceSession? {
        guard openSessions.load(ordering: .sequentiallyConsistent) > 0 else { return nil }
        return nodes.update(node) { $0.session } ?? nil
    }

    /// A second writer joins: what was gathered so far comes before what it does.
    func join(_ node: NodeID) throws(Errno) {
        if let session = session(of: node) { try commit(session) }
    }

    /// After `: > file` the value is gone for whoever comes next, although RELEASE comes when close has returned.
    ///
    /// A FLUSH without anything written may also be a shell's that has duplicated the descriptor and closes the
    /// first, so it does not empty the file; but the RELEASE of a last one is with us already, and is waited for
    /// here. Waits once a FLUSH, and not for long.
    func settle(_ node: NodeID) {
        guard let session = session(of: node), session.takeUnsettled() else { return }
        for _ in 0..<100 where session.isOpen { usleep(500) }
    }

    /// Says for how long the kernel may believe attributes that were read after `changes` was taken: not at all
    /// while a value is gathered, as it would not learn of the commit.
    func attributeValidity(of node: NodeID, since changes: UInt64) -> Double {
        if session(of: node) != nil || changes != valueChanges.load(ordering: .sequentiallyConsistent) { return 0 }
        return Self.validity
    }
}

extension SecretFS {
    /// True for a thread whose process a signal is just putting an end to: what it closes was not finished.
    ///
    /// Told by the last field of /proc/PID/stat (proc_pid_stat(5)), the exit status in waitpid's form, which is
    /// set before a process's files are closed.
    ///
    /// Reading that waits for a process in execve(2) to be through with it, and this one may be closing its files there
    /// and wait for us. So it is read only of one that has no memory left, as is when a process that ends closes its
    /// files; /proc/PID/statm, whose first number tells, waits for nothing and costs the least.
    static func isKilled(_ thread: Int32) -> Bool {
        guard thread > 0 else { return false }
        let hasNoMemory = withProcFile("statm", of: thread) { $0.starts(with: "0 ".utf8) }
        guard hasNoMemory == true else { return false }
        return withProcFile("stat", of: thread) { text in
            // The command's name may hold anything, but it ends with the last bracket.
            guard let bracket = text.lastIndex(of: UInt8(ascii: ")")) else { return false }
            let fields = text[(bracket + 1)...].split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == 10 })
            let (flagsPlace, statusPlace) = (6, 49)
            guard fields.count > statusPlace, let flags = number(fields[flagsPlace]),
                let status = number(fields[statusPlace])
            else { return false }
            let isExiting: UInt64 = 0x4
            return flags & isExiting != 0 && status & 0x7f != 0
        } ?? false
    }

    /// Calls `body` with what a file of /proc/PID says; nil if there is none.
    private static func withProcFile<R>(
        _ name: String, of thread: Int32, _ body: (Slice<UnsafeMutableRawBufferPointer>) -> R
    ) -> R? {
        let descriptor = Glibc.open("/proc/\(thread)/\(name)", O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { Glibc.close(descriptor) }
        return withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 1) { buffer in
            let count = Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            return count > 0 ? body(buffer[..<count]) : nil
        }
    }

    /// True for a thread of another process than the one that has opened a descriptor, while that one lives: what it
    /// closes is a copy that it was handed on. `(echo a; sleep 1; echo b) >file` is one writer, and sleep(1) is none.
    static func isBystander(_ thread: Int32, of opener: Int32) -> Bool {
        guard thread > 0, opener > 0, thread != opener, let own = process(of: thread), let other = process(of: opener)
        else { return false }
        return own != other
    }

    private static func process(of thread: Int32) -> UInt64? {
        withProcFile("status", of: thread) { text in
            guard let label = text.firstRange(of: "\nTgid:\t".utf8) else { return nil }
            return number(text[label.upperBound...].prefix { $0 != UInt8(ascii: "\n") })
        } ?? nil
    }

    private static func number(_ digits: Slice<UnsafeMutableRawBufferPointer>) -> UInt64? {
        UInt64(String(decoding: digits, as: UTF8.self))
    }
}
