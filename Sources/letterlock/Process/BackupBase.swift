import Glibc
import Keyring
import SecretTree

/// The backup that an incremental one goes by: which it is stands in its header, and the rest of it is not looked at.
struct BackupBase {
    private let path: String
    let id: BackupID
    private let storeID: String

    /// - Parameter target: Where the new one goes, which must not be the place of this one.
    init(_ path: String, replacedBy target: String) throws(Failure) {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { throw Failure(path, errno: errno) }
        defer { close(descriptor) }
        var (own, other) = (stat(), stat())
        if fstat(descriptor, &own) == 0, stat(target, &other) == 0, own.st_dev == other.st_dev,
            own.st_ino == other.st_ino
        {
            throw Failure(
                "an incremental backup in the place of its base could not be restored",
                hint: "give it a name of its own",
                code: .usage)
        }
        self.path = path
        do throws(BackupError) {
            let reader = try BackupReader(descriptor: descriptor)
            id = reader.id
            storeID = try reader.summary().storeID.description
        } catch { throw Messages.failure(error, backup: path) }
    }

    func check(belongsTo keyring: String) throws(Failure) {
        guard storeID != keyring else { return }
        throw Failure("\(path) is a backup of another keyring", hint: "there is no new backup")
    }

    var unknown: Failure {
        Failure(
            "what \(path) holds is not remembered here",
            hint: "it is of the last 16 backups that were made from here: make a full one")
    }

    var useless: Failure {
        Failure(
            "what is remembered of \(path) cannot be used: the keyring's key has changed since, or it is damaged",
            hint: "make a full backup")
    }

    /// Enough of an id to tell backups apart.
    static func short(_ id: BackupID) -> String { String(id.description.prefix(12)) }
}
