import Access
import Fuse
import Keyring
import SecretTree
import Synchronization

/// Who has read what a revocation concerns, and which one that is.
struct RevocationReadership: Sendable {
    let version: KEKVersion
    let started: Timestamp
    var found: AuditReadership
}

extension JobProgress {
    /// There is something to report on.
    var isEndedRevocation: Bool { kind == .revoke && state != .idle && !state.isUnfinished }
}

/// The last step of a revocation: who has had what the key was needed for, out of the audit log and into it.
extension SecretFS {
    /// A request that waits for its answer reads no more of the log than this.
    private static let patience = 1 << 20
    /// And who has time so much, before others see how far it is.
    private static let stretch = 16 << 20

    /// Reports on every revocation that has ended and is not reported on. What fails is tried again at the next look.
    func reportRevocations() {
        guard let audit = gate.audit else { return }
        for job in tree.revocations where job.isEndedRevocation && !job.isReported {
            guard let version = job.version, let found = wholeReadership(of: job) else { continue }
            let revocation = AuditRevocation(
                version: version.rawValue, successor: job.successor?.rawValue,
                reason: tree.keyring.lifecycle[version]?.reason ?? "", state: job.state.name,
                started: job.started?.rfc3339 ?? "", ended: job.ended?.rfc3339 ?? "", files: job.total,
                reencrypted: job.done, failed: job.failed)
            do throws(AuditFailure) { try audit.report(revocation, found, verdict: audit.verify()) } catch { return }
            // Should that fail, it is told twice.
            try? tree.noteReport(of: job, now: .now())
        }
    }

    /// Reads what a request had no time for.
    func readOn() {
        if isReadershipAsked.exchange(false, ordering: .relaxed) { _ = wholeReadership(of: tree.job(.revoke)) }
    }

    private func wholeReadership(of job: JobProgress) -> AuditReadership? {
        guard var read = knownReadership(of: job) else { return nil }
        repeat { readOn(&read, Self.stretch) } while !read.found.isWhole
        return read.found
    }

    /// Who has read what a revocation concerns, up to now; nil if nothing is recorded. A log that is long is read on behind
    /// this: what it tells is not whole then.
    func readership(of job: JobProgress) -> AuditReadership? {
        guard var read = knownReadership(of: job) else { return nil }
        readOn(&read, Self.patience)
        if !read.found.isWhole {
            isReadershipAsked.store(true, ordering: .relaxed)
            keyClock.wake()
        }
        return read.found
    }

    /// As far as the log is read: of the last revocation that is asked for it is not read again from its beginning.
    private func knownReadership(of job: JobProgress) -> RevocationReadership? {
        guard let audit = gate.audit, let version = job.version, let started = job.started else { return nil }
        if let known = readership.withLock({ $0 }), known.version == version, known.started == started { return known }
        return RevocationReadership(
            version: version, started: started,
            found: AuditReadership(
                version: version.rawValue, began: started.rfc3339, microseconds: Int(started.nanoseconds) / 1000,
                keyring: audit.options.keyring))
    }

    /// Nobody waits for the one who reads, and who has read most is remembered.
    private func readOn(_ read: inout RevocationReadership, _ limit: Int) {
        let version = read.version
        if let path = gate.audit?.options.path {
            read.found.read(path, limit: limit) { isConcerned($0, by: version) }
        }
        let new = read
        readership.withLock { known in
            if let other = known, other.version == new.version, other.started == new.started,
                other.found.byteCount > new.found.byteCount
            {
                return
            }
            known = new
        }
    }

    /// Whether a path, as the log has it, leads to what is not re-encrypted yet or has not got a new value.
    private func isConcerned(_ path: ArraySlice<UInt8>, by version: KEKVersion) -> Bool {
        guard path.first == UInt8(ascii: "/"), !path.contains(UInt8(ascii: "\\")),
            let text = String(validating: path, as: UTF8.self), let node = try? node(at: text[...]),
            let attributes = try? tree.attributes(of: node)
        else { return false }
        return attributes.needsRegeneration || tree.isGuarded(attributes, by: version)
    }
}
