import Access
import Keyring
import SecretTree
import Storage

/// A keyring that is open so that what opens it can be changed. Nobody serves it meanwhile.
struct SlotWork {
    private let path: String
    private let open: OpenKeyring
    private let opener: any KeyService
    private let keeper: EpochKeeper

    /// - Throws: exit code 6 if the store is mounted.
    init(_ store: String, _ source: KeySource, acceptsRollback: Bool) throws(Failure) {
        path = try StoreDescription.directory(store)
        if let holder = StoreHolder.staying(in: path) {
            throw Messages.failure(.busy(holder: holder.text), store: path)
        }
        opener = try source.service(of: path)
        open = try StoreOpening.open(
            path, key: .service(opener), readOnly: false, purpose: "unlock-with", acceptsRollback: acceptsRollback)
        open.warnings.forEach(Output.warn)
        keeper = EpochKeeper(open, log: ServerLog(isDetached: false))
    }

    /// How many key services there were.
    var count: Int { open.keyring.slots.count }

    /// The KEK version that a change of the root key makes primary.
    var latest: UInt32 { open.keyring.lifecycle.latest.rawValue + 1 }

    /// Does `body` between its two records in the audit log, and closes the store, whatever comes of it.
    ///
    /// - Parameters:
    ///   - action: As the command line names it: `add`.
    ///   - body: Gives the KEK version that is primary then; nil if it is the one that was.
    func recording(_ action: String, _ spec: String, _ body: () throws -> UInt32?) throws {
        let audit: CommandAudit
        do { audit = try CommandAudit(open, command: "unlock-with") } catch {
            try? keeper.close()
            throw error
        }
        try audit.recording(action, .keyService(label(spec))) {
            let version: UInt32?
            do { version = try body() } catch {
                try? keeper.close()
                throw error
            }
            try keeper.close()
            return version
        }
    }

    /// What is named by its number is told as what it is.
    private func label(_ spec: String) -> String {
        guard let number = Int(spec), open.keyring.slots.indices.contains(number - 1) else { return spec }
        return "\(number): \(open.keyring.slots[number - 1].label)"
    }

    /// The slot that a number, or a key service, means.
    func slot(named spec: String) throws(Failure) -> Int {
        let slots = open.keyring.slots
        if let number = Int(spec) {
            guard slots.indices.contains(number - 1) else { throw Self.missing(spec, path) }
            return number - 1
        }
        var source = KeySource()
        source.spec = spec
        let parsed = try source.parsedSpec()
        var candidates = slots.filter { $0.kind == parsed.kind }
        if parsed.isRemote {
            let own = open.keyring.slots(of: try source.service())
            candidates.removeAll { !own.contains($0.index) }
        }
        guard let first = candidates.first else { throw Self.missing(spec, path) }
        if candidates.count == 1 { return first.index }
        // Several of a kind: the one that opens with what is named.
        let key = try openedBy(spec)
        guard key.count == 1 else {
            throw Failure(
                "\(path): \(candidates.count) of its key services are such ones",
                hint: "say which by its number: 'letterlock unlock-with list \(path)'")
        }
        return key[0]
    }

    private func openedBy(_ spec: String) throws(Failure) -> [Int] {
        var source = KeySource()
        source.spec = spec
        do {
            // The opener is asked without asking anybody for its passphrase once more.
            guard try source.takesTyped() else { return try open.keyring.slots(openedBy: try source.service()) }
            let parsed = try source.parsedSpec()
            return opener.kind == parsed.kind ? try open.keyring.slots(openedBy: opener) : []
        } catch { throw Messages.failure(for: error) }
    }

    private static func missing(_ spec: String, _ path: String) -> Failure {
        Failure(
            "\(path): no key service '\(spec)' opens it", hint: "see 'letterlock unlock-with list \(path)'",
            code: .failed)
    }

    /// The new service's key opens no other keyring.
    func checkIsFree(_ source: KeySource, shared: Bool) throws(Failure) {
        guard !shared else { return }
        try source.memory()?.checkIsFree(for: open.keyring.storeID)
    }

    func remember(_ source: KeySource) throws(Failure) { try source.memory()?.add(open.keyring.storeID, at: path) }

    func checkIsNew(_ service: any KeyService) throws {
        let same = service.canUnseal ? try open.keyring.slots(openedBy: service) : open.keyring.slots(of: service)
        guard same.isEmpty else {
            throw Failure("\(path): this key opens it already", hint: "nothing was changed")
        }
    }

    func add(_ service: any KeyService) throws {
        try checkSound()
        try open.tree.replaceConfiguration(try open.keyring.addingSlot(service), now: .now())
    }

    func rekey(_ index: Int, _ change: UnlockedKeyring.SlotChange) throws {
        try checkSound()
        let now = Timestamp.now()
        try open.tree.rekey(to: try open.keyring.rekeyed(index, change, opener: opener, now: now), now: now)
        // It opens nothing any more.
        UnlockCaching.cache(of: open.keyring).forget()
    }

    /// Has the opener's slots sealed by the newest version of its own key. How many there were that were not.
    func renew() throws -> Int {
        try checkSound()
        guard let renewed = try open.keyring.renewingSlots(of: opener) else { return 0 }
        try open.tree.replaceConfiguration(renewed.configuration, now: .now())
        return renewed.count
    }

    /// What is wrong with the store must not be hidden by a new sum over it.
    private func checkSound() throws(Failure) {
        guard let problem = open.tree.problems.first else { return }
        throw Failure(
            "\(path): \(problem.description)",
            hint: "nothing was changed: see 'letterlock verify', and restore what is damaged first", code: .integrity)
    }

    static func tellOfOldCopies() {
        Output.line("backups and copies of the store from before still open with what was removed")
        Output.line("what was written before is under older KEK versions: 'letterlock reencrypt' makes it new")
    }
}
