import Fuse
import Glibc
import Keyring
import SecretTree

/// What a control file gives that is made while it is read: each open of it is one stream, from its beginning to its end.
final class ControlStream: @unchecked Sendable {
    // Unchecked: used under the lock of the open file that has it.
    private let stream: BackupStream
    private let notes: SecretFSOptions.BackupNotes?
    /// As of when it is; nil once that is remembered.
    private var began: Timestamp? = .now()
    private var position = 0
    /// Where its beginning is read, as its reader counts; nil before that is known.
    private var origin: Int?

    /// The keyring's backup as of now.
    ///
    /// - Parameter command: `since=ID`, what has changed since that backup alone; `recipient=age1…`, who can open it besides.
    ///   Whoever has written it may read on where that ended.
    init(backupOf fileSystem: SecretFS, _ command: ControlCommand?) throws(Errno) {
        let notes = fileSystem.options.backups
        self.notes = notes
        origin = command == nil ? 0 : nil
        var (base, recipient): (BackupID?, (any KeyService)?) = (nil, nil)
        for word in command?.text.split(separator: " ") ?? [] {
            if word.hasPrefix("since="), base == nil, let id = BackupID(word.dropFirst(6)) {
                base = id
            } else if word.hasPrefix("recipient="), recipient == nil, let notes {
                recipient = try notes.recipient(String(word.dropFirst(10)))
            } else {
                throw .invalid
            }
        }
        // What is being gathered is no value yet; what close(2) has returned for is in the tree.
        do throws(BackupMakingError) {
            stream = try BackupStream(
                fileSystem.tree, since: base, recipient: recipient, catalogues: notes?.catalogues)
        } catch { throw Errno(error) }
    }

    /// - Throws: ESPIPE if that is not where it stands.
    func read(at offset: Int, into buffer: UnsafeMutableRawBufferPointer) throws(Errno) -> Int {
        let origin = origin ?? offset
        guard offset - origin == position else { throw Errno(ESPIPE) }
        self.origin = origin
        var count = 0
        while count < buffer.count {
            let rest = UnsafeMutableRawBufferPointer(rebasing: buffer[count...])
            let got = try answering { () throws(TreeError) in try stream.read(into: rest) }
            if got == 0 {
                // Whoever has read it to its end has it.
                if let began { notes?.note(began, stream.isRemembered) }
                began = nil
                break
            }
            count += got
        }
        position += count
        return count
    }
}

extension Errno {
    init(_ error: BackupMakingError) {
        switch error {
        case .unknownBase: self = .noAttribute
        case .uselessBase: self.init(EKEYREJECTED)
        case .unreadableBase(let number): self.init(number)
        case .tree(let error): self.init(error)
        }
    }
}
