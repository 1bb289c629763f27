import ArgumentParser
import Glibc
import Keyring
import SecretTree
import Storage

struct Init: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Make a keyring in a directory that is new or empty.")

    @Argument(help: "The directory of the keyring.", completion: .directory)
    var store: String

    @Option(help: "What it is called; by default as its directory.")
    var name: String?

    @OptionGroup var keys: KeyOptions

    @OptionGroup var sharing: SharingOptions

    @Flag(help: "Make a recovery phrase as well, which opens the keyring should the other key be lost.")
    var recovery = false

    @OptionGroup var recoveryOptions: RecoveryOptions

    @Option(
        help: ArgumentHelp(
            "Have an age recipient open the keyring as well, and its backups: its identity may lie in a safe.",
            valueName: "age1…"))
    var recoveryRecipient: String?

    func run() throws {
        let source = try keys.source()
        let place = recovery || recoveryOptions.recoveryFile != nil ? try recoveryOptions.place() : nil
        let recipient = try recoveryRecipient.map { try KeySource.recipient($0) }
        let name = try Self.checked(self.name ?? Self.defaultName(store))
        let memory = try source.memory()
        if !sharing.shared { try memory?.checkIsFree(for: nil) }
        let isNew = try StoreDirectory.prepare(store)
        do {
            // The key is asked for when everything else is in order.
            let service = try source.service(makesKeyring: true)
            let storeID = try Self.make(store, name, service, place, recipient)
            memory?.add(storeID, at: try StoreDescription.directory(store))
        } catch {
            StoreDirectory.clear(store, removesDirectory: isNew)
            throw error
        }
        Output.line("keyring '\(Output.printable(name))' is made in \(store), KEK version 1 is its primary")
        place?.tell()
    }

    private static func make(
        _ path: String, _ name: String, _ service: any KeyService, _ recovery: RecoveryPlace?,
        _ recipient: (any KeyService)?
    ) throws -> StoreID {
        let now = Timestamp.now()
        var further: [any KeyService] = []
        if let recovery { further.append(try recovery.makeService()) }
        if let recipient { further.append(recipient) }
        let keyring = try UnlockedKeyring.create(name: name, service: service, recovery: further, now: now)
        let store = try JournaledStore.create(at: path)
        do {
            try SecretTree.create(in: store, keyring: keyring, uid: geteuid(), gid: getegid(), now: now)
        } catch {
            try? store.close()
            throw error
        }
        try store.close()
        return keyring.storeID
    }

    private static func defaultName(_ path: String) -> String {
        guard case .success(let directory) = Paths.resolved(path) else { return Paths.lastComponent(path) }
        return Paths.lastComponent(directory)
    }

    /// The name is the source of the mount, in everybody's mount table.
    private static func checked(_ name: String) throws(Failure) -> String {
        let isPlain = name.unicodeScalars.allSatisfy { $0.value >= 0x20 && $0.value != 0x7F }
        guard !name.isEmpty, name.utf8.count <= 255, isPlain else {
            throw Failure(
                "a keyring's name has 1 to 255 bytes and no control characters", hint: "give it with --name",
                code: .usage)
        }
        return name
    }
}
