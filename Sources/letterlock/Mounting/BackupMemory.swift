import Keyring
import SecretTree

/// When a store was last backed up, as far as anybody here knows: beside what else is remembered of it.
struct BackupMemory {
    private let time: TimeMemory
    let catalogues: BackupCatalogues

    init(history: String) {
        time = TimeMemory(history: history, suffix: "backup")
        catalogues = BackupCatalogues(directory: EpochMemory.directory, history: history)
    }

    /// Of a backup that no later one can go by.
    static var forgotten: String {
        "what the backup holds cannot be remembered in \(EpochMemory.directory): there can be no incremental one on it"
    }

    /// Nil if there was no backup from here.
    var last: Timestamp? { time.last }

    /// A backup that cannot be remembered is one nevertheless.
    func note(_ time: Timestamp) { self.time.note(time) }
}
