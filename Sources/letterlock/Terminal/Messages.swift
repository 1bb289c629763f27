import Fuse
import Glibc
import Keyring
import SecretTree
import Sodium
import Storage

/// The errors of every room as their reader sees them: one switch a room, without `default:`.
enum Messages {
    static func failure(for error: any Error) -> Failure {
        switch error {
        case let failure as Failure: failure
        case let error as KeyringError: failure(error)
        case let error as SodiumError: failure(error)
        case let error as StorageError: failure(error)
        case let error as TreeOpeningError: failure(error)
        case let error as TreeError: failure(error)
        case let error as BackupError: failure(error)
        case let error as FuseError: failure(error)
        case let error as LifecycleError: Failure("the key's state does not allow it: \(error)")
        case let trouble as EpochMemory.Trouble: failure(trouble)
        case let number as SystemErrorNumber: Failure("the system refuses", errno: number.value)
        default: Failure("unexpected error: \(error)")
        }
    }

    static func failure(_ error: SodiumError) -> Failure {
        switch error {
        case .outOfMemory:
            Failure("not enough memory for the keys", hint: "Argon2id needs what the keyring was made with")
        case .cannotLock:
            Failure(
                "keys cannot be locked into memory, so they could reach swap",
                hint: "raise the limit (ulimit -l, LimitMEMLOCK=), or accept it with --allow-unlocked-memory")
        case .unavailable: Failure("libsodium cannot be started")
        case .parametersOutOfBounds:
            Failure(
                "the passphrase's parameters are out of bounds: the store was tampered with", code: .integrity
            )
        }
    }

    static func failure(_ error: FuseError) -> Failure {
        switch error {
        case .device(let number):
            Failure(
                "fuse is missing: /dev/fuse", errno: number,
                hint:
                    "load the kernel's module with 'modprobe fuse', and give a container the device /dev/fuse"
            )
        case .mount(let path, let number):
            Failure(
                "cannot mount on \(path)", errno: number,
                hint: number == EPERM ? "mounting needs root, or fusermount3 of the package fuse3" : nil,
                code: number == EBUSY ? .busy : .failed)
        case .unmount(let path, let number):
            Failure("cannot unmount \(path)", errno: number, code: number == EBUSY ? .busy : .failed)
        case .helper(let path, let number?):
            Failure("\(path): cannot run fusermount3", errno: number, hint: "install the package fuse3")
        case .helper(let path, nil):
            Failure(
                "fusermount3 refuses \(path)",
                hint:
                    "the directory must be yours to write; allow_other needs user_allow_other in /etc/fuse.conf"
            )
        case .session(let number): Failure("libfuse makes no session", errno: number)
        case .thread(let number): Failure("cannot start a thread", errno: number)
        case .resend(let number): Failure("the kernel does not resend requests", errno: number)
        case .takeover: Failure("the mount cannot be taken over")
        }
    }

    static func failure(_ trouble: EpochMemory.Trouble) -> Failure {
        switch trouble {
        case .unreadable(let path, let number), .unwritable(let path, let number):
            Failure(path, errno: number)
        case .malformed(let path): Failure("\(path) does not hold an epoch")
        }
    }

    static func failure(_ error: TreeOpeningError) -> Failure {
        switch error {
        case .rolledBack(let epoch, let seen):
            Failure(
                "the store was rolled back: it is at epoch \(epoch), \(seen) was seen before",
                hint: "if you restored it on purpose, say so with --accept-rollback", code: .integrity)
        case .tampered(let problems):
            Failure(
                "the store does not verify: "
                    + (problems.first?.description ?? "its root does not authenticate"),
                hint: "restore it from a backup", code: .integrity)
        case .notAKeyring:
            Failure("the store holds no keyring", hint: "was its making interrupted? 'letterlock init' anew")
        case .key(let error): failure(error)
        case .storage(let error): failure(error)
        }
    }

    static func failure(_ error: TreeError) -> Failure {
        switch error {
        case .notFound: Failure("no such file or directory")
        case .exists: Failure("file exists")
        case .notADirectory: Failure("not a directory")
        case .isADirectory: Failure("is a directory")
        case .notEmpty: Failure("directory not empty")
        case .nameTooLong: Failure("file name too long")
        case .tooManyLinks: Failure("too many links")
        case .busy: Failure("a job of that kind is running", code: .busy)
        case .invalid: Failure("invalid argument")
        case .fileTooLarge: Failure("file too large")
        case .noAttribute: Failure("no such attribute")
        case .attributeTooLarge: Failure("attribute too large")
        case .notSupported: Failure("not supported")
        case .notPermitted: Failure("not permitted")
        case .readOnly: Failure("the store is read-only")
        case .full: Failure("the store's disk is full", hint: "free some space; nothing was changed")
        case .tampered(let node):
            Failure(
                "inode \(node.rawValue): a record does not authenticate", hint: "run 'letterlock verify'",
                code: .integrity)
        case .key(let error): failure(error)
        case .noData: Failure("no such data")
        case .storage(let text): Failure(text)
        }
    }

    static func newerFormat(_ format: Int) -> Failure {
        Failure(
            "the store has format \(format), which is newer than this program knows",
            hint: "use the letterlock that made it, or a newer one")
    }
}
