import Access
import Fuse
import Keyring
import SecretTree

/// A row of the control directory's table: adding a control file is adding a row.
struct ControlFile: Sendable {
    enum Place { case top, keys, version, audit }

    /// What it reads as, whole, its last newline included. The version is 0 outside `keys/N`.
    typealias Read = @Sendable (SecretFS, KEKVersion) throws(Errno) -> ControlText
    /// Does what is asked; it has taken effect when this returns.
    typealias Write = @Sendable (SecretFS, KEKVersion, ControlCommand) throws(Errno) -> Void

    let place: Place
    let name: String
    let read: Read
    let write: Write?
    /// Reached by name, and not listed.
    var isHidden = false
    /// What reads in order, once, and too long to be kept whole; `read` is not used then. A command says what is wanted.
    var stream: (@Sendable (SecretFS, ControlCommand?) throws(Errno) -> ControlStream)?

    var takesCommands: Bool { write != nil || stream != nil }
    var mode: UInt32 { takesCommands ? 0o600 : 0o400 }

    static let table: [ControlFile] = [
        .text(.top, "status") { fileSystem, _ in fileSystem.statusDocument.line },
        // What locks and unlocks stands before this file system: see `FrontDoor`.
        .text(.top, "lock") { _, _ in
            "unlocked\n"
        } write: { _, _, _ throws(Errno) in
            throw .notSupported
        },
        .text(.top, "unlock") { _, _ in
            "unlocked\n"
        } write: { _, _, _ throws(Errno) in
            throw .notSupported
        },
        .job("rewrap", .rewrap),
        .job("reencrypt", .reencrypt),
        ControlFile(
            place: .top, name: "revoke",
            read: { fileSystem, _ throws(Errno) in try fileSystem.revocationText() },
            write: { fileSystem, _, command throws(Errno) in try fileSystem.revoke(command) }),

        .text(.top, "policy") { fileSystem, _ throws(Errno) in
            try fileSystem.gate.guardian.text()
        } write: { fileSystem, _, command throws(Errno) in
            try fileSystem.replacePolicy(command.text)
        },
        // What is longer than one command comes in parts; see `PolicyParts`.
        ControlFile(
            place: .top, name: ControlNode.policyPartsName, read: { _, _ in ControlText() },
            write: { fileSystem, _, command throws(Errno) in
                if let text = try fileSystem.policyParts.take(command) { try fileSystem.replacePolicy(text) }
            }, isHidden: true),
        .text(.top, "hooks") { fileSystem, _ throws(Errno) in
            try fileSystem.hooks.text()
        } write: { fileSystem, _, command throws(Errno) in
            try fileSystem.replaceHooks(command.text)
        },
        ControlFile(
            place: .top, name: ControlNode.hookPartsName, read: { _, _ in ControlText() },
            write: { fileSystem, _, command throws(Errno) in
                if let text = try fileSystem.hookParts.take(command) { try fileSystem.replaceHooks(text) }
            }, isHidden: true),
        ControlFile(
            place: .top, name: "backup", read: { _, _ in ControlText() }, write: nil, isHidden: true,
            stream: { fileSystem, command throws(Errno) in try ControlStream(backupOf: fileSystem, command) }),

        // Past this table: see `EventStream`.
        ControlFile(place: .top, name: ControlNode.eventsName, read: { _, _ in ControlText() }, write: nil),
        .text(.top, "readers") { fileSystem, _ in
            fileSystem.readerTable.document { fileSystem.gate.paths.path(of: $0) }.line
        },
        .text(.top, "metrics") { fileSystem, _ in
            fileSystem.meter.noteLook()
            return fileSystem.metricsText
        },
        .text(.top, "checklist") { fileSystem, _ in fileSystem.checklistDocument.line },
        ControlFile(
            place: .audit, name: "tail",
            read: { fileSystem, _ in ControlText(fileSystem.gate.audit?.tail() ?? []) }, write: nil),
        .text(.audit, "verify") { fileSystem, _ in
            (fileSystem.gate.audit?.verify() ?? "nothing is recorded: audit=off") + "\n"
        },
        .text(.audit, "key") { fileSystem, _ in (fileSystem.gate.audit?.publicKey ?? "-") + "\n" },

        .text(.keys, "list") { fileSystem, _ in fileSystem.keyListDocument.line },
        .value(.keys, "primary", \.primary) { fileSystem, _, command throws(Errno) in
            try fileSystem.promote(command)
        },
        .value(.keys, "rotate", \.latest) { fileSystem, _, command throws(Errno) in
            try fileSystem.rotate(command)
        },
        .value(.keys, "min_decryption_version", \.minDecryption) { fileSystem, _, command throws(Errno) in
            let version = KEKVersion(rawValue: try command.number())
            try fileSystem.changeKeys { lifecycle throws(LifecycleError) in try lifecycle.setMinDecryption(version) }
        },
        .value(.keys, "min_encryption_version", \.minEncryption) { fileSystem, _, command throws(Errno) in
            let version = KEKVersion(rawValue: try command.number())
            try fileSystem.changeKeys { lifecycle throws(LifecycleError) in try lifecycle.setMinEncryption(version) }
        },
        .period("auto_rotate_period", \.autoRotatePeriod) { lifecycle, seconds throws(LifecycleError) in
            try lifecycle.setAutoRotatePeriod(seconds)
        },
        .period("disable_after", \.disableAfter) { lifecycle, seconds throws(LifecycleError) in
            try lifecycle.setDisableAfter(seconds)
        },
        .period("destroy_after", \.destroyAfter) { lifecycle, seconds throws(LifecycleError) in
            try lifecycle.setDestroyAfter(seconds)
        },
        .text(.keys, "next_rotation") { fileSystem, _ in
            (fileSystem.tree.keyring.lifecycle.nextRotation?.rfc3339 ?? "never") + "\n"
        },
        .text(.keys, "deletion_allowed") { fileSystem, _ in
            fileSystem.tree.keyring.lifecycle.deletionAllowed ? "1\n" : "0\n"
        } write: { fileSystem, _, command throws(Errno) in
            guard ["0", "1"].contains(command.text) else { throw .invalid }
            try fileSystem.changeKeys { $0.setDeletionAllowed(command.text == "1") }
        },

        .text(.version, "state") { fileSystem, version throws(Errno) in
            try fileSystem.keyState(version).name + "\n"
        } write: { fileSystem, version, command throws(Errno) in
            try fileSystem.changeState(of: version, command)
        },
        .text(.version, "created") { fileSystem, version throws(Errno) in
            try fileSystem.keyRecord(version).created.rfc3339 + "\n"
        },
        .text(.version, "files") { fileSystem, version in
            "\(fileSystem.tree.versionCounts[version] ?? 0)\n"
        },
        .text(.version, "destroy") { fileSystem, version throws(Errno) in
            (try fileSystem.keyRecord(version).destroyAt?.rfc3339 ?? "-") + "\n"
        } write: { fileSystem, version, command throws(Errno) in
            try fileSystem.scheduleDestruction(of: version, command)
        },
        .text(.version, "cancel_destroy") { _, _ in
            ""
        } write: { fileSystem, version, command throws(Errno) in
            try command.expect("1")
            let now = Timestamp.now()
            try fileSystem.changeKeys { lifecycle throws(LifecycleError) in
                try lifecycle.cancelDestruction(of: version, now: now)
            }
        },
        ControlFile(
            place: .version, name: "paths",
            read: { fileSystem, version throws(Errno) in try fileSystem.paths(under: version) }, write: nil),
    ]

    /// The number of each row in its node's number: 16 bits of FNV-1a over place and name, from 16 on.
    static let numbers: [UInt16] = table.map { file in
        var hash: UInt32 = 2_166_136_261
        for byte in "\(file.place)/\(file.name)".utf8 { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return UInt16(16 + hash % 65000)
    }

    private static let rows: [UInt16: Int] = {
        let rows = Dictionary(zip(numbers, table.indices)) { first, _ in first }
        precondition(rows.count == table.count, "two control files have the same number: one needs another name")
        return rows
    }()

    static func row(ofNumber number: UInt16) -> Int? { rows[number] }

    /// A file that reads as text.
    private static func text(
        _ place: Place, _ name: String, _ read: @escaping @Sendable (SecretFS, KEKVersion) throws(Errno) -> String,
        write: Write? = nil
    ) -> ControlFile {
        ControlFile(
            place: place, name: name,
            read: { fileSystem, version throws(Errno) in ControlText(try read(fileSystem, version)) }, write: write)
    }

    /// A file that reads as one KEK version's number.
    private static func value(
        _ place: Place, _ name: String, _ version: any KeyPath<KeyLifecycle, KEKVersion> & Sendable,
        write: @escaping Write
    ) -> ControlFile {
        let read: @Sendable (SecretFS, KEKVersion) -> String = { fileSystem, _ in
            "\(fileSystem.tree.keyring.lifecycle[keyPath: version].rawValue)\n"
        }
        return .text(place, name, read, write: write)
    }

    /// A file for a job: its progress, and what to do with it.
    private static func job(_ name: String, _ kind: JobKind) -> ControlFile {
        .text(.top, name) { fileSystem, _ in
            fileSystem.jobDocument(kind).line
        } write: { fileSystem, _, command throws(Errno) in
            try fileSystem.command(kind, command)
        }
    }

    /// A file for a length of time; it reads as seconds.
    private static func period(
        _ name: String, _ seconds: any KeyPath<KeyLifecycle, Int64> & Sendable,
        _ set: @escaping @Sendable (inout KeyLifecycle, Int64) throws(LifecycleError) -> Void
    ) -> ControlFile {
        .text(.keys, name) { fileSystem, _ in
            "\(fileSystem.tree.keyring.lifecycle[keyPath: seconds])\n"
        } write: { fileSystem, _, command throws(Errno) in
            let seconds = try command.seconds()
            try fileSystem.changeKeys { lifecycle throws(LifecycleError) in try set(&lifecycle, seconds) }
        }
    }
}
