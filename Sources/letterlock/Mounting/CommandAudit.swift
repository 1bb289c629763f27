import Access
import Glibc
import Keyring
import SecretFS
import SecretTree

/// The audit log of a keyring that nobody serves, for one command: what it does is recorded in the same chain, where and as
/// strictly as the last mount was told.
struct CommandAudit {
    private let command: String
    private let version: UInt32?
    /// Nil if nothing is recorded.
    private let log: AuditLog?
    private let lock: SmallFile.Lock?

    /// - Parameter command: As the records call it.
    /// - Throws: if the log cannot be written and has to be.
    init(_ opened: OpenKeyring, command: String) throws(Failure) {
        self.command = command
        version = opened.keyring.lifecycle.primary.rawValue
        do {
            let place = try AuditPlace(rememberedIn: opened)
            guard place.mode != .off else {
                (log, lock) = (nil, nil)
                return
            }
            var options = AuditOpening.options(place, opened.keyring)
            options.opening = command
            // Two that only read the store may be at it at once; the chain has one end.
            EpochMemory.makeDirectory(EpochMemory.directory)
            lock = options.headPath.flatMap { SmallFile.Lock($0 + ".lock") }
            do {
                log = try AuditLog(options, keys: try AuditLog.Keys(of: opened.tree), memory: nil) { _ in }
            } catch let failure as AuditFailure {
                throw Self.unwritable(options, failure)
            }
        } catch { throw (error as? Failure) ?? Messages.failure(for: error) }
    }

    private static func unwritable(_ options: AuditLog.Options, _ failure: AuditFailure) -> Failure {
        Failure(
            "the audit log \(options.path ?? "/dev/log") cannot be written, so nothing is done", errno: failure.errno,
            hint:
                "it is where the last mount was told: mount the keyring once with -o audit-log=PATH to have it elsewhere"
        )
    }

    /// Does something between its two records: not without the first one. The log is closed afterwards.
    ///
    /// - Parameter body: Gives the KEK version that is primary then.
    func recording(_ action: String?, _ subject: AuditEntry.Subject?, _ body: () throws -> UInt32?) throws {
        guard let log else {
            _ = try body()
            return
        }
        defer {
            log.close()
            withExtendedLifetime(lock) {}
        }
        let entry = AuditEntry(
            id: .text("\(log.mount)-\(getpid())"), call: action.map { "\(command) \($0)" } ?? command,
            operation: .control, path: nil, newPath: nil,
            requester: Requester(
                uid: getuid(), gid: getgid(),
                process: Access.ProcessTable().identify(thread: getpid(), uid: getuid(), gid: getgid())),
            isAllowed: true, rule: Decision.unopposed.rule, subject: subject)
        do throws(AuditFailure) { try log.record(entry) } catch { throw Self.unwritable(log.options, error) }
        do {
            let version = try body()
            log.respond(entry, errno: 0, kekVersion: version ?? self.version)
        } catch {
            log.respond(entry, errno: Messages.failure(for: error).errno, kekVersion: nil)
            throw error
        }
        if log.failure != 0, log.options.mode == .failClosed {
            Output.warn(
                "it is done, and the audit log cannot be told so: \(SystemError.text(log.failure)); what opens it next tells"
            )
        }
    }
}

extension Failure {
    /// How records, and commands of the control directory, tell why something was not done.
    var errno: Int32 { serviceErrno ?? code.errno }
}

extension ExitCode {
    /// How records tell why something was not done.
    var errno: Int32 {
        switch self {
        case .done: 0
        case .usage: EINVAL
        case .wrongSecret: EKEYREJECTED
        case .locked: EHOSTUNREACH
        case .integrity: EBADMSG
        case .busy: EBUSY
        case .failed, .commandNotExecutable, .commandNotFound: EIO
        }
    }
}
