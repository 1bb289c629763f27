public import Keyring
internal import Sodium
public import Storage

/// What a backup was found to hold.
public struct BackupReport: Sendable {
    public var epoch: UInt64
    public var fileCount: UInt64
    /// Of all backups of a chain together.
    public var recordCount: UInt64
    public var blockCount: UInt64
}

/// Going through backups whole: every part is opened, and what is in it is held against its root record.
public enum Restoring {
    /// Why a restore fails.
    public enum Failed: Error {
        /// Which backup of the chain, from 0, and what is wrong with it.
        case backup(Int, BackupError)
        case storage(StorageError)
    }

    /// Checks one backup by itself. Of one that holds changes it is believed that its base was what it says.
    ///
    /// - Parameter reader: One that was unlocked and nothing more.
    public static func check(_ reader: BackupReader, _ root: UnlockedRoot) throws(BackupError) -> BackupReport {
        do throws(Failed) {
            var passage = try RestorePassage(root, into: nil)
            try passage.follow(reader, believesBase: true)
            return passage.report
        } catch { throw why(error) }
    }

    /// Checks a chain, one backup after the other, and that the last one's keys open.
    ///
    /// - Parameter root: What `unlock` has given.
    public static func check(_ chain: BackupChain, _ root: UnlockedRoot) throws(Failed) -> (
        UnlockedKeyring, BackupReport
    ) {
        var passage = try RestorePassage(root, into: nil)
        try follow(chain, &passage)
        return (try passage.keyring(), passage.report)
    }

    /// Puts what a chain holds into a store that was just made. Only with the last change does it become a keyring.
    ///
    /// On return all is folded and durable. When it throws, what is in the store is to be thrown away.
    public static func restore(_ chain: BackupChain, _ root: UnlockedRoot, into store: any RecordStore) throws(Failed)
        -> (UnlockedKeyring, BackupReport)
    {
        var passage = try RestorePassage(root, into: store)
        try follow(chain, &passage)
        let keyring = try passage.keyring()
        try passage.finish(keyring)
        do throws(StorageError) {
            try store.fold()
            try store.sync()
        } catch { throw .storage(error) }
        return (keyring, passage.report)
    }

    private static func follow(_ chain: BackupChain, _ passage: inout RestorePassage) throws(Failed) {
        for (place, reader) in chain.readers.enumerated() {
            passage.place = place
            try passage.follow(reader, believesBase: false)
        }
    }

    private static func why(_ error: Failed) -> BackupError {
        switch error {
        case .backup(_, let error): error
        case .storage: preconditionFailure("internal error: a check has no store")
        }
    }
}
