import Glibc
import Keyring
import SecretTree
import Sodium
import Storage

// Why a store or a keyring does not open.
extension Messages {
    static func failure(_ error: StorageError, store path: String? = nil) -> Failure {
        let store = path ?? "the store"
        return switch error {
        case .full: Failure("the disk of \(store) is full", hint: "free some space; nothing was changed")
        case .readOnly:
            Failure("\(store) is on a read-only disk", hint: "mount the keyring with -o ro")
        case .io(let number, let what):
            Failure(
                "\(store): \(what)", errno: number,
                hint: number == EACCES || number == EPERM
                    ? "a store is read by its owner and root alone" : nil)
        case .corrupt(let what):
            Failure("\(store) is damaged: \(what)", hint: "restore it from a backup", code: .integrity)
        case .notAStore(let what):
            Failure("not a store: \(what)", hint: "make one with 'letterlock init'")
        case .newerFormat(let format): newerFormat(format)
        case .busy(let holder):
            Failure(
                "\(store) is in use" + (holder.isEmpty ? "" : " by \(holder)"),
                hint: "one server a store: unmount it there first", code: .busy)
        case .conflict: Failure("\(store) was changed by somebody else meanwhile")
        case .closed: Failure("\(store) is closed")
        }
    }

    static func failure(_ error: KeyringError) -> Failure {
        switch error {
        case .wrongSecret:
            Failure("wrong passphrase or key", hint: "nothing was changed; try again", code: .wrongSecret)
        case .serviceUnavailable(let text): locked(text)
        case .service(let fault): failure(fault)
        case .notAKeyring:
            Failure(
                "the keyring is damaged: its configuration is not one", hint: "restore the store from a backup",
                code: .integrity)
        case .newerFormat(let format): newerFormat(Int(format))
        case .damaged(let what):
            Failure(
                "the keyring is damaged: \(what)", hint: "restore the store from a backup", code: .integrity)
        case .noMatchingSlot(let kinds):
            Failure(
                "this keyring is not opened by such a key",
                hint: "it takes: \(kinds.joined(separator: ", ")); say which with --key-service",
                code: .wrongSecret)
        case .noFreeSlot(let limit):
            Failure(
                "a keyring has at most \(limit) key services", hint: "remove one with 'letterlock unlock-with remove'")
        case .io(let path, let number):
            Failure(
                path, errno: number,
                hint: number == ENOENT
                    ? "it is to hold a key or passphrase; a new key: (umask 077; openssl rand -base64 32 >\(path))"
                    : nil,
                code: .locked)
        case .insecureFile(let path, let mode):
            Failure(
                "\(path): group or others can read it (mode \(String(mode, radix: 8)))",
                hint: "chmod 600 \(path)",
                code: .locked)
        case .malformedKeyFile(let path):
            Failure(
                "\(path) is not a key file",
                hint: "it holds 32 bytes, or the line of 'openssl rand -base64 32'",
                code: .locked)
        case .cannotLock: failure(SodiumError.cannotLock)
        case .revoked(let state): Failure("the KEK version is \(state.name)", code: .locked)
        case .destroyed: Failure("the KEK version is destroyed", code: .locked)
        case .expired: Failure("the KEK version is below min_decryption_version", code: .locked)
        case .noSuchVersion: Failure("there is no such KEK version", code: .integrity)
        case .doesNotAuthenticate: Failure("a key does not authenticate", code: .integrity)
        case .lifecycle(let error): Failure("the key's state does not allow it: \(error)")
        }
    }

    /// - Parameter text: What is wrong, and perhaps a hint on a line of its own.
    private static func locked(_ text: String) -> Failure {
        let lines = text.split(separator: "\n", maxSplits: 1)
        return Failure(String(lines.first ?? ""), hint: lines.count > 1 ? String(lines[1]) : nil, code: .locked)
    }

    static func failure(_ error: BackupError, backup path: String? = nil) -> Failure {
        let backup = path ?? "the backup"
        return switch error {
        case .notABackup:
            Failure("\(backup) is not a backup of letterlock's", hint: "or its beginning is damaged", code: .integrity)
        case .newerFormat(let format):
            Failure(
                "\(backup) has format \(format), which is newer than this program knows",
                hint: "use the letterlock that made it, or a newer one")
        case .cut: Failure("\(backup) ends too early: a part of it is missing", hint: other, code: .integrity)
        case .damaged(let what): Failure("\(backup) is damaged: \(what)", hint: other, code: .integrity)
        case .key(.damaged(let what)): Failure("\(backup) is damaged: \(what)", hint: other, code: .integrity)
        case .key(.notAKeyring):
            Failure("\(backup) is damaged: its configuration is not one", hint: other, code: .integrity)
        case .key(let error): failure(error)
        case .unreadable(let number): Failure(backup, errno: number)
        case .chain(let fault): failure(fault, [backup])
        }
    }

    static func failure(_ error: BackupError, backups: [String]) -> Failure {
        guard case .chain(let fault) = error else { return failure(error, backup: backups.last) }
        return failure(fault, backups)
    }

    private static func failure(_ fault: BackupChain.Fault, _ backups: [String]) -> Failure {
        func name(_ place: Int) -> String { backups.indices.contains(place) ? backups[place] : "the backup" }
        let order =
            "nothing was made; name them in the order in which they were made: letterlock restore FULL INCREMENT … STORE"
        return switch fault {
        case .notFull(let place):
            Failure(
                "\(name(place)) holds only what has changed since another backup, which is missing before it",
                hint: order)
        case .full(let place):
            Failure("\(name(place)) is a full backup, which nothing can stand before", hint: order)
        case .disorder(let place, let base):
            Failure("\(name(place)) follows \(name(base)), and not what stands before it", hint: order)
        case .missingBase(let place, let base):
            Failure(
                "\(name(place)) does not follow \(name(place - 1)): the backup between them is missing",
                hint: "nothing was made; what is missing is backup \(BackupBase.short(base))")
        case .otherKeyring(let place):
            Failure("\(name(place)) is of another keyring than \(name(0))", hint: other)
        }
    }

    private static let other = "nothing was made; try another backup"

    private static func failure(_ fault: KeyServiceFault) -> Failure {
        var failure = Failure(fault.message, hint: fault.hint, code: code(of: fault.reason))
        failure.serviceErrno = fault.reason.errno
        return failure
    }

    private static func code(of reason: KeyServiceFault.Reason) -> ExitCode {
        switch reason {
        case .denied: .wrongSecret
        case .unreachable, .timedOut, .keyDisabled, .keyMissing, .malformedAnswer, .misconfigured: .locked
        case .keyInUse: .failed
        case .malformedAddress: .usage
        }
    }
}
