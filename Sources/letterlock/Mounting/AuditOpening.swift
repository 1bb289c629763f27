import Access
import Fuse
import Glibc
import Keyring
import SecretFS

/// The way to a keyring's audit log.
enum AuditOpening {
    /// Opens the log of a mount.
    ///
    /// - Returns: nil if nothing is to be recorded.
    static func open(
        _ place: AuditPlace, _ opened: OpenKeyring, memory: AuditMemory, takesOver: Bool, isFromCache: Bool,
        log: ServerLog
    ) throws(Failure) -> AuditLog? {
        guard place.mode != .off else { return nil }
        var wanted = options(place, opened.keyring)
        wanted.takesOver = takesOver
        wanted.isFromCache = isFromCache
        // One is at the device, and one is for those who need no record.
        wanted.waiterLimit = max(1, Server.Options().threadCount - 2)
        guard wanted.path != nil || wanted.usesSyslog else {
            throw Failure("audit-log=none leaves no device", hint: "add audit-syslog, or audit=off", code: .usage)
        }
        do {
            let path = wanted.path ?? "the system log"
            return try AuditLog(wanted, keys: try AuditLog.Keys(of: opened.tree), memory: memory) { failing in
                if failing == 0 {
                    log.note("the audit log \(path) takes records again")
                } else {
                    log.warn("the audit log \(path) cannot be written: \(SystemError.text(failing))")
                }
            }
        } catch let failure as AuditFailure {
            throw Failure(
                "the audit log \(wanted.path ?? "/dev/log") cannot be written", errno: failure.errno,
                hint:
                    "choose its place with -o audit-log=PATH, or go on without it with -o audit=best-effort or audit=off"
            )
        } catch {
            throw Messages.failure(for: error)
        }
    }

    static func options(_ place: AuditPlace, _ keyring: UnlockedKeyring) -> AuditLog.Options {
        let store = keyring.historyName
        var options = AuditLog.Options()
        options.mode = place.mode
        options.usesSyslog = place.usesSyslog
        options.hidesPaths = place.hidesPaths
        options.keyring = keyring.name
        options.store = store
        options.headPath = headPath(store: store)
        options.version = Program.version
        options.path =
            switch place.file {
            case .usual: usualPath(keyring: keyring.name, store: store)
            case .none: nil
            case .path(let path): path
            }
        return options
    }

    /// Beside what else is remembered of stores; two keyrings may have one name.
    static func usualPath(keyring: String, store: String) -> String {
        let name = keyring.unicodeScalars.map { scalar in
            scalar == "/" || scalar.value < 0x20 || scalar.value == 0x7F ? "_" : Character(scalar)
        }
        // What was restored has a history, and a log, of its own.
        let history = store.split(separator: ".").last ?? ""
        return "\(EpochMemory.directory)/audit/\(String(name))-\(history.prefix(8)).jsonl"
    }

    static func headPath(store: String) -> String { "\(EpochMemory.directory)/\(store).audit" }
}
