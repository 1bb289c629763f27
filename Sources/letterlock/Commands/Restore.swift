import Access
import ArgumentParser
import Glibc
import Keyring
import SecretFS
import SecretTree
import Storage

struct Restore: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a keyring of a backup, in a directory that is new or empty.",
        discussion: """
            The backup is taken as it is, however old: a restored keyring begins a history of its own, so that this is no \
            rollback, neither of it nor of the keyring that the backup was made of.
            """)

    @Argument(help: "The backup.", completion: .file())
    var file: String

    @Argument(help: "The directory of the keyring that is made.", completion: .directory)
    var store: String?

    @Flag(help: "Open and verify the whole backup, and make nothing.")
    var dryRun = false

    @OptionGroup var keys: KeyOptions

    func run() throws {
        guard dryRun || store != nil else {
            throw Failure("the directory to restore to is missing", hint: "letterlock restore FILE STORE", code: .usage)
        }
        let source = try keys.source()
        let descriptor = open(file, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(file, errno: errno) }
        defer { close(descriptor) }
        do {
            let reader = try BackupReader(descriptor: descriptor)
            try source.checkOpens(try reader.summary())
            if dryRun {
                let report = try Restoring.check(reader, try reader.unlock(with: try source.service()))
                if let store { try StoreDirectory.checkFree(store) }
                Output.line("\(file): \(Self.words(report)); all of it verified, and nothing was made")
            } else if let store {
                try restore(reader, source, to: store)
            }
        } catch let error as BackupError {
            throw Messages.failure(error, backup: file)
        } catch let error as Restoring.Failed {
            switch error {
            case .backup(let error): throw Messages.failure(error, backup: file)
            case .storage(let error): throw Messages.failure(error, store: store)
            }
        }
    }

    private static func words(_ report: BackupReport) -> String {
        "keyring '\(report.keyring.name)', \(report.fileCount) files, epoch \(report.epoch)"
    }

    private func restore(_ reader: BackupReader, _ source: KeySource, to path: String) throws {
        let isNew = try StoreDirectory.prepare(path)
        let report: BackupReport
        let problems: [Problem]
        do {
            let root = try reader.unlock(with: try source.service())
            let store = try JournaledStore.create(at: path, purpose: "restore")
            do { report = try Restoring.restore(reader, root, into: store) } catch {
                try? store.close()
                throw error
            }
            try store.close()
            problems = try beginHistory(path, report)
        } catch {
            StoreDirectory.clear(path, removesDirectory: isNew)
            throw error
        }
        Output.line("\(path): \(Self.words(report)) restored")
        if let seen = (try? EpochMemory(of: report.keyring).seen()) ?? nil, seen > report.epoch {
            Output.line(
                "the keyring was at epoch \(seen) when it was seen last: what came after \(report.epoch) is not here")
        }
        guard !problems.isEmpty else { return }
        for problem in problems { Output.line(Output.printable(problem.description)) }
        throw Failure(
            "\(path): restored, but \(problems.count == 1 ? "one thing was" : "\(problems.count) things were") damaged before",
            hint: "the files named above cannot be read; all others can", code: .integrity)
    }

    /// That the backup's age is accepted is the first thing that the new history's audit log tells; without it nothing is restored.
    private func record(_ tree: SecretTree, _ report: BackupReport, _ history: String) throws {
        let keyring = report.keyring.name
        let path = AuditOpening.usualPath(keyring: keyring, store: history)
        var options = AuditLog.Options()
        (options.keyring, options.store, options.path) = (keyring, history, path)
        (options.headPath, options.version, options.opening) = (
            AuditOpening.headPath(store: history), Program.version, "restore"
        )
        do {
            let log = try AuditLog(options, keys: try AuditLog.Keys(of: tree), memory: nil) { _ in }
            defer { log.close() }
            try log.recordRestore(
                of: Paths.absolute(file), epoch: report.epoch,
                seen: (try? EpochMemory(of: report.keyring).seen()) ?? nil)
        } catch let failure as AuditFailure {
            throw Failure(
                "the audit log \(path) cannot be written, so nothing is restored", errno: failure.errno,
                hint: "LETTERLOCK_STATE_DIRECTORY names another place for it")
        }
    }

    /// Verifies what was restored, and makes it a history of its own, whose epoch is remembered from here on.
    private func beginHistory(_ path: String, _ report: BackupReport) throws -> [Problem] {
        let store = try JournaledStore.open(at: path, purpose: "restore")
        do {
            let tree = try SecretTree.open(
                store, keyring: report.keyring, readOnly: false, seenEpoch: nil, now: .now())
            let problems = try tree.verify().problems
            let configuration = try report.keyring.branched()
            try tree.replaceConfiguration(configuration, now: .now())
            try tree.sync()
            let history = try configuration.withUnsafeBytes { try KeyringSummary(configuration: $0) }.historyName
            let memory = EpochMemory(history: history)
            do { try memory.record(tree.epoch) } catch {
                Output.warn("cannot remember the epoch of the store: \(Messages.failure(error).message)")
            }
            try record(tree, report, history)
            try tree.close()
            return problems
        } catch {
            try? store.close()
            throw error
        }
    }
}
