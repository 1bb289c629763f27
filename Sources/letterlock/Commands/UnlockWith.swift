import ArgumentParser
import Glibc
import Keyring
import Storage

struct UnlockWith: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "unlock-with",
        abstract: "Say what opens a keyring: several key services may, each by itself.",
        subcommands: [SlotAdd.self, SlotRemove.self, SlotChange.self, SlotRenew.self, SlotList.self])
}

/// What opens the keyring that is to be changed: as other commands are told it.
private struct SlotStore: ParsableArguments {
    @Argument(help: "The directory of the keyring; it must not be mounted.", completion: .directory)
    var store: String

    @Argument(
        help: ArgumentHelp(
            "A key service: passphrase, recovery, keyfile:PATH, credential:NAME, vault:https://HOST:PORT/MOUNT/KEY, awskms:KEY, pkcs11:URI, tpm2, age:RECIPIENT. Of those that are there also the number that the list shows.",
            valueName: "spec"))
    var spec: String

    @OptionGroup var keys: KeyOptions

    @Flag(help: "Take an older copy of the store than was seen before, as after a restore.")
    var acceptRollback = false
}

/// A new passphrase, where the options for passphrases are for what opens the keyring now.
private struct NewPassphrase: ParsableArguments {
    @Option(help: ArgumentHelp("Read the new passphrase from a file.", valueName: "file"), completion: .file())
    var newPassphraseFile: String?

    @Option(help: ArgumentHelp("Read the new passphrase from an open descriptor.", valueName: "n"))
    var newPassphraseFd: Int32?

    func source(_ spec: String, opener: inout KeySource) throws(Failure) -> KeySource {
        guard newPassphraseFile == nil || newPassphraseFd == nil else {
            throw Failure("--new-passphrase-file and --new-passphrase-fd exclude each other", code: .usage)
        }
        var source = KeySource()
        source.spec = spec
        source.passphraseFile = newPassphraseFile
        source.passphraseDescriptor = newPassphraseFd
        source.allowsUnlockedMemory = opener.allowsUnlockedMemory
        // What takes no passphrase to be opened with was not given one for that.
        if newPassphraseFile == nil, newPassphraseFd == nil, try !opener.takesTyped() {
            source.passphraseFile = opener.passphraseFile
            source.passphraseDescriptor = opener.passphraseDescriptor
            opener.passphraseFile = nil
            opener.passphraseDescriptor = nil
        }
        return source
    }
}

struct SlotAdd: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "add", abstract: "Have one more key service open a keyring.",
        discussion: """
            --key-service and the passphrase options say what opens it now. With 'recovery' a phrase is made and shown \
            once, to be printed and put away.
            """)

    @OptionGroup fileprivate var target: SlotStore
    @OptionGroup fileprivate var new: NewPassphrase
    @OptionGroup var recovery: RecoveryOptions
    @OptionGroup var sharing: SharingOptions

    func run() throws {
        var opener = try target.keys.source()
        let source = try new.source(target.spec, opener: &opener)
        let isRecovery = try source.parsedSpec() == .recovery
        let place = isRecovery ? try recovery.place() : nil
        let work = try SlotWork(target.store, opener, acceptsRollback: target.acceptRollback)
        try work.recording("add", try source.absoluteSpec()) {
            let service: any KeyService
            if isRecovery {
                service = try place!.makeService()
            } else {
                try work.checkIsFree(source, shared: sharing.shared)
                service = try source.service(makesKeyring: true)
                try work.checkIsNew(service)
            }
            try work.add(service)
            try work.remember(source)
            return nil
        }
        place?.tell()
        Output.line("\(target.store): opened by \(work.count + 1) key services now")
    }
}

struct SlotRemove: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "remove", abstract: "Have a key service open a keyring no more.",
        discussion: """
            The keyring gets a new root key and a new primary KEK version, so that what was removed opens nothing that is \
            written from now on, not with an old copy of the store either. Backups from before still open with it.
            """)

    @OptionGroup fileprivate var target: SlotStore

    func run() throws {
        var opener = try target.keys.source()
        // Nothing else is said to open it: then what is to go does, but for a phrase that may be lost.
        let isGiven = opener.spec != nil || opener.passphraseFile != nil || opener.passphraseDescriptor != nil
        if !isGiven, UInt32(target.spec) == nil, target.spec != "recovery" { opener.spec = target.spec }
        let work = try SlotWork(target.store, opener, acceptsRollback: target.acceptRollback)
        try work.recording("remove", target.spec) {
            guard work.count > 1 else {
                throw Failure(
                    "the last key service of a keyring cannot be removed",
                    hint: "add another one first: 'letterlock unlock-with add \(target.store) SPEC'")
            }
            try work.rekey(try work.slot(named: target.spec), .removed)
            return work.latest
        }
        Output.line(
            "\(target.store): opened by \(work.count == 2 ? "1 key service" : "\(work.count - 1) key services") now; KEK version \(work.latest) is its primary"
        )
        SlotWork.tellOfOldCopies()
    }
}

struct SlotChange: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "change", abstract: "Put another passphrase or key in the place of one that opens a keyring.",
        discussion: """
            SPEC says what goes, and opens the keyring unless --key-service says what does; --to says what comes, a new \
            passphrase by default. The keyring gets a new root key and a new primary KEK version, as with 'remove'.
            """)

    @OptionGroup fileprivate var target: SlotStore
    @OptionGroup fileprivate var new: NewPassphrase
    @Option(help: ArgumentHelp("What comes in its place; by default a new passphrase.", valueName: "spec"))
    var to = "passphrase"
    @OptionGroup var recovery: RecoveryOptions
    @OptionGroup var sharing: SharingOptions

    func run() throws {
        var opener = try target.keys.source()
        if opener.spec == nil, UInt32(target.spec) == nil, target.spec != "recovery" { opener.spec = target.spec }
        let source = try new.source(to, opener: &opener)
        let isRecovery = try source.parsedSpec() == .recovery
        let place = isRecovery ? try recovery.place() : nil
        let work = try SlotWork(target.store, opener, acceptsRollback: target.acceptRollback)
        try work.recording("change", target.spec) {
            let index = try work.slot(named: target.spec)
            try work.checkIsFree(source, shared: sharing.shared)
            let service: any KeyService =
                isRecovery ? try place!.makeService() : try source.service(makesKeyring: true)
            if !isRecovery { try work.checkIsNew(service) }
            try work.rekey(index, .replaced(by: service))
            try work.remember(source)
            return work.latest
        }
        place?.tell()
        Output.line("\(target.store): the key service is changed; KEK version \(work.latest) is its primary")
        SlotWork.tellOfOldCopies()
    }
}

struct SlotRenew: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "renew",
        abstract: "Have a key service seal anew what it sealed with an older version of its own key.",
        discussion: "For after a rotation there. Nothing else changes, and no key leaves the service.")

    @OptionGroup fileprivate var target: SlotStore

    func run() throws {
        var opener = try target.keys.source()
        opener.spec = target.spec
        let work = try SlotWork(target.store, opener, acceptsRollback: target.acceptRollback)
        var count = 0
        try work.recording("renew", target.spec) {
            count = try work.renew()
            return nil
        }
        Output.line(
            count == 0
                ? "\(target.store): sealed by the newest version of the service's key already"
                : "\(target.store): sealed anew by the newest version of the service's key")
    }
}

struct SlotList: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "list",
        abstract: "Show what opens a keyring. It takes no key, and what it shows is not authenticated.")

    @Argument(help: "The directory of the keyring, or where it is mounted.", completion: .directory)
    var store: String

    @Flag(help: "As JSON.")
    var json = false

    func run() throws {
        let labels = try Self.labels(store)
        if json {
            let rows = labels.enumerated().map {
                "{\"number\":\($0.offset + 1),\"key_service\":\(JSON.quoted($0.element))}"
            }
            return Output.line("[" + rows.joined(separator: ",") + "]")
        }
        var table = Table(header: ["NUMBER", "KEY SERVICE"])
        for (index, label) in labels.enumerated() { table.add([String(index + 1), label]) }
        table.show()
    }

    /// What is being served tells through its mount.
    private static func labels(_ place: String) throws(Failure) -> [String] {
        if let control = Control.ifMounted(at: place) { return try labels(control) }
        let description = try StoreDescription(at: place)
        if let summary = description.summary { return summary.keyServices }
        if let mountpoint = description.holder?.mountpoint, let control = Control.ifMounted(at: mountpoint) {
            return try labels(control)
        }
        throw Messages.failure(.busy(holder: description.holder?.text ?? ""), store: description.path)
    }

    private static func labels(_ control: Control) throws(Failure) -> [String] {
        try control.json("status")["key_services"].elements.map(\.words)
    }
}
