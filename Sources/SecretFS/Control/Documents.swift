import Glibc
import Keyring
import SecretTree

/// The JSON documents of the control directory.
extension SecretFS {
    var statusDocument: JSON {
        let keyring = tree.keyring
        let lifecycle = keyring.lifecycle
        var counts: [(state: String, count: Int)] = []
        for record in lifecycle.versions {
            let state = record.state.name
            if let index = counts.firstIndex(where: { $0.state == state }) {
                counts[index].count += 1
            } else {
                counts.append((state, 1))
            }
        }
        return .object([
            ("keyring", .text(keyring.name)),
            ("store_id", .text(keyring.storeID.description)),
            ("state", "unlocked"),
            ("primary", .number(Int(lifecycle.primary.rawValue))),
            ("files", .number(tree.fileCount)),
            ("versions", .object(counts.map { ($0.state, .number($0.count)) })),
            ("key_services", .array(keyring.keyServices.map { .text($0) })),
            ("jobs", jobsDocument),
            ("last_verify", .optional(options.lastVerification?.rfc3339)),
            ("server", options.serverDocument),
            ("guardian", options.guardianDocument),
            ("audit", auditDocument),
            ("hooks", hooks.report),
            ("lease", options.leaseDocument),
            ("problems", .array(namedProblems.map { .text($0) } + auditProblems + options.leaseProblems)),
        ])
    }

    /// What is damaged, by the paths of the files that it concerns where there are any.
    private var namedProblems: [String] { gate.paths.named(tree.problemsByNode) }

    var keyListDocument: JSON {
        let counts = tree.versionCounts
        let lifecycle = tree.keyring.lifecycle
        return .array(
            lifecycle.versions.map { record in
                .object([
                    ("version", .number(Int(record.version.rawValue))),
                    ("state", .text(record.state.name)),
                    ("created", .text(record.created.rfc3339)),
                    ("files", .number(counts[record.version] ?? 0)),
                    ("reason", .optional(record.reason)),
                    ("destroy_at", .optional(record.destroyAt?.rfc3339)),
                ])
            })
    }
}

/// What `status` says of the processes, and all of it while the keyring is locked.
extension SecretFSOptions {
    var serverDocument: JSON {
        .object([
            ("pid", .number(Int(getpid()))), ("generation", .number(generation)), ("version", .text(programVersion)),
        ])
    }

    var guardianDocument: JSON {
        var members: [(String, JSON)] = [("pid", guardianProcess.map { .number(Int($0)) } ?? .null)]
        if let report = guardianReport?() {
            members.append(("restarts", .number(report.restarts)))
            members.append(("last_end", report.lastEnd.isEmpty ? .null : .text(report.lastEnd)))
            members.append(("kernel_resends", report.kernelResends.map { .number($0 ? 1 : 0) } ?? .null))
            members.append(("upgrades", .number(report.upgrades)))
            members.append(("upgrade_failure", .optional(report.upgradeFailure)))
        }
        return .object(members)
    }

    /// With every member that it has while the keyring is unlocked; what only the keys could tell is null.
    func lockedStatus(_ summary: KeyringSummary?) -> JSON {
        .object([
            ("keyring", .optional(summary?.name)),
            ("store_id", .optional(summary?.storeID.description)),
            ("state", "locked"),
            ("primary", .null), ("files", .null), ("versions", .null),
            ("key_services", .array((summary?.keyServices ?? []).map { .text($0) })),
            ("jobs", .array([])),
            ("last_verify", .null),
            ("server", serverDocument),
            ("guardian", guardianDocument),
            ("lease", .null),
            ("problems", .array([])),
        ])
    }
}
