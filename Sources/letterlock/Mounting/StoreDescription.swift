import Glibc
import Keyring
import SecretTree
import Storage

/// Which process has a store open, by its lock file.
struct StoreHolder {
    /// `pid 12 mounted at /mnt/prod`
    let text: String

    init?(of path: String) {
        guard let text = JournaledStore.holder(of: path) else { return nil }
        self.text = text
    }

    /// The process that has the store open. One that is unmounted already and only brings it to disk is waited for,
    /// as umount(8) waits for no server.
    static func staying(in store: String) -> StoreHolder? {
        guard let holder = StoreHolder(of: store) else { return nil }
        guard let place = holder.mountpoint, let process = holder.process,
            MountTable().entry(at: place)?.isLetterlock != true
        else { return holder }
        _ = ProcessTable.awaitEnd(of: process, seconds: patienceSeconds)
        return StoreHolder(of: store)
    }

    private static let patienceSeconds: Int32 = 20
    private static let mark = " mounted at "

    private var process: Int32? {
        text.hasPrefix("pid ") ? Int32(text.dropFirst(4).prefix { $0.isNumber }) : nil
    }

    /// Where it is mounted; nil if it is open for something else.
    var mountpoint: String? {
        guard let place = text.firstRange(of: Self.mark) else { return nil }
        return String(text[place.upperBound...])
    }
}

/// What can be told of a store without its key.
struct StoreDescription {
    let path: String
    let holder: StoreHolder?
    /// Nil while another process has the store open.
    private(set) var summary: KeyringSummary?

    init(at place: String) throws(Failure) {
        path = try Self.directory(place)
        holder = StoreHolder(of: path)
        guard holder == nil else { return }
        summary = try Self.summary(of: path, inheritedLock: nil)
    }

    /// What the configuration in a store says, read only, beside a process that has the store locked if need be.
    ///
    /// - Parameter inheritedLock: The lock, from the process that has it.
    static func summary(of path: String, inheritedLock: Int32?) throws(Failure) -> KeyringSummary {
        let configuration = try configuration(of: path, inheritedLock: inheritedLock)
        do {
            return try configuration.withUnsafeBytes { try KeyringSummary(configuration: $0) }
        } catch {
            throw Messages.failure(for: error)
        }
    }

    /// The configuration in a store, likewise.
    static func configuration(of path: String, inheritedLock: Int32? = nil) throws(Failure) -> [UInt8] {
        let store: JournaledStore
        do {
            store = try JournaledStore.open(
                at: path, readOnly: true, purpose: "status", inheritedLock: inheritedLock)
        } catch {
            throw Messages.failure(error, store: path)
        }
        if inheritedLock != nil { store.leaveLock() }
        defer { try? store.close() }
        do {
            guard let configuration = try SecretTree.configuration(of: store) else {
                throw TreeOpeningError.notAKeyring
            }
            return configuration
        } catch {
            throw Messages.failure(for: error)
        }
    }

    /// The store's directory, resolved.
    static func directory(_ path: String) throws(Failure) -> String {
        switch Paths.resolved(path) {
        case .success(let directory): return directory
        case .failure(let number):
            throw Failure(
                path, errno: number.value,
                hint: number.value == ENOENT ? "make a keyring with 'letterlock init \(path)'" : nil)
        }
    }

    /// For how long an unlock cache opens it.
    private func cachedSeconds(_ summary: KeyringSummary) -> Int64? {
        UnlockCache(directory: EpochMemory.directory, of: summary).secondsLeft
    }

    private var state: String { holder == nil ? "locked" : "unlocked" }

    var table: Table {
        var table = Table()
        if let summary {
            table.add(["keyring", summary.name])
            table.add(["store id", summary.storeID.description])
        }
        table.add(["state", holder.map { "held by \($0.text)" } ?? "not mounted"])
        table.add(["store", path])
        if let summary {
            table.add(["created", summary.created.rfc3339])
            table.add(["key services", summary.keyServices.joined(separator: ", ")])
            if let seconds = cachedSeconds(summary) { table.add(["unlock cache", "opens it for \(seconds) s more"]) }
        }
        return table
    }

    var json: String {
        var members: [(String, String)] = []
        if let summary {
            members.append(("keyring", JSON.quoted(summary.name)))
            members.append(("store_id", JSON.quoted(summary.storeID.description)))
        }
        members.append(("state", JSON.quoted(state)))
        members.append(("store", JSON.quoted(path)))
        if let holder { members.append(("holder", JSON.quoted(holder.text))) }
        if let summary {
            members.append(("created", JSON.quoted(summary.created.rfc3339)))
            members.append(
                ("key_services", "[" + summary.keyServices.map(JSON.quoted).joined(separator: ",") + "]"))
            members.append(("unlock_cache_seconds", cachedSeconds(summary).map { String($0) } ?? "null"))
        }
        return "{" + members.map { "\(JSON.quoted($0.0)):\($0.1)" }.joined(separator: ",") + "}"
    }
}
