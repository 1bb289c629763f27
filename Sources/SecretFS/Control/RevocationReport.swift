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
    /// Reports on every revocation that has ended and is not reported on. What fails is tried again at the next look.
    func reportRevocations() {
        guard let audit = gate.audit else { return }
        for job in tree.revocations where job.isEndedRevocation && !job.isReported {
            guard let version = job.version, let found = readership(of: job) else { continue }
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

    /// Who has read what a revocation concerns, up to now; nil if nothing is recorded. Of the last revocation that is asked
    /// for the log is not read again from its beginning.
    func readership(of job: JobProgress) -> AuditReadership? {
        guard let audit = gate.audit, let version = job.version, let started = job.started else { return nil }
        return readership.withLock { known in
            var found = AuditReadership(
                version: version.rawValue, began: started.rfc3339, microseconds: Int(started.nanoseconds) / 1000,
                keyring: audit.options.keyring)
            if let known, known.version == version, known.started == started { found = known.found }
            if let path = audit.options.path { found.read(path) { isConcerned($0, by: version) } }
            known = RevocationReadership(version: version, started: started, found: found)
            return found
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
