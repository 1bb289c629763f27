import Access
import ArgumentParser
import Glibc
import Keyring
import SecretTree
import Storage

struct Backup: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Write a keyring into one encrypted file; also while it is mounted.",
        discussion: """
            What opens the keyring opens the file. While the keyring is mounted its server makes the backup, as of one \
            moment, and no key is needed; with one, what was written is opened again from end to end.

            With --incremental the file holds what has changed since an earlier backup, full or incremental, that was made on \
            this machine: 'letterlock restore FULL INCREMENT... STORE' takes them together.
            """)

    @Argument(help: "The directory of the keyring, or where it is mounted.", completion: .directory)
    var store: String

    @Argument(help: "The file; one that is there is replaced when the new one is complete.", completion: .file())
    var file: String

    @Option(
        help: ArgumentHelp("Write only what has changed since this backup, which is kept.", valueName: "base"),
        completion: .file())
    var incremental: String?

    @Option(
        help: ArgumentHelp(
            "Have an age recipient open this backup as well, and no other: its identity may lie in a safe.",
            valueName: "age1…"))
    var recoveryRecipient: String?

    @OptionGroup var keys: KeyOptions

    @Flag(help: "Take an older copy of the store than was seen before, as after a restore.")
    var acceptRollback = false

    func run() throws {
        let source = try keys.source()
        let base = try incremental.map { try BackupBase($0, replacedBy: file) }
        let recipient = try recoveryRecipient.map { try KeySource.recipient($0) }
        if let control = try Self.control(of: store, file) {
            try base?.check(belongsTo: try control.json("status")["store_id"].words)
            var words = base.map { ["since=\($0.id)"] } ?? []
            if let recoveryRecipient { words.append("recipient=\(recoveryRecipient)") }
            let wanted = words.isEmpty ? nil : words.joined(separator: " ")
            try Self.copy(control, to: file, wanted, base, key: source.isGiven ? source : nil)
        } else {
            try copyUnmounted(source, base, recipient)
        }
    }

    /// The mount that the keyring is served on; nil if it is not.
    private static func control(of place: String, _ file: String) throws(Failure) -> Control? {
        let misplaced = Failure("\(file) lies in the store", hint: "keep backups elsewhere")
        let target = Paths.resolvedParent(file)
        if let control = Control.ifMounted(at: place) {
            let directory = String(target.dropLast(Paths.lastComponent(target).count + 1))
            guard StoreHolder(of: directory)?.mountpoint != control.mountpoint else { throw misplaced }
            return control
        }
        let store = try StoreDescription.directory(place)
        if Paths.contains(store, target) { throw misplaced }
        guard let holder = StoreHolder.staying(in: store) else { return nil }
        guard let mountpoint = holder.mountpoint, let control = Control.ifMounted(at: mountpoint) else {
            throw Messages.failure(.busy(holder: holder.text), store: store)
        }
        return control
    }

    // MARK: While it is mounted

    /// A server that is replaced meanwhile leaves nobody who could go on: it is begun again so often.
    private static let attempts = 5

    private static func copy(
        _ control: Control, to path: String, _ wanted: String?, _ base: BackupBase?, key: KeySource?
    ) throws(Failure) {
        for attempt in 1... {
            let file = try BackupFile(path)
            guard let number = try copy(control, wanted, to: file) else { return try finish(file, path, key) }
            let isReplaced = [ESTALE, ENOTCONN, ECONNABORTED, EBADF].contains(number)
            guard isReplaced, attempt < attempts else { throw explain(number, control, base) }
        }
    }

    /// - Returns: The error number of what could not be read; nil if all is written.
    private static func copy(_ control: Control, _ wanted: String?, to file: BackupFile) throws(Failure) -> Int32? {
        let stream = open(control.path("backup"), (wanted == nil ? O_RDONLY : O_RDWR) | O_CLOEXEC)
        guard stream >= 0 else { return errno }
        defer { close(stream) }
        if let wanted {
            let words = Array(wanted.utf8)
            guard write(stream, words, words.count) == words.count else { return errno }
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: BackupFile.pieceByteCount, alignment: 4096)
        defer { buffer.deallocate() }
        while true {
            var count = 0
            while count < buffer.count {
                let got = read(stream, buffer.baseAddress! + count, buffer.count - count)
                if got < 0, errno == EINTR { continue }
                guard got >= 0 else { return errno }
                if got == 0 { break }
                count += got
            }
            if count > 0 { try file.write(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
            if count < buffer.count { return nil }
        }
    }

    private static func explain(_ number: Int32, _ control: Control, _ base: BackupBase?) -> Failure {
        switch (number, base) {
        case (EBADMSG, _): damaged
        case (ENODATA, let base?): base.unknown
        case (EKEYREJECTED, let base?): base.useless
        default: control.explain(number, reading: true, "backup", nil)
        }
    }

    private static var damaged: Failure {
        Failure(
            "the store is damaged, and there is no new backup",
            hint: "see 'letterlock status', or 'letterlock verify' when it is unmounted", code: .integrity)
    }

    // MARK: While it is not

    private func copyUnmounted(_ source: KeySource, _ base: BackupBase?, _ recipient: (any KeyService)?) throws {
        let path = try StoreDescription.directory(store)
        let service = try source.service(of: path)
        let open = try StoreOpening.open(
            path, key: .service(service), readOnly: true, purpose: "backup", acceptsRollback: acceptRollback)
        defer { try? open.tree.close() }
        open.warnings.forEach(Output.warn)
        guard open.tree.problems.isEmpty else { throw Self.damaged }
        try base?.check(belongsTo: open.keyring.storeID.description)
        try CommandAudit(open, command: "backup").recording(nil, .file(Paths.absolute(file))) {
            try make(open, service, base, recipient)
            return nil
        }
    }

    private func make(
        _ open: OpenKeyring, _ service: any KeyService, _ base: BackupBase?, _ recipient: (any KeyService)?
    ) throws {
        let file = try BackupFile(self.file)
        let began = Timestamp.now()
        let memory = BackupMemory(history: open.keyring.historyName)
        let stream: BackupStream
        do throws(BackupMakingError) {
            EpochMemory.makeDirectory(EpochMemory.directory)
            stream = try BackupStream(
                open.tree, since: base?.id, recipient: recipient, catalogues: memory.catalogues)
        } catch {
            switch error {
            case .unknownBase: throw base?.unknown ?? Self.damaged
            case .uselessBase: throw base?.useless ?? Self.damaged
            case .unreadableBase(let number):
                throw Failure("what is remembered of earlier backups", errno: number)
            case .tree(let error): throw Messages.failure(for: error)
            }
        }
        let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: BackupFile.pieceByteCount, alignment: 16)
        defer { buffer.deallocate() }
        while true {
            var count = 0
            while count < buffer.count {
                let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[count...])
                let got: Int
                do { got = try stream.read(into: rest) } catch {
                    guard case .tampered = error else { throw error }
                    throw Self.damaged
                }
                if got == 0 { break }
                count += got
            }
            if count > 0 { try file.write(UnsafeRawBufferPointer(rebasing: buffer[..<count])) }
            if count < buffer.count { break }
        }
        try Self.finish(file, self.file, service: service)
        memory.note(began)
        if !stream.isRemembered { Output.warn(BackupMemory.forgotten) }
    }

    // MARK: In the end

    private static func finish(_ file: BackupFile, _ path: String, _ key: KeySource?) throws(Failure) {
        do { try finish(file, path, service: try key?.service()) } catch { throw Messages.failure(for: error) }
    }

    /// - Parameter service: What opens it from end to end, if that is at hand.
    private static func finish(_ file: BackupFile, _ path: String, service: (any KeyService)?) throws {
        try file.verify()
        let reader = try BackupReader(descriptor: file.descriptor)
        var what = "\(file.byteCount) bytes, read again as they were written"
        if let service {
            let report = try Restoring.check(reader, try reader.unlock(with: service))
            let scope = reader.base == nil ? "" : ", \(report.recordCount) records changed"
            what = "\(report.fileCount) files\(scope), epoch \(report.epoch), opened and verified"
        }
        try file.finish()
        let base = reader.base.map { " on \(BackupBase.short($0))" } ?? ""
        Output.line("\(path): backup \(BackupBase.short(reader.id))\(base): \(what)")
    }
}
