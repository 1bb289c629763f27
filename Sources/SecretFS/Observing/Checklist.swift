import Access
import Glibc
import Keyring
import SecretTree

/// What has to be so before a keyring goes into production, each item looked at now.
extension SecretFS {
    private struct Item {
        var name: String
        var isFulfilled: Bool
        /// What was found.
        var reason: String
        /// What mends it.
        var remedy: String?
    }

    /// For `checklist`.
    var checklistDocument: JSON {
        let items = [
            entropy, envelopes, rotation, privileges, auditing, revocation, backups, alerts, keyMaterial, separation,
        ]
        return .array(
            items.map { item in
                .object([
                    ("item", .text(item.name)), ("status", item.isFulfilled ? "pass" : "fail"),
                    ("reason", .text(item.reason)), ("remedy", item.isFulfilled ? .null : .optional(item.remedy)),
                ])
            })
    }

    private var mountpoint: String { options.mountpoint.isEmpty ? "MOUNTPOINT" : options.mountpoint }

    private var entropy: Item {
        // Bits; a generator that is seeded has 256, and older kernels up to 4096.
        let wanted = 256
        var text = [UInt8](repeating: 0, count: 32)
        let descriptor = Glibc.open("/proc/sys/kernel/random/entropy_avail", O_RDONLY | O_CLOEXEC)
        let count = descriptor < 0 ? 0 : Glibc.read(descriptor, &text, text.count)
        if descriptor >= 0 { Glibc.close(descriptor) }
        let digits = text[..<max(0, count)].prefix { (48...57).contains($0) }
        let isReady = Int(String(decoding: digits, as: UTF8.self)).map { $0 >= wanted } ?? false
        return Item(
            name: "entropy", isFulfilled: isReady,
            reason: isReady
                ? "the kernel's random generator is seeded" : "the kernel's random generator is not seeded yet",
            remedy: "systemctl start rngd, or wait")
    }

    private var envelopes: Item {
        let services = tree.keyring.keyServices
        let guarded = tree.versionCounts.values.reduce(0, +)
        return Item(
            name: "envelope_separation", isFulfilled: !services.isEmpty,
            reason: services.isEmpty
                ? "no key service seals the KEKs"
                : "\(guarded) contents, each under a key of its own; the KEKs are sealed by \(services.joined(separator: ", "))",
            remedy: "letterlock unlock-with add \(options.storePath) SPEC")
    }

    private var rotation: Item {
        let lifecycle = tree.keyring.lifecycle
        let remedy = "echo 30d >\(mountpoint)/.letterlock/keys/auto_rotate_period"
        guard let next = lifecycle.nextRotation else {
            return Item(
                name: "rotation", isFulfilled: false, reason: "no automatic rotation is scheduled", remedy: remedy)
        }
        let isDue = next < .now()
        return Item(
            name: "rotation", isFulfilled: !isDue,
            reason: isDue ? "overdue since \(next.rfc3339)" : "the next one is at \(next.rfc3339)",
            remedy: "letterlock rotate \(mountpoint)")
    }

    private var privileges: Item {
        let policy = gate.guardian.policy
        let remedy = "letterlock policy set \(mountpoint) FILE"
        let open = policy.rules.filter { $0.effect == .allow && $0.isForEveryone && $0.operations.contains(.read) }
        if policy.isDamaged {
            return Item(
                name: "least_privilege", isFulfilled: false, reason: "the policy cannot be trusted", remedy: remedy)
        }
        if let rule = open.first {
            return Item(
                name: "least_privilege", isFulfilled: false, reason: "rule '\(rule.name)' lets everybody read",
                remedy: remedy)
        }
        return Item(
            name: "least_privilege", isFulfilled: !policy.isEmpty,
            reason: policy.isEmpty
                ? "no policy is set: modes alone decide who reads"
                : "\(policy.rules.count) \(policy.rules.count == 1 ? "rule" : "rules"), none for everybody",
            remedy: remedy)
    }

    private var auditing: Item {
        guard let audit = gate.audit else {
            return Item(
                name: "audit", isFulfilled: false, reason: "nothing is recorded",
                remedy: "mount with -o audit=fail-closed")
        }
        guard audit.options.mode == .failClosed else {
            return Item(
                name: "audit", isFulfilled: false, reason: "what cannot be recorded happens nevertheless",
                remedy: "mount with -o audit=fail-closed")
        }
        guard audit.failure == 0 else {
            return Item(
                name: "audit", isFulfilled: false,
                reason: "the log cannot be written: \(String(cString: strerror(audit.failure)))",
                remedy: "make room at \(audit.options.path ?? "/dev/log")")
        }
        let verdict = audit.options.path == nil ? "ok, in the system log" : audit.verify()
        return Item(
            name: "audit", isFulfilled: verdict.hasPrefix("ok"), reason: verdict,
            remedy: audit.options.path.map {
                "mv \($0) \($0).changed && pkill -HUP -x letterlock, and find out who has changed it"
            })
    }

    private var revocation: Item {
        let job = tree.job(.revoke)
        return Item(
            name: "revocation_tested", isFulfilled: job.state == .done,
            reason: job.state == .done
                ? "the last one ended at \(job.ended?.rfc3339 ?? "-")"
                : "no revocation of this keyring has come to its end",
            remedy: "letterlock rotate \(mountpoint) && letterlock revoke \(mountpoint) N --reason 'a test'")
    }

    /// One without the newest KEK version cannot bring back what that one guards.
    private var backups: Item {
        let limitDays: Int64 = 7
        let newest = tree.keyring.lifecycle.versions.map(\.created).max()
        let last = options.backups?.last()
        let reason: String
        var isFulfilled = false
        if let last, let newest, last < newest {
            reason = "the last one, of \(last.rfc3339), is older than the newest KEK version"
        } else if let last {
            isFulfilled = Timestamp.now().seconds - last.seconds < limitDays * 86_400
            reason = "the last one is of \(last.rfc3339)"
        } else {
            reason = "there was none"
        }
        return Item(
            name: "backup_recent", isFulfilled: isFulfilled, reason: reason,
            remedy: "letterlock backup \(mountpoint) FILE, kept elsewhere")
    }

    private var alerts: Item {
        let last = meter.lastLook
        let limit: Int64 = 3600
        let isFresh = last.map { Timestamp.now().seconds - $0.seconds < limit } ?? false
        return Item(
            name: "alerts", isFulfilled: isFresh,
            reason: last.map { "metrics were last read at \($0.rfc3339)" } ?? "nobody has read the metrics",
            remedy: "letterlock metrics \(mountpoint) --textfile FILE, every minute, and alert rules")
    }

    /// The store, and the key file if one opens it.
    private var keyPlaces: [String] { [options.storePath, options.keyFilePath ?? ""].filter { !$0.isEmpty } }

    private var keyMaterial: Item {
        for place in keyPlaces {
            var directory = place
            while let slash = directory.lastIndex(of: "/") {
                if access(directory + "/.git", F_OK) == 0 {
                    return Item(
                        name: "key_material_not_in_git", isFulfilled: false,
                        reason: "\(place) lies in the git tree \(directory)",
                        remedy:
                            "letterlock umount \(mountpoint) && mv \(place) elsewhere; mount it from there, letterlock rotate"
                    )
                }
                directory = String(directory[..<slash])
            }
        }
        return Item(
            name: "key_material_not_in_git", isFulfilled: true, reason: "neither store nor key file lies in a git tree")
    }

    private var separation: Item {
        guard let path = options.keyFilePath else {
            return Item(
                name: "not_shared_between_environments", isFulfilled: true,
                reason: "no key file opens this keyring that another one could use")
        }
        var attributes = stat()
        guard stat(path, &attributes) == 0 else {
            return Item(
                name: "not_shared_between_environments", isFulfilled: true,
                reason: "the key file is not on this machine now")
        }
        return Item(
            name: "not_shared_between_environments", isFulfilled: attributes.st_nlink == 1,
            reason: attributes.st_nlink == 1
                ? "the key file \(path) has one name" : "the key file \(path) has \(attributes.st_nlink) names",
            remedy: "letterlock unlock-with add \(options.storePath) with a key file of its own")
    }
}
