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
            """)

    @Argument(help: "The directory of the keyring, or where it is mounted.", completion: .directory)
    var store: String

    @Argument(help: "The file; one that is there is replaced when the new one is complete.", completion: .file())
    var file: String

    @OptionGroup var keys: KeyOptions

    @Flag(help: "Take an older copy of the store than was seen before, as after a restore.")
    var acceptRollback = false

    func run() throws {
        let source = try keys.source()
        if let control = try Self.control(of: store, file) {
            try Self.copy(control, to: file, key: source.isGiven ? source : nil)
        } else {
            try copyUnmounted(source)
        }
    }

    /// The mount that the keyring is served on; nil if it is not.
    private static func control(of place: String, _ file: String) throws(Failure) -> Control? {
        if let control = Control.ifMounted(at: place) { return control }
        let store = try StoreDescription.directory(place)
        if Paths.contains(store, Paths.resolvedParent(file)) {
            throw Failure("\(file) lies in the store", hint: "keep backups elsewhere")
        }
        guard let holder = StoreHolder.staying(in: store) else { return nil }
        guard let mountpoint = holder.mountpoint, let control = Control.ifMounted(at: mountpoint) else {
            throw Messages.failure(.busy(holder: holder.text), store: store)
        }
        return control
    }

    // MARK: While it is mounted

    /// A server that is replaced meanwhile leaves nobody who could go on: it is begun again so often.
    private static let attempts = 5

    private static func copy(_ control: Control, to path: String, key: KeySource?) throws(Failure) {
        for attempt in 1... {
            let file = try BackupFile(path)
            guard let number = try copy(control, to: file) else { return try finish(file, path, key) }
            let isReplaced = [ESTALE, ENOTCONN, ECONNABORTED, EBADF].contains(number)
            guard isReplaced, attempt < attempts else { throw explain(number, control) }
        }
    }

    /// - Returns: The error number of what could not be read; nil if all is written.
    private static func copy(_ control: Control, to file: BackupFile) throws(Failure) -> Int32? {
        let stream = open(control.path("backup"), O_RDONLY | O_CLOEXEC)
        guard stream >= 0 else { return errno }
        defer { close(stream) }
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

    private static func explain(_ number: Int32, _ control: Control) -> Failure {
        guard number == EBADMSG else { return control.explain(number, reading: true, "backup", nil) }
        return Self.damaged
    }

    private static var damaged: Failure {
        Failure(
            "the store is damaged, and there is no new backup",
            hint: "see 'letterlock status', or 'letterlock verify' when it is unmounted", code: .integrity)
    }

    // MARK: While it is not

    private func copyUnmounted(_ source: KeySource) throws {
        let path = try StoreDescription.directory(store)
        let service = try source.service(of: path)
        let open = try StoreOpening.open(
            path, key: .service(service), readOnly: true, purpose: "backup", acceptsRollback: acceptRollback)
        defer { try? open.tree.close() }
        open.warnings.forEach(Output.warn)
        guard open.tree.problems.isEmpty else { throw Self.damaged }
        try CommandAudit(open, command: "backup").recording(nil, .file(Paths.absolute(file))) {
            try write(open, service)
            return nil
        }
    }

    private func write(_ open: OpenKeyring, _ service: any KeyService) throws {
        let file = try BackupFile(self.file)
        let began = Timestamp.now()
        let stream = try BackupStream(open.tree)
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
        BackupMemory(history: open.keyring.historyName).note(began)
    }

    // MARK: In the end

    private static func finish(_ file: BackupFile, _ path: String, _ key: KeySource?) throws(Failure) {
        do { try finish(file, path, service: try key?.service()) } catch { throw Messages.failure(for: error) }
    }

    /// - Parameter service: What opens it from end to end, if that is at hand.
    private static func finish(_ file: BackupFile, _ path: String, service: (any KeyService)?) throws {
        try file.verify()
        var what = "\(file.byteCount) bytes, read again as they were written"
        if let service {
            let reader = try BackupReader(descriptor: file.descriptor)
            let report = try Restoring.check(reader, try reader.unlock(with: service))
            what = "\(report.fileCount) files, epoch \(report.epoch), opened and verified"
        }
        try file.finish()
        Output.line("\(path): \(what)")
    }
}
