import Glibc
import Keyring

/// The highest epoch seen of a store, kept outside of it, so that an old copy put in its place is noticed.
struct EpochMemory {
    enum Trouble: Error {
        case unreadable(path: String, errno: Int32)
        case malformed(path: String)
        case unwritable(path: String, errno: Int32)
    }

    let path: String

    /// Each history of a store has its own: what was restored from a backup does not hold for a rollback of what it was
    /// made from, nor the other way round.
    init(of keyring: UnlockedKeyring) { self.init(history: keyring.historyName) }

    init(history: String) { path = "\(Self.directory)/\(history).epoch" }

    static var directory: String {
        if let given = variable("LETTERLOCK_STATE_DIRECTORY") { return given }
        if geteuid() == 0 { return "/var/lib/letterlock" }
        if let state = variable("XDG_STATE_HOME") { return state + "/letterlock" }
        return (variable("HOME") ?? "/nonexistent") + "/.local/state/letterlock"
    }

    static func pinDirectory() { Paths.pinVariable("LETTERLOCK_STATE_DIRECTORY") }

    /// What was last recorded; nil if this store was never seen from here.
    func seen() throws(Trouble) -> UInt64? {
        let bytes: [UInt8]
        do {
            bytes = try SmallFile.read(path, limit: 4096)
        } catch {
            if error.value == ENOENT || error.value == ENOTDIR { return nil }
            throw .unreadable(path: path, errno: error.value)
        }
        let text = String(decoding: bytes, as: UTF8.self)
        guard text.hasSuffix("\n"), let epoch = UInt64(text.dropLast()) else { throw .malformed(path: path) }
        return epoch
    }

    /// Remembers `epoch`, which must be safe from power loss in the store itself already: else an honest crash
    /// would look like a rollback.
    func record(_ epoch: UInt64) throws(Trouble) {
        Self.makeDirectory(Self.directory)
        do {
            try SmallFile.replace(path, with: "\(epoch)\n")
        } catch {
            throw .unwritable(path: path, errno: error.value)
        }
    }

    static func makeDirectory(_ path: String) {
        guard mkdir(path, 0o700) != 0, errno == ENOENT else { return }
        let parent = String(path.dropLast(Paths.lastComponent(path).count + 1))
        guard !parent.isEmpty else { return }
        makeDirectory(parent)
        mkdir(path, 0o700)
    }

    private static func variable(_ name: String) -> String? {
        guard let value = getenv(name), value.pointee != 0 else { return nil }
        return String(cString: value)
    }
}
