import Keyring
import SecretTree

/// When a store was last backed up, as far as anybody here knows: beside what else is remembered of it.
struct BackupMemory {
    private let path: String
    let catalogues: BackupCatalogues

    init(history: String) {
        path = "\(EpochMemory.directory)/\(history).backup"
        catalogues = BackupCatalogues(directory: EpochMemory.directory, history: history)
    }

    /// Of a backup that no later one can go by.
    static var forgotten: String {
        "what the backup holds cannot be remembered in \(EpochMemory.directory): there can be no incremental one on it"
    }

    /// Nil if there was no backup from here.
    var last: Timestamp? {
        guard let bytes = try? SmallFile.read(path, limit: 64) else { return nil }
        let words = String(decoding: bytes, as: UTF8.self).split { $0 == " " || $0 == "\n" }
        guard words.count == 2, let seconds = Int64(words[0]), let nanoseconds = UInt32(words[1]) else { return nil }
        return Timestamp(seconds: seconds, nanoseconds: nanoseconds)
    }

    /// A backup that cannot be remembered is one nevertheless.
    func note(_ time: Timestamp) {
        EpochMemory.makeDirectory(EpochMemory.directory)
        try? SmallFile.replace(path, with: "\(time.seconds) \(time.nanoseconds)\n")
    }
}
