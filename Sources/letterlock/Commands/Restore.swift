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
        usage:
            "letterlock restore FILE [INCREMENT ...] STORE\nletterlock restore --dry-run FILE [INCREMENT ...] [STORE]",
        discussion: """
            Behind a full backup stand the incremental ones on it, in the order in which they were made; what opens the last \
            one opens them all.

            The backup is taken as it is, however old: a restored keyring begins a history of its own, so that this is no \
            rollback, neither of it nor of the keyring that the backup was made of.
            """)

    @Argument(
        help: ArgumentHelp(
            "The backup, those that follow it, and the directory of the keyring that is made.", valueName: "file"),
        completion: .file())
    var places: [String]

    @Flag(help: "Open and verify the whole backup, and make nothing.")
    var dryRun = false

    @OptionGroup var keys: KeyOptions

    func run() throws {
        let (files, store) = try split()
        let source = try keys.source()
        var descriptors: [Int32] = []
        defer { for descriptor in descriptors { close(descriptor) } }
        do {
            var readers: [BackupReader] = []
            for file in files {
                let descriptor = open(file, O_RDONLY | O_CLOEXEC)
                guard descriptor >= 0 else { throw Failure(file, errno: errno) }
                descriptors.append(descriptor)
                do throws(BackupError) { readers.append(try BackupReader(descriptor: descriptor)) } catch {
                    throw Messages.failure(error, backup: file)
                }
            }
            let chain = try BackupChain(readers)
            try source.checkOpens(try chain.last.summary())
            if dryRun {
                let (keyring, report) = try Restoring.check(chain, try chain.unlock(with: try source.service()))
                if let store { try StoreDirectory.checkFree(store) }
                Output.line(
                    "\(files.last ?? ""): \(Self.words(keyring, report)); all of it verified, and nothing was made")
            } else if let store {
                try restore(chain, files, source, to: store)
            }
        } catch let error as BackupError {
            throw Messages.failure(error, backups: files)
        } catch let error as Restoring.Failed {
            switch error {
            case .backup(let place, let error): throw Messages.failure(error, backup: files[place])
            case .storage(let error): throw Messages.failure(error, store: store)
            }
        }
    }

    /// The last one is the store; where nothing is made it may be left out, and is no file.
    private func split() throws(Failure) -> (files: [String], store: String?) {
        var status = stat()
        if dryRun, let last = places.last,
            places.count == 1 || stat(last, &status) == 0 && status.st_mode & S_IFMT != S_IFDIR
        {
            return (places, nil)
        }
        guard places.count > 1, let store = places.last else {
            throw Failure("the directory to restore to is missing", hint: "letterlock restore FILE STORE", code: .usage)
        }
        return (Array(places.dropLast()), store)
    }

    private static func words(_ keyring: UnlockedKeyring, _ report: BackupReport) -> String {
        "keyring '\(keyring.name)', \(report.fileCount) files, epoch \(report.epoch)"
    }

    private func restore(_ chain: BackupChain, _ files: [String], _ source: KeySource, to path: String) throws {
        let isNew = try StoreDirectory.prepare(path)
        let keyring: UnlockedKeyring
        let report: BackupReport
        let problems: [Problem]
        do {
            let root = try chain.unlock(with: try source.service())
            let store = try JournaledStore.create(at: path, purpose: "restore")
            do { (keyring, report) = try Restoring.restore(chain, root, into: store) } catch {
                try? store.close()
                throw error
            }
            try store.close()
            problems = try beginHistory(path, keyring, report, of: files.last ?? "")
        } catch {
            StoreDirectory.clear(path, removesDirectory: isNew)
            throw error
        }
        Output.line("\(path): \(Self.words(keyring, report)) restored")
        if let seen = (try? EpochMemory(of: keyring).seen()) ?? nil, seen > report.epoch {
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
    private func record(
        _ tree: SecretTree, _ restored: UnlockedKeyring, _ report: BackupReport, of file: String, _ history: String
    ) throws {
        let keyring = restored.name
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
                seen: (try? EpochMemory(of: restored).seen()) ?? nil)
        } catch let failure as AuditFailure {
            throw Failure(
                "the audit log \(path) cannot be written, so nothing is restored", errno: failure.errno,
                hint: "LETTERLOCK_STATE_DIRECTORY names another place for it")
        }
    }

    /// Verifies what was restored, and makes it a history of its own, whose epoch is remembered from here on.
    private func beginHistory(_ path: String, _ keyring: UnlockedKeyring, _ report: BackupReport, of file: String)
        throws
        -> [Problem]
    {
        let store = try JournaledStore.open(at: path, purpose: "restore")
        do {
            let tree = try SecretTree.open(
                store, keyring: keyring, readOnly: false, seenEpoch: nil, now: .now())
            let problems = try tree.verify().problems
            let configuration = try keyring.branched()
            try tree.replaceConfiguration(configuration, now: .now())
            try tree.sync()
            let history = try configuration.withUnsafeBytes { try KeyringSummary(configuration: $0) }.historyName
            let memory = EpochMemory(history: history)
            do { try memory.record(tree.epoch) } catch {
                Output.warn("cannot remember the epoch of the store: \(Messages.failure(error).message)")
            }
            try record(tree, keyring, report, of: file, history)
            try tree.close()
            return problems
        } catch {
            try? store.close()
            throw error
        }
    }
}
