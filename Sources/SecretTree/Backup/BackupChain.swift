public import Keyring

/// Backups that are restored together: a full one, and then one after the other those of what had changed since the one
/// before.
public struct BackupChain {
    /// Why backups are no chain. The numbers are their places, from 0.
    public enum Fault: Error, Sendable, Equatable {
        /// It holds changes alone, and nothing stands before it.
        case notFull(Int)
        /// A full backup behind another one.
        case full(Int)
        /// Its base is another one of them than the one before it.
        case disorder(Int, base: Int)
        /// Its base is not among them.
        case missingBase(Int, BackupID)
        case otherKeyring(Int)
    }

    let readers: [BackupReader]

    /// - Parameter readers: Of each the header was read and nothing more.
    /// - Precondition: there is one.
    /// - Throws: `.chain` if they are none, or not in this order.
    public init(_ readers: [BackupReader]) throws(BackupError) {
        precondition(!readers.isEmpty, "a chain has a first backup")
        let storeID = try readers[0].summary().storeID
        for (place, reader) in readers.enumerated() {
            guard try reader.summary().storeID == storeID else { throw .chain(.otherKeyring(place)) }
            guard place > 0 else { continue }
            guard let base = reader.base else { throw .chain(.full(place)) }
            guard base != readers[place - 1].id else { continue }
            if let other = readers.firstIndex(where: { $0.id == base }) {
                throw .chain(.disorder(place, base: other))
            }
            throw .chain(.missingBase(place, base))
        }
        guard let base = readers[0].base else {
            self.readers = readers
            return
        }
        if let other = readers.firstIndex(where: { $0.id == base }) { throw .chain(.disorder(0, base: other)) }
        throw .chain(.notFull(0))
    }

    /// The newest, which says what opens them all.
    public var last: BackupReader { readers[readers.count - 1] }

    /// Opens them with what opens the newest: they have one root key.
    ///
    /// - Throws: `.key(.wrongSecret)`.
    public func unlock(with service: any KeyService) throws(BackupError) -> UnlockedRoot {
        let root = try last.unlock(with: service)
        for reader in readers.dropLast() { try reader.unlock(root) }
        return root
    }
}
